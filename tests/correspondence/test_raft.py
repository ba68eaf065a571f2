"""RAFT and SMURF: every layout of weights gives the same network, and the network is torchvision's."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchvision.models.optical_flow import raft as parts
from torchvision.models.optical_flow import raft_large, raft_small

from cupola.correspondence import CorrespondenceProvider, RaftCorrespondence
from cupola.correspondence.raft.network import Variant, build, build_with, expected_shapes, find_flows
from cupola.correspondence.raft.weights import CORRELATION, read_raft
from cupola.errors import CheckpointError, ConfigError
from cupola.types import Calibration, StereoClip, StereoFrame

CPU = torch.device("cpu")
CALIBRATION = Calibration(100.0, 100.0, 70.0, 65.0, 0.5)


def random_state(variant, seed=0):
    """Weights of a sane size; the running variance of a norm is positive."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in expected_shapes(variant).items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(0)
        elif name.endswith("running_var") or (".1.weight" in name and len(shape) == 1):
            state[name] = torch.rand(shape, generator=generator) + 0.5
        else:
            fan = max(1, int(np.prod(shape[1:])))
            state[name] = torch.randn(shape, generator=generator) / fan**0.5
    return state


@pytest.fixture(scope="module")
def states():
    return {variant: random_state(variant) for variant in Variant}


def images(count, height, width, seed=0):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1


RELEASE = {
    "feature_encoder": "fnet", "context_encoder": "cnet", "motion_encoder": "encoder", "flow_head": "flow_head",
}  # fmt: skip


def release_name(name, is_small):
    """The RAFT release's name of a weight, written independently of the reader's rules."""
    words = name.split(".")
    leaf = words[-1]
    if words[0] in ("feature_encoder", "context_encoder"):
        net = RELEASE[words[0]]
        if words[1] == "convnormrelu":
            return f"{net}.{'conv1' if words[2] == '0' else 'norm1'}.{leaf}"
        if words[1] == "conv":
            return f"{net}.conv2.{leaf}"
        if words[3] == "downsample":
            return ".".join([net, *words[1:]])
        number, what = words[3][-1], "conv" if words[4] == "0" else "norm"
        return f"{net}.{words[1]}.{words[2]}.{what}{number}.{leaf}"
    if words[0] == "mask_predictor":
        return f"update_block.mask.{'0' if words[1] == 'convrelu' else '2'}.{leaf}"
    if words[1] == "motion_encoder":
        return f"update_block.encoder.{words[2].replace('corr', 'c').replace('flow', 'f')}.{leaf}"
    if words[1] == "recurrent_block":
        number = "" if is_small else words[2][-1]
        return f"update_block.gru.{words[3]}{number}.{leaf}"
    return name


def release_state(state, is_small):
    renamed = {f"module.{release_name(name, is_small)}": tensor for name, tensor in state.items()}
    for name in list(renamed):  # the norm of a shortcut is also known by its block
        if "cnet" in name and ".downsample.1." in name:
            renamed[name.replace("downsample.1", "norm3")] = renamed[name]
    return renamed


@pytest.mark.parametrize("variant", [Variant.LARGE, Variant.SMALL])
@pytest.mark.parametrize("layout", ["torchvision", "release", "training run", "safetensors"])
def test_every_layout_is_the_same_network(tmp_path, states, variant, layout):
    state = states[variant]
    path = tmp_path / ("w.safetensors" if layout == "safetensors" else "w.pth")
    if layout == "safetensors":
        save_file(state, path)
    elif layout == "torchvision":
        torch.save(state, path)
    elif layout == "release":
        torch.save(release_state(state, variant is Variant.SMALL), path, _use_new_zipfile_serialization=False)
    else:
        torch.save({"state_dict": {f"model.{name}": value for name, value in state.items()}, "epoch": 3}, path)
    found, read = read_raft(path, tmp_path / "cache")
    assert found is variant
    assert read.keys() == state.keys()
    assert all(torch.equal(read[name], state[name]) for name in state)


def test_release_names_are_those_of_the_real_file(shared, states):
    from cupola.io import read_checkpoint

    real = read_checkpoint(shared / "data" / "weights" / "raft-small.pth")
    assert real.keys() == release_state(states[Variant.SMALL], True).keys()


def window_order(row_by_row):
    """The correlation channels of a level as (dy, dx), in the order in which SMURF or torchvision has them."""
    steps = range(-4, 5)
    return [(a, b) if row_by_row else (b, a) for a in steps for b in steps]


def test_torchvision_reads_windows_column_by_column():
    """What the exchange of SMURF's weights relies on."""
    block = parts.CorrBlock(num_levels=1, radius=4)
    first, second = torch.zeros(1, 1, 32, 32), torch.zeros(1, 1, 32, 32)
    first[0, 0, 10, 10] = second[0, 0, 11, 13] = 1  # dy = 1, dx = 3
    block.build_pyramid(first, second)
    steps = torch.arange(32.0)
    grid = torch.stack(torch.meshgrid(steps, steps, indexing="xy"))[None]
    channel = int(block.index_pyramid(centroids_coords=grid)[0, :, 10, 10].argmax())
    assert window_order(row_by_row=False)[channel] == (1, 3)


@pytest.mark.parametrize("prefix", ["", "raft.", "module.raft."])
def test_smurf_is_known_by_its_norms_and_its_windows_are_turned(tmp_path, states, prefix):
    state = states[Variant.SMURF]
    torch.save({f"{prefix}{name}": value for name, value in state.items()}, tmp_path / "raft_smurf.pt")
    variant, read = read_raft(tmp_path / "raft_smurf.pt", tmp_path / "cache")
    assert variant is Variant.SMURF
    assert not any("running_mean" in name for name in read)
    ours, theirs = window_order(row_by_row=False), window_order(row_by_row=True)
    for level in range(4):
        for channel, step in enumerate(ours):
            expected = state[CORRELATION][:, 81 * level + theirs.index(step)]
            assert torch.equal(read[CORRELATION][:, 81 * level + channel], expected)
    assert all(torch.equal(read[name], state[name]) for name in state if name != CORRELATION)


def test_smurf_differs_from_raft_large_in_the_context_norm_only(states):
    kinds = {type(module) for module in build(Variant.SMURF).context_encoder.modules()}
    assert torch.nn.InstanceNorm2d in kinds
    assert torch.nn.BatchNorm2d not in kinds
    assert states[Variant.SMURF].items().__len__() == sum(
        "context_encoder" not in name or ".1." not in name.replace("layer1.1", "").replace("layer2.1", "")
        .replace("layer3.1", "") for name in states[Variant.LARGE]
    )  # fmt: skip


def test_updates_are_the_published_ones():
    assert [variant.updates for variant in (Variant.SMURF, Variant.LARGE, Variant.SMALL)] == [16, 24, 12]


@pytest.mark.parametrize(("variant", "make"), [(Variant.LARGE, raft_large), (Variant.SMALL, raft_small)])
def test_flow_is_torchvision_s(states, variant, make):
    reference = make(weights=None).eval()
    reference.load_state_dict(states[variant])
    pair = images(2, 128, 136)
    with torch.inference_mode():
        expected = reference(pair[:1], pair[1:], num_flow_updates=3)[-1]
    found = find_flows(build_with(variant, states[variant], CPU), pair, [(0, 1)], 3, 1)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


@pytest.mark.parametrize("size", [(1, 1), (64, 200), (130, 139), (128, 128)])
def test_any_size_is_padded_and_cut(states, size):
    network = build_with(Variant.SMALL, states[Variant.SMALL], CPU)
    found = find_flows(network, images(2, *size), [(0, 1)], 2, 1)
    assert found.shape == (1, 2, *size)
    assert torch.isfinite(found).all()


def test_padding_repeats_the_border(states):
    network = build_with(Variant.SMALL, states[Variant.SMALL], CPU)
    small = images(2, 129, 131)
    by_hand = torch.nn.functional.pad(small, (2, 3, 3, 4), mode="replicate")
    found = find_flows(network, small, [(0, 1)], 2, 1)
    assert torch.equal(found, find_flows(network, by_hand, [(0, 1)], 2, 1)[..., 3:132, 2:133])


def test_a_batch_gives_what_single_pairs_give(states):
    network = build_with(Variant.SMALL, states[Variant.SMALL], CPU)
    some, pairs = images(3, 128, 128), [(0, 1), (1, 0), (0, 2), (2, 1)]
    batched = find_flows(network, some, pairs, 2, 3)
    for number, (first, second) in enumerate(pairs):
        single = find_flows(network, some[[first, second]], [(0, 1)], 2, 1)[0]
        torch.testing.assert_close(batched[number], single, rtol=1e-3, atol=1e-3 * float(single.abs().max()))


def clip(seed=0, size=(128, 136)):
    rng = np.random.default_rng(seed)
    frames = [
        StereoFrame(*rng.integers(0, 256, (2, *size, 3), dtype=np.uint8), CALIBRATION, np.ones(size, bool), key)
        for key in ("a", "b")
    ]
    return StereoClip(*frames)


@pytest.fixture
def small(tmp_path, states):
    torch.save(states[Variant.SMALL], tmp_path / "small.pth")
    return RaftCorrespondence(tmp_path / "small.pth", updates=2)


def test_a_clip_has_six_fields_that_are_nan_where_unknown(small):
    assert isinstance(small, CorrespondenceProvider)
    found = small(clip())
    for field, valid in ((found.flow, found.flow_valid), (found.disparity, found.disparity_valid),
                         (found.disparity_next, found.disparity_next_valid)):  # fmt: skip
        assert np.isfinite(field[..., valid]).all()
        assert np.isnan(field[..., ~valid]).all()
    assert (found.disparity[found.disparity_valid] > 0).all()
    assert found.noise.shape == (3,)


def test_features_are_computed_once_an_image(small, monkeypatch):
    network = small._network()[0]
    seen = []
    network.feature_encoder.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    small(clip())
    assert seen == [4]


def test_the_weights_are_converted_once(small, monkeypatch):
    small.check()
    written = list(small.weights.parent.glob("*.safetensors"))
    assert len(written) == 1
    monkeypatch.setattr("cupola.correspondence.raft.weights.read_checkpoint", None)
    variant, again = read_raft(small.weights)
    assert variant is Variant.SMALL
    assert list(small.weights.parent.glob("*.safetensors")) == written
    direct, same = read_raft(written[0])
    assert direct is variant
    assert all(torch.equal(same[name], again[name]) for name in again)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"weight": torch.ones(2)}, "another architecture"),
        ([1, 2], "holds no weights of a network, but a list"),
        ({"epoch": 3}, "a dictionary of epoch"),
    ],
)
def test_a_file_of_something_else_is_one_sentence(tmp_path, content, sentence):
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=sentence):
        read_raft(tmp_path / "other.pt")


def test_wrong_shapes_and_missing_weights_are_named(tmp_path, states):
    state = dict(states[Variant.SMALL])
    name = "update_block.flow_head.conv2.weight"
    torch.save(state | {name: torch.ones(3, 128, 3, 3)}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=f"{name} has the shape"):
        read_raft(tmp_path / "a.pt")
    del state[name]
    torch.save(state, tmp_path / "b.pt")
    with pytest.raises(CheckpointError, match=f"lacks {name}"):
        read_raft(tmp_path / "b.pt")


def test_missing_weights_and_impossible_settings(tmp_path):
    with pytest.raises(CheckpointError, match="no file of RAFT weights"):
        RaftCorrespondence(tmp_path / "none.pt").check()
    with pytest.raises(ConfigError, match="0 \\(automatic\\) or more"):
        RaftCorrespondence(tmp_path / "none.pt", updates=-1)


def test_real_weights_find_a_known_shift(shared, tmp_path):
    """A textured plane moved by (6, -3) px: flow right to a fraction of a pixel, disparity 8 px."""
    import cv2

    rng = np.random.default_rng(0)
    noise = cv2.GaussianBlur(rng.normal(0, 1, (160, 200, 3)).astype(np.float32), None, 2.5)
    big = np.clip(128 + 300 * noise, 0, 255).astype(np.uint8)
    image = {shift: big[16 - shift[1] : 144 - shift[1], 16 - shift[0] : 168 - shift[0]] for shift in
             ((0, 0), (-8, 0), (6, -3), (-2, -3))}  # fmt: skip
    seen = np.ones((128, 152), bool)
    first = StereoFrame(image[0, 0], image[-8, 0], CALIBRATION, seen, "a")
    second = StereoFrame(image[6, -3], image[-2, -3], CALIBRATION, seen, "b")
    method = RaftCorrespondence(shared / "data" / "weights" / "raft-small.pth", cache=tmp_path)
    found = method(StereoClip(first, second))
    middle = np.s_[20:-20, 20:-20]
    assert found.flow_valid[middle].mean() > 0.95
    assert np.nanmedian(np.abs(found.flow[0][middle] - 6)) < 0.3
    assert np.nanmedian(np.abs(found.flow[1][middle] + 3)) < 0.3
    assert np.nanmedian(np.abs(found.disparity[middle] - 8)) < 0.3
