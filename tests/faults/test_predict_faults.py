"""`cupola predict` when things go wrong: kills, full disks. The same command then finishes, with the same files."""

import resource
import signal
import subprocess
import sys
import time
from fractions import Fraction

import numpy as np
import pytest
import torch

from cupola.io import write_rgb
from cupola.io.video_stream import VideoOutput
from cupola.models import PanopticNetwork, save_network, tiny

COMMAND = (sys.executable, "-m", "cupola.cli", "predict")
IMAGES, FRAMES = 12, 40


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a network, photos and a video, long enough that a signal comes before the end."""
    folder = tmp_path_factory.mktemp("place")
    torch.manual_seed(0)
    save_network(folder / "net", PanopticNetwork(tiny(), 2, 3), {"things": [5, 2], "stuff": [0, 3, 4]})
    image = np.random.default_rng(0).integers(0, 255, (96, 160, 3)).astype(np.uint8)
    for number in range(IMAGES):
        write_rgb(folder / "in" / f"{number:02d}.png", np.roll(image, number, 1))
    with VideoOutput(folder / "in" / "zoo.mp4", Fraction(10)) as video:
        for number in range(FRAMES):
            video.write(np.roll(image, number, 1), Fraction(number, 10))
    return folder


def arguments(place, out, *options):
    network = ("--model", place / "net", "--out", out, "--threshold", "0.01", "--batch", "2", "--device", "cpu")
    return [*COMMAND, place / "in", *network, *options]


def predict(place, out, file_size=None):
    """Runs the command; file_size: no file may grow beyond this [bytes], as on a full disk."""

    def limit():
        if file_size is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))

    return subprocess.run(arguments(place, out), capture_output=True, text=True, check=False, preexec_fn=limit)


def contents(out):
    """Files that depend on the input alone. Of videos the name counts: equal frames may give other bytes of H.264."""
    return {
        str(path.relative_to(out)): b"" if path.suffix == ".mp4" else path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name not in ("config.yaml", "frames.jsonl", "report.html")
    }


def lines(out):
    path = out / "frames.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def interrupted(place, out, sign, after):
    """Starts the command and sends the signal when so many lines are noted."""
    process = subprocess.Popen(
        arguments(place, out),
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job, as CI may be, ignores SIGINT and hands that down; a person's terminal does not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 240
    while lines(out) < after and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(sign)
    _, error = process.communicate()
    return process.returncode, error


@pytest.fixture(scope="module")
def whole(place, tmp_path_factory):
    out = tmp_path_factory.mktemp("unbroken") / "out"
    result = predict(place, out)
    assert result.returncode == 0, result.stderr
    return out


@pytest.fixture(scope="module")
def unbroken(whole):
    return contents(whole)


@pytest.fixture(scope="module")
def video_size(whole):
    return (whole / "overlays" / "zoo.mp4").stat().st_size


def test_a_run_that_was_killed_and_stopped_ends_with_the_same_files(place, unbroken, tmp_path):
    out = tmp_path / "out"
    code, _ = interrupted(place, out, signal.SIGKILL, 3)  # among the images
    assert code == -signal.SIGKILL
    assert 3 <= lines(out) <= IMAGES
    code, error = interrupted(place, out, signal.SIGINT, IMAGES + 5)  # in the video
    assert code == 130, error
    assert "stopped; run the same command again to go on" in error
    assert "Traceback" not in error
    done = lines(out)
    assert IMAGES < done < IMAGES + FRAMES
    before = {path: path.stat().st_mtime_ns for path in (out / "panoptic").rglob("[!.]*.png")}
    result = predict(place, out)
    assert result.returncode == 0, result.stderr
    for path in out.rglob(".*"):  # what a kill leaves behind is no result
        path.unlink()
    assert contents(out) == unbroken
    kept = [path for path, written in before.items() if path.stat().st_mtime_ns == written]
    assert len(kept) >= done - 1, "finished images were predicted again"


def test_a_full_disk_is_one_sentence_and_loses_nothing(place, unbroken, video_size, tmp_path):
    out = tmp_path / "out"
    result = predict(place, out, file_size=20_000)  # no overlay fits
    one_sentence(result, "cannot write", ".png")
    overlays = [
        len(content) for name, content in unbroken.items() if name.startswith("overlays") and ".mp4" not in name
    ]
    assert max(overlays) < video_size, "the test needs a video that is larger than a picture"
    result = predict(place, out, file_size=(max(overlays) + video_size) // 2)
    one_sentence(result, "cannot write", "zoo.mp4")
    assert lines(out) > IMAGES
    assert not list((out / "overlays").glob("*.mp4"))
    assert predict(place, out).returncode == 0
    assert contents(out) == unbroken


def one_sentence(result, *words):
    """The error of a failed run, which is the last line; no traceback."""
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    last = result.stderr.strip().splitlines()[-1]
    assert all(word in last for word in (*words, "free some space")), last
