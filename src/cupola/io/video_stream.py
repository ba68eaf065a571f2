"""Whole videos, frame after frame: in without holding more than one frame, out with the times of the frames kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import cv2
import numpy as np
from jaxtyping import UInt8

from cupola.errors import DiskError
from cupola.io.files import atomic_path
from cupola.io.video import open_video, rgb_of_frame

CODECS = ("libx264", "libopenh264", "mpeg4")
"""Video codecs by preference: H.264 plays everywhere; MPEG-4 is in every build of PyAV."""

TICKS = 60_000
"""Units of time in a second of the videos that we write, about; MPEG-4 knows none finer than 1/65535 s."""

USUAL_RATE = Fraction(25)
"""Taken where neither frames nor file tell a time [frames/s]."""

QUALITY = {"crf": "20", "preset": "veryfast"}
"""Of H.264: outlines stay sharp, and a network on a GPU need not wait for it."""

BITS_PER_PIXEL = 0.25
"""Of codecs without a constant quality."""

SHORT_BY = 1.0
"""A video without a number of frames breaks off if it ends so much before its own duration [s]."""


@dataclass(frozen=True)
class StreamedFrame:
    """A frame upright, as a player shows it. index: number from 0; time: since the first frame [s]."""

    index: int
    time: Fraction
    image: UInt8[np.ndarray, "h w 3"]


class VideoStream:
    """The frames of a video in order. A context manager; raises `ImageError` where the file is no video.

    rate: frames a second, as far as the file says. A video that breaks off ends there, and frames that cannot be
    decoded are passed over; `complaint` then says so.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._container = open_video(path)
        self._stream = self._container.streams.video[0]
        self.rate = Fraction(self._stream.average_rate or USUAL_RATE)
        self._promised = int(self._stream.frames)
        self._duration = (self._container.duration or 0) / av.time_base
        self._packets = self._damaged = self._decoded = 0
        self._end = 0.0

    def __enter__(self) -> VideoStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._container.close()

    def count(self) -> int:
        """Number of frames, as the file says; an estimate where it only tells its duration, 0 where it does not."""
        return self._promised or round(self._duration * float(self.rate))

    def frames(self, every: int = 1) -> Iterator[StreamedFrame]:
        """Every `every`-th frame, from the first."""
        first: Fraction | None = None
        for frame in self._decode():
            time = Fraction(self._decoded) / self.rate
            if frame.pts is not None and frame.time_base:
                absolute = frame.pts * frame.time_base
                first = absolute if first is None else first
                time = absolute - first
            self._end = float(time + 1 / self.rate)
            if self._decoded % every == 0:
                yield StreamedFrame(self._decoded, time, rgb_of_frame(frame, upright=True))
            self._decoded += 1

    def _decode(self) -> Iterator[av.VideoFrame]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except av.error.FFmpegError:  # the file breaks off inside a packet
                yield from self._stream.decode(None)
                return
            self._packets += packet.dts is not None or packet.size > 0  # the last, empty one only flushes the decoder
            try:
                frames = packet.decode()
            except av.error.FFmpegError:
                self._damaged += 1
                continue
            yield from frames

    @property
    def complaint(self) -> str | None:
        """What was wrong with the video, once its frames have been read; None where nothing was."""
        if self._promised > self._packets:
            return f"{self.path} breaks off: {self._decoded} of {self._promised} frames could be read"
        if not self._promised and self._duration > self._end + SHORT_BY:
            return f"{self.path} breaks off: it ends after {self._end:.1f} of {self._duration:.1f} s"
        if self._damaged:
            return f"{self.path} is damaged: {self._damaged} of its frames could not be decoded"
        return None


class VideoOutput:
    """Writes frames as an MP4 that appears when it is complete. A context manager; raises `DiskError`.

    Frames keep their times, so a video of uneven or thinned-out frames plays as fast as its source. Sides are made
    even by repeating the last column or row; a frame of another size than the first is scaled to it.
    """

    def __init__(self, path: Path, rate: Fraction) -> None:
        self.path = path
        self._rate = rate
        self._tick = _tick(rate)
        self._files = ExitStack()
        self._stream: av.VideoStream | None = None
        self._last = -1

    def __enter__(self) -> VideoOutput:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is None:
            return
        try:
            if kind is None:
                self._mux(None)
            self._container.close()
        except (av.error.FFmpegError, OSError) as failure:
            refused = self._refused(failure)
            self._files.__exit__(DiskError, refused, failure.__traceback__)
            raise refused from failure
        self._files.__exit__(kind, error, trace)

    def write(self, image: UInt8[np.ndarray, "h w 3"], time: Fraction) -> None:
        """Adds a frame (RGB) that is shown from `time` on [s, rising]."""
        even = np.pad(image, ((0, image.shape[0] % 2), (0, image.shape[1] % 2), (0, 0)), "edge")
        try:
            if self._stream is None:
                self._open(even.shape[0], even.shape[1])
            assert self._stream is not None
            size = self._stream.width, self._stream.height
            if even.shape[1::-1] != size:
                even = cv2.resize(even, size, interpolation=cv2.INTER_AREA)
            frame = av.VideoFrame.from_ndarray(even, format="rgb24")
            frame.pts = self._last = max(round(time / self._tick), self._last + 1)
            frame.time_base = self._tick
            self._mux(frame)
        except (av.error.FFmpegError, OSError) as error:
            raise self._refused(error) from error

    def _open(self, height: int, width: int) -> None:
        codec = next(name for name in CODECS if name in av.codecs_available)
        temporary = self._files.enter_context(atomic_path(self.path))
        self._container = av.open(str(temporary), "w", options={"movflags": "+faststart"})
        stream = self._container.add_stream(codec, rate=self._rate, options=QUALITY if codec == "libx264" else {})
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = self._tick
        if codec != "libx264":
            stream.bit_rate = round(BITS_PER_PIXEL * height * width * self._rate)
        self._stream = stream

    def _mux(self, frame: av.VideoFrame | None) -> None:
        assert self._stream is not None
        for packet in self._stream.encode(frame):
            self._container.mux(packet)

    def _refused(self, error: Exception) -> DiskError:
        reason = getattr(error, "strerror", None) or error
        return DiskError(f"cannot write {self.path}: {reason}; free some space or choose another --out")


def _tick(rate: Fraction) -> Fraction:
    """The unit of time for a rate [s]: such that a frame lasts a whole number of them, where that is possible."""
    return Fraction(1, TICKS // rate.numerator * rate.numerator or TICKS)
