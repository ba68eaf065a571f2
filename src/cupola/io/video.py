"""Single frames of video files, through PyAV."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Iterator
from functools import cached_property
from itertools import chain
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from jaxtyping import UInt8

from cupola.errors import ImageError

VIDEO_SUFFIXES = (".mp4", ".mkv", ".avi", ".mov", ".webm", ".m4v")

DECODE_AHEAD = 30
"""A frame this far ahead or less is reached by decoding on, a farther one by looking for its key frame [frames]; about
a second of video, the usual distance of key frames."""


def open_video(path: Path) -> av.container.InputContainer:
    """An open file with a stream of video. Raises `ImageError` where it is missing or no video."""
    if not path.is_file():
        raise ImageError(f"{path} does not exist")
    try:
        container = av.open(str(path))
    except (av.error.FFmpegError, OSError) as error:
        raise ImageError(
            f"{path} is not a video that can be read, or its end is missing; record or copy it again"
        ) from error
    if not container.streams.video:
        container.close()
        raise ImageError(f"{path} holds no video stream that can be read; record or copy it again")
    return container


def rgb_of_frame(frame: av.VideoFrame, *, upright: bool) -> UInt8[np.ndarray, "h w 3"]:
    """A frame as RGB, as it is stored or `upright`, as a player shows it: phones record lying frames and say so."""
    image: UInt8[np.ndarray, "h w 3"] = frame.to_ndarray(format="rgb24")
    return np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90))) if upright and frame.rotation else image


class VideoReader:
    """Frames of one video by index from 0, in order of presentation: cheap in rising order, where it decodes on; else
    it goes to the key frame before. A context manager; not for several threads at once.

    Raises `ImageError` where the file is missing, is no video, or breaks off before a frame that was asked for.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._last: tuple[int, av.VideoFrame] | None = None
        self._start()

    def _start(self) -> None:
        self._container = open_video(self.path)
        self._stream = self._container.streams.video[0]
        self._decoded: Iterator[av.VideoFrame] = self._container.decode(self._stream)
        self._next = 0

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

    def count(self) -> int:
        """Number of frames: as the header says, else by walking over the packets without decoding them. A file that
        breaks off may hold fewer than its header says; reading past its end says so. Raises `ImageError`."""
        return int(self._stream.frames) or len(self._packets)

    def read(self, index: int, *, upright: bool = False) -> UInt8[np.ndarray, "h w 3"]:
        """Frame `index` as RGB, as it is stored or `upright`, as a player shows it. Raises `ImageError` where the video
        ends or breaks off before it."""
        if index < 0:
            raise ValueError(f"a frame's index must not be negative, but is {index}")
        if self._last is None or self._last[0] != index:
            if not self._next <= index <= self._next + DECODE_AHEAD:
                self._seek(index)
            while self._next <= index:
                frame = self._decode_next(index)
            self._last = index, frame
        return rgb_of_frame(self._last[1], upright=upright)

    def _decode_next(self, wanted: int) -> av.VideoFrame:
        try:
            frame = next(self._decoded)
        except (StopIteration, av.error.FFmpegError) as error:
            raise ImageError(
                f"{self.path} breaks off: {self._next} frames could be read, so frame {wanted} is not there; "
                "copy the file again, or cut both videos to the part that can be read"
            ) from error
        self._next += 1
        return frame

    @cached_property
    def _packets(self) -> list[tuple[int | None, bool]]:
        """(time of presentation, is a key frame) of every packet, in order of presentation where times are known."""
        found = []
        with open_video(self.path) as container:
            try:
                for packet in container.demux(container.streams.video[0]):
                    if packet.size and not packet.is_discard:
                        found.append((packet.pts, packet.is_keyframe))
            except av.error.FFmpegError:
                pass  # the file breaks off here; what came before it counts
        if all(time is not None for time, _ in found):
            found.sort()
        return found

    def _seek(self, index: int) -> None:
        """Moves to a frame at or before `index` from which decoding may go on."""
        times = [time for time, _ in self._packets if time is not None]
        keys = [i for i, (_, is_key) in enumerate(self._packets) if is_key]
        before = bisect_right(keys, index)
        key = keys[before - 1] if before else 0
        if key <= self._next <= index:
            return
        if len(times) == len(self._packets) == len(set(times)) and key > 0:
            try:
                self._container.seek(times[key], stream=self._stream)
                self._decoded = self._container.decode(self._stream)
                frame = next(self._decoded)
            except (StopIteration, av.error.FFmpegError):
                frame = None
            if frame is not None and frame.pts in times and times.index(frame.pts) <= index:
                self._decoded = chain([frame], self._decoded)
                self._next = times.index(frame.pts)
                return
        self.close()
        self._start()


class VideoFrames:
    """Frames of any number of videos; keeps one open `VideoReader` a video and thread. Pickles as an empty one, so
    that each worker process opens its own."""

    def __init__(self) -> None:
        self._local = threading.local()

    def __reduce__(self) -> tuple[type[VideoFrames], tuple[()]]:
        return VideoFrames, ()

    def reader(self, path: Path) -> VideoReader:
        """This thread's open reader of the video at `path`. Raises `ImageError`."""
        if not hasattr(self._local, "readers"):
            self._local.readers = {}
        readers: dict[Path, VideoReader] = self._local.readers
        if path not in readers:
            readers[path] = VideoReader(path)
        return readers[path]
