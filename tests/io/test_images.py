import cv2
import numpy as np
import pytest

from cupola.errors import ImageError
from cupola.io import image_size, read_ids, read_rgb, write_ids, write_rgb


def test_rgb_round_trip(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (7, 11, 3)).astype(np.uint8)
    write_rgb(tmp_path / "a.png", image)
    assert np.array_equal(read_rgb(tmp_path / "a.png"), image)
    assert image_size(tmp_path / "a.png") == (7, 11)


@pytest.mark.parametrize("bits", [8, 16])
def test_ids_round_trip(tmp_path, bits):
    ids = np.random.default_rng(0).integers(0, 1 << bits, (5, 9)).astype(np.int32)
    write_ids(tmp_path / "a.png", ids, bits)
    assert np.array_equal(read_ids(tmp_path / "a.png"), ids)


def test_ids_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(ValueError, match="do not fit 8 bits"):
        write_ids(tmp_path / "a.png", np.full((2, 2), 256), 8)
    assert not (tmp_path / "a.png").exists()


def test_damaged_image_names_the_file(tmp_path):
    path = tmp_path / "broken.png"
    write_rgb(path, np.zeros((64, 64, 3), np.uint8))
    path.write_bytes(b"no image at all")
    with pytest.raises(ImageError, match=r"broken\.png"):
        read_rgb(path)


def test_size_is_checked_before_decoding(tmp_path):
    path = tmp_path / "bomb.png"
    write_rgb(path, np.zeros((8, 8, 3), np.uint8))
    content = bytearray(path.read_bytes())
    content[16:24] = (100_000).to_bytes(4, "big") * 2
    path.write_bytes(content)
    with pytest.raises(ImageError, match="100000 x 100000"):
        read_rgb(path)


def test_missing_and_empty(tmp_path):
    with pytest.raises(ImageError, match="does not exist"):
        read_rgb(tmp_path / "none.png")
    (tmp_path / "empty.png").touch()
    with pytest.raises(ImageError, match="is empty"):
        read_rgb(tmp_path / "empty.png")


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_cut_off_image_is_not_taken_for_whole(tmp_path, suffix):
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    whole = cv2.imencode(suffix, image)[1].tobytes()
    path = tmp_path / f"a{suffix}"
    path.write_bytes(whole + b"\0" * 100)
    assert read_rgb(path).shape == image.shape
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError, match="is cut off"):
        read_rgb(path)
