"""`cupola inspect`: what is counted, and that each fault of a rig is named by its own verdict."""

import cv2
import numpy as np
import pytest

from cupola.cli import main
from cupola.errors import ConfigError, DataError
from cupola.inspection import Inspection, inspect, match_stereo, without_outliers
from cupola.io import write_rgb

HEIGHT, WIDTH = 128, 320
FX, BASELINE, DISPARITY, STEP = 300.0, 0.5, 12, 3
CALIBRATION = f"fx: {FX}\nfy: {FX}\ncx: 159.5\ncy: 63.5\nbaseline: {BASELINE}\n"
MARGIN = 40


def wall(seed: int = 0) -> np.ndarray:
    """Blobs of several sizes, larger than an image by `MARGIN` on every side."""
    rng = np.random.default_rng(seed)
    shape = (HEIGHT + 2 * MARGIN, WIDTH + 2 * MARGIN)
    layers = [cv2.GaussianBlur(rng.normal(size=(*shape, 3)), (0, 0), sigma) * sigma for sigma in (1.0, 2.0, 5.0)]
    texture = sum(layers)
    return np.clip(128 + 45 * texture / texture.std(), 0, 255).astype(np.uint8)


def view(texture: np.ndarray, x: float, y: float = 0.0) -> np.ndarray:
    """The wall as it looks when everything has moved by (x, y) [px]."""
    moved = cv2.warpAffine(texture, np.float64([[1, 0, x], [0, 1, y]]), texture.shape[1::-1], flags=cv2.INTER_CUBIC)
    return moved[MARGIN:-MARGIN, MARGIN:-MARGIN]


def rig(root, *, numbers=(0, 1, 2), disparity=DISPARITY, step=STEP, vertical=0.0, calibration=CALIBRATION):
    """A wall in front of cameras that drive along it."""
    texture = wall()
    for i, number in enumerate(numbers):
        write_rgb(root / "left" / f"{number:06d}.png", view(texture, step * i))
        write_rgb(root / "right" / f"{number:06d}.png", view(texture, step * i - disparity, vertical))
    (root / "calibration.yaml").write_text(calibration)
    return root


def finding(result: Inspection, subject: str):
    return next(finding for finding in result.findings if finding.subject == subject)


def test_a_good_rig(tmp_path):
    result = inspect(rig(tmp_path), frames=2)
    assert (result.layout, result.frames, result.pairs) == ("folder", 3, 2)
    (sequence,) = result.sequences
    assert (sequence.frames, sequence.pairs, sequence.gaps, sequence.size) == (3, 2, (), (HEIGHT, WIDTH))
    assert sequence.calibration_source.endswith("calibration.yaml")
    assert result.measured == ("000000", "000001")
    assert result.healthy, [finding for finding in result.findings if finding.good is False]
    assert finding(result, "rectification").verdict == "good"
    assert finding(result, "depth").value == f"{FX * BASELINE / DISPARITY:.3g} m median"
    assert finding(result, "motion").value == f"{STEP:.1f} px median"


def test_the_same_twice(tmp_path):
    rig(tmp_path)
    assert inspect(tmp_path, frames=1) == inspect(tmp_path, frames=1)


@pytest.mark.parametrize("vertical", [1.5, -3.0])
def test_rows_of_different_height(tmp_path, vertical):
    found = finding(inspect(rig(tmp_path, vertical=vertical), frames=1), "rectification")
    assert found.good is False
    direction = "lower" if vertical > 0 else "higher"
    assert found.verdict == (
        f"rectification is off by {abs(vertical):.1f} px: rectify again; the right images sit {abs(vertical):.1f} px "
        f"{direction}"
    )


def test_cameras_out_of_step(tmp_path):
    found = finding(inspect(rig(tmp_path, vertical=8.0), frames=1), "rectification")
    assert "or the cameras don't expose at one moment" in found.verdict


def test_slightly_off(tmp_path):
    found = finding(inspect(rig(tmp_path, vertical=0.75), frames=1), "rectification")
    assert found.good is True
    assert found.verdict.startswith("usable, but off by 0.")


def test_exchanged_cameras(tmp_path):
    found = finding(inspect(rig(tmp_path, disparity=-DISPARITY), frames=1), "rectification")
    assert found.good is False
    assert "exchange left and right" in found.verdict


def test_baseline_in_millimetres(tmp_path):
    found = finding(inspect(rig(tmp_path, calibration=CALIBRATION.replace("0.5", "500")), frames=1), "depth")
    assert found.good is False
    assert "is the baseline in metres" in found.verdict


def test_calibration_of_another_size(tmp_path):
    calibration = CALIBRATION.replace("159.5", "319.5").replace("63.5", "127.5")
    found = finding(inspect(rig(tmp_path, calibration=calibration), frames=0), "calibration")
    assert found.good is False
    assert "is the calibration for this image size" in found.verdict


def test_gaps(tmp_path):
    result = inspect(rig(tmp_path, numbers=(0, 1, 5, 6)), frames=0)
    assert (result.frames, result.pairs) == (4, 2)
    assert result.sequences[0].gaps == (("000001", "000005"),)
    found = finding(result, "pairs")
    assert found.value == "2 from 4 frames, 1 gap"
    assert "the first is 000001 to 000005" in found.verdict


def test_no_pair_still_measures_the_stereo(tmp_path):
    result = inspect(rig(tmp_path, numbers=(0, 2)), frames=1)
    assert finding(result, "pairs").good is False
    assert finding(result, "disparity").good is True
    assert {finding.subject for finding in result.findings}.isdisjoint({"motion", "consistent flow"})
    assert not result.healthy


def test_standing_camera(tmp_path):
    found = finding(inspect(rig(tmp_path, step=0), frames=1), "motion")
    assert "the camera stands" in found.verdict


def test_fast_motion(tmp_path):
    found = finding(inspect(rig(tmp_path, step=18), frames=1), "motion")
    assert found.good is False
    assert "a higher frame rate" in found.verdict


def test_unrelated_images(tmp_path):
    rig(tmp_path, numbers=(0,))
    write_rgb(tmp_path / "right/000000.png", view(wall(seed=1), 0))
    found = finding(inspect(tmp_path, frames=1), "rectification")
    assert found.good is False
    assert "are these not left and right" in found.verdict


def test_black_images(tmp_path):
    for side in ("left", "right"):
        write_rgb(tmp_path / side / "0.png", np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    (tmp_path / "calibration.yaml").write_text(CALIBRATION)
    result = inspect(tmp_path, frames=1)
    assert finding(result, "rectification").value == "0 points match"
    assert finding(result, "disparity").good is False


def test_scale(tmp_path):
    result = inspect(rig(tmp_path), scale=0.5, frames=1)
    assert result.sequences[0].size == (HEIGHT, WIDTH)  # on disk
    assert finding(result, "depth").good is True


def test_wrong_settings(tmp_path):
    with pytest.raises(ConfigError, match="--frames must be 0 or more"):
        inspect(rig(tmp_path), frames=-1)
    with pytest.raises(DataError, match="does not exist"):
        inspect(tmp_path / "none")


def test_matches_are_where_the_points_are():
    texture = wall()
    left, right = match_stereo(view(texture, 0), view(texture, -DISPARITY, 2.0))
    assert len(left) > 100
    distance = np.median(right - left, axis=0)
    assert distance == pytest.approx([-DISPARITY, 2.0], abs=0.1)


def test_matching_images_without_features():
    plain = np.zeros((32, 32, 3), np.uint8)
    left, right = match_stereo(plain, plain)
    assert left.shape == right.shape == (0, 2)


def test_outliers():
    vertical = np.concatenate([np.linspace(-1, 1, 50), [40.0, -90.0]])
    assert np.array_equal(without_outliers(vertical), vertical[:50])
    assert without_outliers(np.zeros(0)).shape == (0,)


def test_command(tmp_path, capsys):
    assert main(["inspect", str(rig(tmp_path)), "--frames", "1"]) == 0
    out = capsys.readouterr().out
    assert "layout folder, 3 frames, 2 pairs" in out
    assert "320 x 128" in out
    assert "calibration.yaml" in out
    assert "cupola pseudo-label" in out


def test_command_says_what_is_wrong(tmp_path, capsys):
    rig(tmp_path)
    (tmp_path / "right/000001.png").unlink()
    assert main(["inspect", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert "right/000001.png is missing" in captured.err
    assert "Traceback" not in captured.err
    assert captured.err.count("\n") == 1


def test_command_cuts_long_lists(tmp_path, capsys):
    for i in range(30):
        for side in ("left", "right"):
            write_rgb(tmp_path / f"{i:03d}" / side / "0.png", np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "calibration.yaml").write_text(CALIBRATION.replace("159.5", "3.5").replace("63.5", "3.5"))
    assert main(["inspect", str(tmp_path), "--frames", "0"]) == 0
    out = capsys.readouterr().out
    assert "... and 10 more sequences" in out
    assert "Look at what is marked !! first." in out
