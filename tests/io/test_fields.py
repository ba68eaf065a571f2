"""Flow and disparity files: round trips in every format, and one sentence for what cannot be read."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupola.errors import DataError
from cupola.io.fields import read_disparity, read_flow, write_disparity, write_flow

STEP = {"png": (1 / 128, 1 / 512), "flo": (0, 0), "pfm": (0, 0), "npz": (0, 0)}
"""Half a step of flow and disparity [px]."""


@given(
    seed=st.integers(0, 10**6),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    suffix=st.sampled_from(["png", "flo", "pfm", "npz"]),
)
@settings(max_examples=60, deadline=None)
def test_flow_round_trip(tmp_path_factory, seed, height, width, suffix):
    rng = np.random.default_rng(seed)
    flow = rng.uniform(-500, 500, (2, height, width)).astype(np.float32)
    flow[:, rng.random((height, width)) < 0.3] = np.nan
    path = tmp_path_factory.mktemp("f") / f"f.{suffix}"
    write_flow(path, flow)
    np.testing.assert_allclose(read_flow(path), flow, rtol=0, atol=STEP[suffix][0])


@given(
    seed=st.integers(0, 10**6),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    suffix=st.sampled_from(["png", "pfm", "npz"]),
)
@settings(max_examples=60, deadline=None)
def test_disparity_round_trip(tmp_path_factory, seed, height, width, suffix):
    rng = np.random.default_rng(seed)
    disparity = rng.uniform(0.1, 250, (height, width)).astype(np.float32)
    disparity[rng.random((height, width)) < 0.3] = np.nan
    path = tmp_path_factory.mktemp("d") / f"d.{suffix}"
    write_disparity(path, disparity)
    np.testing.assert_allclose(read_disparity(path), disparity, rtol=0, atol=STEP[suffix][1])


def test_known_bytes(tmp_path):
    """A .flo and a PFM written out by hand: 2 x 1 pixels; and an upside-down PFM of big-endian numbers."""
    values = np.array([1, 2, 3, 4], "<f4").tobytes()
    (tmp_path / "a.flo").write_bytes(b"PIEH\x02\0\0\0\x01\0\0\0" + values)
    np.testing.assert_array_equal(read_flow(tmp_path / "a.flo"), [[[1, 3]], [[2, 4]]])
    (tmp_path / "a.pfm").write_bytes(b"Pf\n1 2\n1.0\n" + np.array([5, 6], ">f4").tobytes())
    np.testing.assert_array_equal(read_disparity(tmp_path / "a.pfm"), [[6], [5]])


def test_npz_may_have_channels_last_and_a_mask(tmp_path):
    flow = np.arange(24, dtype=np.float32).reshape(3, 4, 2)
    valid = np.ones((3, 4), bool)
    np.savez(tmp_path / "a.npz", anything=flow)
    np.testing.assert_array_equal(read_flow(tmp_path / "a.npz"), np.moveaxis(flow, -1, 0))
    valid[1, 2] = False
    np.savez(tmp_path / "b.npz", disparity=flow[..., 0], valid=valid)
    assert np.isnan(read_disparity(tmp_path / "b.npz")).sum() == 1


def test_a_npz_of_objects_is_not_unpickled(tmp_path):
    np.savez(tmp_path / "a.npz", flow=np.array([{}], dtype=object))
    with pytest.raises(DataError, match="not an npz file of numbers"):
        read_flow(tmp_path / "a.npz")


@pytest.mark.parametrize("suffix", ["png", "flo", "pfm", "npz"])
@pytest.mark.parametrize("kept", [0, 1, 11, 30, -1])
def test_a_cut_file_is_one_sentence(tmp_path, suffix, kept):
    path = tmp_path / f"f.{suffix}"
    write_flow(path, np.ones((2, 5, 6), np.float32))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match=str(path)):
        read_flow(path)


def test_the_real_disparity_is_read(shared):
    disparity = read_disparity(shared / "data" / "kitti15_stereo" / "training" / "disp_occ_0" / "000000_10.png")
    assert disparity.shape == (375, 1242)
    assert 0.1 < np.isfinite(disparity).mean() < 0.9
    assert 1 < np.nanmin(disparity) < np.nanmax(disparity) < 130
