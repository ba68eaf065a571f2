"""Single frames of video files, through PyAV."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from jaxtyping import UInt8

from cupola.errors import ImageError

VIDEO_SUFFIXES = (".mp4", ".mkv", ".avi", ".mov", ".webm", ".m4v")


class VideoReader:
    """Frames of one video by index, cheap when asked for in rising order: it decodes forward, and starts over for an
    earlier frame. A context manager; not for several threads at once.

    Raises `ImageError` where the file is missing, is no video, or breaks off before a frame that was asked for.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open()

    def _open(self) -> None:
        if not self.path.is_file():
            raise ImageError(f"{self.path} does not exist")
        try:
            self._container = av.open(str(self.path))
        except (av.error.FFmpegError, OSError) as error:
            raise ImageError(
                f"{self.path} is not a video that can be read, or its end is missing; record or copy it again"
            ) from error
        if not self._container.streams.video:
            self._container.close()
            raise ImageError(f"{self.path} holds no video stream")
        self._stream = self._container.streams.video[0]
        self._decoded: Iterator[av.VideoFrame] = self._container.decode(self._stream)
        self._next = 0
        self._last: tuple[int, UInt8[np.ndarray, "h w 3"]] | None = None

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._container.close()

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) [px]."""
        return self._stream.height, self._stream.width

    @property
    def rate(self) -> float | None:
        """Frames a second, if the file says."""
        return float(self._stream.average_rate) if self._stream.average_rate else None

    def read(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """Frame `index` (from 0) as RGB. Raises `ImageError` where the video ends or breaks off before it."""
        if self._last is not None and self._last[0] == index:
            return self._last[1]
        if index < self._next:
            self.close()
            self._open()
        while True:
            frame = self._decode_next(index)
            if self._next > index:
                break
        image = frame.to_ndarray(format="rgb24")
        self._last = index, image
        return image

    def _decode_next(self, wanted: int) -> av.VideoFrame:
        try:
            frame = next(self._decoded)
        except (StopIteration, av.error.FFmpegError) as error:
            raise ImageError(
                f"{self.path} breaks off: {self._next} frames could be read, so frame {wanted} is not there; "
                "copy the file again or cut both videos to the readable part"
            ) from error
        self._next += 1
        return frame


def count_frames(path: Path) -> int:
    """Number of frames of a video: as its header says, else by walking over the packets without decoding them.

    Raises `ImageError` where it cannot be opened. A file that breaks off may hold fewer than its header says; reading
    past its end says so.
    """
    with VideoReader(path) as reader:
        if reader._stream.frames:
            return int(reader._stream.frames)
        try:
            return sum(packet.size > 0 for packet in reader._container.demux(reader._stream))
        except av.error.FFmpegError as error:
            raise ImageError(f"{path} is damaged; record or copy it again") from error


class VideoFrames:
    """Frames of any number of videos; keeps one open `VideoReader` a video and thread. Pickles as an empty one, so
    that each worker process opens its own."""

    def __init__(self) -> None:
        self._local = threading.local()

    def __reduce__(self) -> tuple[type[VideoFrames], tuple[()]]:
        return VideoFrames, ()

    def read(self, path: Path, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """Frame `index` of the video at `path` as RGB. Raises `ImageError`."""
        return self._reader(path).read(index)

    def size(self, path: Path) -> tuple[int, int]:
        """(height, width) [px] of the video at `path`. Raises `ImageError`."""
        return self._reader(path).size

    def _reader(self, path: Path) -> VideoReader:
        if not hasattr(self._local, "readers"):
            self._local.readers = {}
        readers: dict[Path, VideoReader] = self._local.readers
        if path not in readers:
            readers[path] = VideoReader(path)
        return readers[path]
