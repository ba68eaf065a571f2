"""Stage 1 as a command, when things go wrong: kills, full disks, damaged and missing images, other settings.

The end state is always the same: exit code 2 (or the signal's), one sentence, and a store that the same
command finishes.
"""

import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

CUPOLA = (sys.executable, "-m", "cupola.cli")
COMMAND = (*CUPOLA, "pseudo-label")
SEQUENCES, FRAMES = 2, 14  # long enough that a signal after two frames comes before the end
PAIRS = SEQUENCES * (FRAMES - 1)
SLACK = 1500
"""Room for two or three more lines of frames.jsonl [bytes]."""


@pytest.fixture(scope="module")
def street(tmp_path_factory):
    out = tmp_path_factory.mktemp("street") / "video"
    size = ("--sequences", str(SEQUENCES), "--frames", str(FRAMES), "--height", "96", "--width", "192")
    subprocess.run([*CUPOLA, "render", out, *size], check=True, capture_output=True)
    return out


@pytest.fixture(scope="module")
def unbroken(street, tmp_path_factory):
    out = tmp_path_factory.mktemp("unbroken") / "labels"
    result = stage1(street, out, workers=1)
    assert result.returncode == 0, result.stderr
    return contents(out)


def stage1(data, out, *options, file_size=None, workers=2):
    """Runs the command; file_size: no file may grow beyond this [bytes], as on a full disk."""

    def limit():
        if file_size is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))

    return subprocess.run(
        [*COMMAND, data, "--out", out, "--workers", str(workers), *options],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=limit,
    )


def contents(out):
    """Files that depend on the input alone."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(Path(out).rglob("*"))
        if path.is_file() and path.name not in (".lock", "timings.jsonl", "config.yaml", "manifest.json")
    }


def lines(out):
    path = Path(out) / "frames.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def interrupted(street, out, sign):
    """Starts the command and sends the signal when two frames are done."""
    process = subprocess.Popen(
        [*COMMAND, street, "--out", out, "--workers", "2"],
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job, as CI may be, ignores SIGINT and hands that down; a person's terminal does not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while lines(out) < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(sign)
    _, error = process.communicate()
    return process.returncode, error


def one_sentence(result):
    """The error of a failed run, which is the last line; no traceback."""
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    return result.stderr.strip().splitlines()[-1]


def test_a_killed_run_goes_on_and_ends_with_the_same_files(street, unbroken, tmp_path):
    out = tmp_path / "labels"
    code, _ = interrupted(street, out, signal.SIGKILL)
    assert code == -signal.SIGKILL
    done = lines(out)
    assert 2 <= done < PAIRS
    before = {path.name: path.stat().st_mtime_ns for path in (out / "instances").glob("[!.]*.png")}
    result = stage1(street, out)
    assert result.returncode == 0, result.stderr
    assert contents(out) == unbroken
    kept = [name for name, time in before.items() if (out / "instances" / name).stat().st_mtime_ns == time]
    assert len(kept) >= done, "finished frames were computed again"


def test_a_full_disk_and_control_c_lose_nothing(street, unbroken, tmp_path):
    out = tmp_path / "labels"
    result = stage1(street, out, file_size=8000)
    assert "semantics_model.npz" in one_sentence(result)
    assert "free some space" in one_sentence(result)

    code, error = interrupted(street, out, signal.SIGINT)
    assert code == 130
    assert "stopped; run the same command again to go on" in error
    assert "Traceback" not in error

    done = lines(out)
    assert 2 <= done < PAIRS
    result = stage1(street, out, file_size=(out / "frames.jsonl").stat().st_size + SLACK)
    assert "frames.jsonl" in one_sentence(result)
    assert "free some space" in one_sentence(result)
    assert lines(out) >= done
    assert stage1(street, out).returncode == 0
    assert contents(out) == unbroken


def test_damaged_image(street, tmp_path):
    data = Path(shutil.copytree(street, tmp_path / "video"))
    image = sorted(data.glob("*/left/*.png"))[3]
    image.write_bytes(image.read_bytes()[:400])
    result = stage1(data, tmp_path / "labels", workers=1)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert f"{PAIRS - 2} frames labelled" in result.stdout
    assert "2 frames could not be labelled" in result.stderr
    assert image.name in result.stderr


def test_missing_right_image(street, tmp_path):
    data = Path(shutil.copytree(street, tmp_path / "video"))
    image = sorted(data.glob("*/right/*.png"))[3]
    image.unlink()
    sentence = one_sentence(stage1(data, tmp_path / "labels"))
    assert image.name in sentence or image.stem in sentence


def test_other_settings_in_the_same_directory(street, tmp_path):
    out = tmp_path / "labels"
    assert stage1(street, out, "--limit", "2", workers=1).returncode == 0
    before = contents(out)
    sentence = one_sentence(stage1(street, out, "--limit", "2", "--semantics.classes", "12"))
    assert "was made with parts.semantics.classes = 27, not 12" in sentence
    assert contents(out) == before
    refused = one_sentence(stage1(street, out, "--limit", "2", "--fusion.threshold", "2"))
    assert "threshold must be at least 0 and below 1" in refused
    assert stage1(street, out, "--limit", "2", "--fusion.threshold", "0.1").returncode == 0
    raw = ("instances", "semantics", "frames.jsonl")
    after = contents(out)
    assert all(after[name] == content for name, content in before.items() if name.startswith(raw))


def test_no_data(tmp_path):
    assert "does not exist" in one_sentence(stage1(tmp_path / "nowhere", tmp_path / "labels"))
    assert not (tmp_path / "labels").exists()


def test_a_directory_that_cannot_be_made(street, tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert "cannot write in" in one_sentence(stage1(street, tmp_path / "file/labels"))
