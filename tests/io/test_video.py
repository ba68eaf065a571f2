import pickle
import threading
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupola.errors import ImageError
from cupola.io.video import DECODE_AHEAD, VideoFrames, VideoReader

FRAMES = 100


def write_video(path: Path, frames: int, codec: str = "libx264", keys: int = 12, faststart: bool = False) -> None:
    """Frame i shows i in binary, as eight black or white bars."""
    options = {"movflags": "+faststart"} if faststart else {}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height = 64, 48
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.gop_size = keys
        if codec == "libx264":
            stream.options = {"bf": "2"}
        for i in range(frames):
            bits = np.array([i >> bit & 1 for bit in range(8)], np.uint8) * 255
            image = np.broadcast_to(np.repeat(bits, 8)[None, :, None], (48, 64, 3))
            for packet in stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def shown(image: np.ndarray) -> int:
    """The number of the frame, read off its bars."""
    return int(sum(int(image[20, 8 * bit + 4, 1] > 127) << bit for bit in range(8)))


@pytest.fixture(scope="module", params=[("libx264", ".mp4"), ("libx264", ".mkv"), ("mpeg4", ".avi"), ("mjpeg", ".mkv")])
def video(request, tmp_path_factory) -> Path:
    codec, suffix = request.param
    path = tmp_path_factory.mktemp("video") / f"clip{suffix}"
    write_video(path, FRAMES, codec)
    return path


def test_every_frame_in_order(video):
    with VideoReader(video) as reader:
        assert reader.count() == FRAMES
        assert reader.size == (48, 64)
        assert reader.rate == pytest.approx(10)
        assert [shown(reader.read(i)) for i in range(FRAMES)] == list(range(FRAMES))


@settings(max_examples=15, deadline=None)
@given(order=st.lists(st.integers(0, FRAMES - 1), min_size=1, max_size=12))
def test_any_order_gives_the_same_frames(video, order):
    with VideoReader(video) as reader:
        assert [shown(reader.read(i)) for i in order] == order


def test_a_far_frame_is_reached_without_decoding_all_before_it(tmp_path):
    write_video(tmp_path / "a.mp4", FRAMES)
    with VideoReader(tmp_path / "a.mp4") as reader:
        reader.read(0)
        decoded = []
        decode_next = reader._decode_next
        reader._decode_next = lambda wanted: decoded.append(wanted) or decode_next(wanted)
        assert shown(reader.read(3 * DECODE_AHEAD)) == 3 * DECODE_AHEAD
        assert len(decoded) <= 24


def test_a_frame_may_be_changed_by_its_user(tmp_path):
    write_video(tmp_path / "a.mp4", 3)
    with VideoReader(tmp_path / "a.mp4") as reader:
        reader.read(1)[:] = 0
        assert shown(reader.read(1)) == 1


def test_past_the_end_says_how_many_frames_there_are(video):
    with VideoReader(video) as reader, pytest.raises(ImageError, match=rf"clip\.\w+ breaks off: {FRAMES} frames could"):
        reader.read(FRAMES + 3)


def test_a_broken_off_video_says_how_many_frames_could_be_read(tmp_path):
    path = tmp_path / "cut.mp4"
    write_video(path, FRAMES, faststart=True)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with VideoReader(path) as reader:
        assert reader.count() == FRAMES  # so its header says
        readable = 0
        with pytest.raises(ImageError) as caught:  # noqa: PT012
            for readable in range(FRAMES):
                reader.read(readable)
        assert 0 < readable < FRAMES
        assert f"cut.mp4 breaks off: {readable} frames could be read, so frame {readable} is not" in str(caught.value)


def test_a_video_without_its_end_is_no_video(tmp_path):
    path = tmp_path / "cut.mp4"
    write_video(path, FRAMES)  # the index is at the end
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ImageError, match=r"cut\.mp4 is not a video that can be read, or its end is missing"):
        VideoReader(path)


def test_missing_and_no_video(tmp_path):
    with pytest.raises(ImageError, match=r"none\.mp4 does not exist"):
        VideoReader(tmp_path / "none.mp4")
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(ImageError, match=r"text\.mp4 is not a video"):
        VideoReader(tmp_path / "text.mp4")


def test_negative_index(tmp_path):
    write_video(tmp_path / "a.mp4", 3)
    with VideoReader(tmp_path / "a.mp4") as reader, pytest.raises(ValueError, match="must not be negative"):
        reader.read(-1)


def test_readers_are_kept_by_thread_and_not_pickled(tmp_path):
    write_video(tmp_path / "a.mp4", 20)
    videos = VideoFrames()
    mine = videos.reader(tmp_path / "a.mp4")
    assert videos.reader(tmp_path / "a.mp4") is mine
    others: list[VideoReader] = []
    thread = threading.Thread(target=lambda: others.append(videos.reader(tmp_path / "a.mp4")))
    thread.start()
    thread.join()
    assert others[0] is not mine
    copy = pickle.loads(pickle.dumps(videos))
    assert shown(copy.reader(tmp_path / "a.mp4").read(7)) == 7
