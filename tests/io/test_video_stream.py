"""Whole videos in and out; frame i shows i in binary, as the bars of `test_video`."""

import struct
from fractions import Fraction

import av
import numpy as np
import pytest

from cupola.errors import DiskError, ImageError
from cupola.io import video_stream
from cupola.io.video import VideoReader
from cupola.io.video_stream import VideoOutput, VideoStream

COUNT = 40


def bars(number):
    bits = np.array([number >> bit & 1 for bit in range(8)], np.uint8) * 255
    return np.ascontiguousarray(np.broadcast_to(np.repeat(bits, 8)[None, :, None], (48, 64, 3)))


def shown(image):
    return sum(int(image[20, 8 * bit + 4, 1] > 127) << bit for bit in range(8))


def write(path, times, rate=Fraction(10)):
    with VideoOutput(path, rate) as video:
        for number, time in enumerate(times):
            video.write(bars(number), time)


def read(path, every=1):
    with VideoStream(path) as stream:
        frames = list(stream.frames(every))
        return frames, stream


@pytest.mark.parametrize("codecs", [video_stream.CODECS, ("mpeg4",)])
@pytest.mark.parametrize("rate", [Fraction(10), Fraction(30_000, 1001), Fraction(24_000, 1001), Fraction(50)])
def test_frames_come_back_with_their_times_and_the_rate(tmp_path, monkeypatch, codecs, rate):
    monkeypatch.setattr(video_stream, "CODECS", codecs)
    write(tmp_path / "a.mp4", [n / rate for n in range(COUNT)], rate)
    frames, stream = read(tmp_path / "a.mp4")
    assert (stream.count(), stream.rate, stream.complaint) == (COUNT, rate, None)
    assert [frame.index for frame in frames] == [shown(frame.image) for frame in frames] == list(range(COUNT))
    assert [frame.time for frame in frames] == [n / rate for n in range(COUNT)]


def test_uneven_times_stay_uneven(tmp_path):
    times = [Fraction(n * n, 100) for n in range(20)]
    write(tmp_path / "a.mp4", times)
    assert [frame.time for frame in read(tmp_path / "a.mp4")[0]] == times


def test_every_third_frame_keeps_its_time(tmp_path):
    write(tmp_path / "a.mp4", [Fraction(n, 10) for n in range(COUNT)])
    frames, _ = read(tmp_path / "a.mp4", every=3)
    assert [frame.index for frame in frames] == [shown(f.image) for f in frames] == list(range(0, COUNT, 3))
    assert [frame.time for frame in frames] == [Fraction(n, 10) for n in range(0, COUNT, 3)]


def test_odd_sides_become_even_and_another_size_is_scaled(tmp_path):
    with VideoOutput(tmp_path / "a.mp4", Fraction(10)) as video:
        video.write(np.full((35, 51, 3), 200, np.uint8), Fraction(0))
        video.write(np.full((70, 99, 3), 100, np.uint8), Fraction(1, 10))
    (first, second), _ = read(tmp_path / "a.mp4")
    assert first.image.shape == second.image.shape == (36, 52, 3)
    assert abs(int(first.image[-1, -1, 0]) - 200) < 5
    assert abs(int(second.image[-1, -1, 0]) - 100) < 5


@pytest.mark.parametrize("size", [(1, 1), (2, 300)])
def test_tiny_frames(tmp_path, size):
    with VideoOutput(tmp_path / "b.mp4", Fraction(10)) as video:
        video.write(np.full((*size, 3), 200, np.uint8), Fraction(0))
    assert len(read(tmp_path / "b.mp4")[0]) == 1


def turned(content, matrix):
    """The MP4 with another display matrix: a, b, c, d of (x, y) -> (a x + c y, b x + d y)."""
    header = content.index(b"tkhd") + 4
    place = header + 4 + (20 if content[header] == 0 else 32) + 16
    a, b, c, d = (value << 16 for value in matrix)
    return content[:place] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + content[place + 36 :]


@pytest.mark.parametrize(
    ("matrix", "turns"), [((0, 1, -1, 0), -1), ((0, -1, 1, 0), 1), ((-1, 0, 0, -1), 2), ((1, 0, 0, 1), 0)]
)
def test_lying_frames_are_set_upright(tmp_path, matrix, turns):
    write(tmp_path / "a.mp4", [Fraction(n, 10) for n in range(3)])
    (tmp_path / "b.mp4").write_bytes(turned((tmp_path / "a.mp4").read_bytes(), matrix))
    plain, _ = read(tmp_path / "a.mp4")
    frames, _ = read(tmp_path / "b.mp4")
    for one, other in zip(plain, frames, strict=True):
        assert np.array_equal(np.rot90(one.image, turns), other.image)
    with VideoReader(tmp_path / "b.mp4") as reader:
        assert np.array_equal(reader.read(1), plain[1].image)
        assert np.array_equal(reader.read(1, upright=True), frames[1].image)


def test_a_video_that_breaks_off_gives_what_there_is(tmp_path):
    write(tmp_path / "a.mp4", [Fraction(n, 10) for n in range(COUNT)])  # the index is at the start
    content = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "a.mp4").write_bytes(content[: len(content) * 9 // 10])
    frames, stream = read(tmp_path / "a.mp4")
    assert 0 < len(frames) < COUNT
    assert [shown(frame.image) for frame in frames] == [frame.time * 10 for frame in frames]
    assert f"a.mp4 breaks off: {len(frames)} of {COUNT} frames could be read" in stream.complaint


def test_a_video_without_a_count_breaks_off_by_its_duration(tmp_path):
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(COUNT):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(bars(number), format="rgb24")))
        container.mux(stream.encode(None))
    assert read(tmp_path / "a.mkv")[1].complaint is None
    content = (tmp_path / "a.mkv").read_bytes()
    (tmp_path / "a.mkv").write_bytes(content[: len(content) // 2])
    frames, stream = read(tmp_path / "a.mkv")
    assert 0 < len(frames) < COUNT
    assert stream.count() == COUNT
    assert "a.mkv breaks off: it ends after" in stream.complaint


def test_a_damaged_frame_is_passed_over(tmp_path, monkeypatch):
    monkeypatch.setattr(video_stream, "CODECS", ("mpeg4",))
    write(tmp_path / "a.mp4", [Fraction(n, 10) for n in range(COUNT)])
    content = bytearray((tmp_path / "a.mp4").read_bytes())
    frame = content.rindex(b"\x00\x00\x01\xb6")  # the start of the last picture
    content[frame : frame + 8] = b"\xff" * 8
    (tmp_path / "a.mp4").write_bytes(content)
    frames, stream = read(tmp_path / "a.mp4")
    assert len(frames) == COUNT - 1
    assert "a.mp4 is damaged: 1 of its frames could not be decoded" in stream.complaint


def test_what_is_no_video_is_one_sentence(tmp_path):
    (tmp_path / "a.mp4").write_text("no video")
    with pytest.raises(ImageError, match=r"a\.mp4 is not a video"):
        VideoStream(tmp_path / "a.mp4")


def test_an_unfinished_video_leaves_the_old_one(tmp_path):
    write(tmp_path / "a.mp4", [Fraction(n, 10) for n in range(3)])
    before = (tmp_path / "a.mp4").read_bytes()
    video = VideoOutput(tmp_path / "a.mp4", Fraction(10))
    video.write(bars(1), Fraction(0))
    video.__exit__(RuntimeError, RuntimeError("stop"), None)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
    assert (tmp_path / "a.mp4").read_bytes() == before


def test_no_frame_makes_no_file(tmp_path):
    write(tmp_path / "a.mp4", [])
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_can_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DiskError, match="cannot write"):
        write(tmp_path / "file" / "a.mp4", [Fraction(0)])
