"""What goes into the network: images and frames in batches, read ahead of it in threads of their own."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import UInt8

from cupola.errors import ImageError
from cupola.io.video_stream import VideoStream
from cupola.prediction.journal import Done, Journal, VideoDone, stamp_of
from cupola.prediction.sources import ImageSource, Source, VideoSource

T = TypeVar("T")

READERS = 4
"""Images that are decoded at a time."""

BATCHES_AHEAD = 2
"""Batches that are read while the network works."""

BATCH_PIXELS = 1 << 25
"""A batch ends early where its images have more pixels than this together: large ones must not fill the memory [px]."""


@dataclass(frozen=True)
class Frame:
    """An image that was read. time: in its video [s]; done: what an earlier run made of it (then it is only drawn)."""

    key: str
    name: str
    stamp: str
    image: UInt8[np.ndarray, "h w 3"]
    time: Fraction | None = None
    done: Done | None = None


@dataclass(frozen=True)
class Batch:
    """Frames that go through the network together, all of one video or of none. failures: what could not be read;
    rate: of the video [frames/s]; ended: the video ends with this batch."""

    frames: Sequence[Frame] = ()
    failures: Sequence[str] = ()
    video: VideoSource | None = None
    rate: Fraction | None = None
    ended: VideoDone | None = None

    @property
    def pixels(self) -> int:
        """Of all frames together."""
        return sum(frame.image.shape[0] * frame.image.shape[1] for frame in self.frames)


def ahead(items: Iterator[T], count: int) -> Iterator[T]:
    """The items, each made up to `count` items before it is asked for, in one thread of their own."""
    end = object()
    with ThreadPoolExecutor(1, "read") as pool:
        waiting = deque(pool.submit(next, items, end) for _ in range(count))
        try:
            while (item := waiting.popleft().result()) is not end:
                waiting.append(pool.submit(next, items, end))
                yield item  # type: ignore[misc]
        finally:
            for future in waiting:
                future.cancel()


def read_batches(
    sources: Sequence[Source], journal: Journal, overlays: Path, every: int, batch: int
) -> Iterator[Batch]:
    """Everything that is not done yet, in order. overlays: folder of the overlays of videos; every: of the frames of a
    video, take every so-manieth; batch: frames at a time, at most."""
    for moving, group in groupby(sources, lambda source: isinstance(source, VideoSource)):
        if moving:
            for video in group:
                assert isinstance(video, VideoSource)
                if not is_video_done(video, journal, overlays):
                    yield from _video_batches(video, journal, every, batch)
        else:
            yield from _image_batches([s for s in group if isinstance(s, ImageSource)], journal, batch)


def is_done(source: ImageSource, journal: Journal) -> bool:
    """Whether an earlier run predicted this image, and the file is still the same."""
    done = journal.images.get(source.key)
    return done is not None and (done.annotation.image, done.stamp) == (source.name, stamp_of(Path(source.name)))


def is_video_done(source: VideoSource, journal: Journal, overlays: Path) -> bool:
    """Whether an earlier run predicted this video to its end, the file is still the same, and the overlay is there."""
    done = journal.videos.get(source.key)
    return done is not None and done.stamp == stamp_of(source.path) and (overlays / f"{source.key}.mp4").is_file()


def _image_batches(sources: Sequence[ImageSource], journal: Journal, batch: int) -> Iterator[Batch]:
    waiting = [source for source in sources if not is_done(source, journal)]
    with ThreadPoolExecutor(READERS, "decode") as pool:
        for start in range(0, len(waiting), batch):
            read = list(pool.map(_read, waiting[start : start + batch]))
            yield from _cut([frame for frame in read if isinstance(frame, Frame)])
            failures = [frame for frame in read if isinstance(frame, str)]
            if failures:
                yield Batch(failures=failures)
            del read


def _cut(frames: list[Frame]) -> Iterator[Batch]:
    """The frames as one batch, or as several where they are large. Empties the list, so that none is kept here."""
    while frames:
        part = [frames.pop(0)]
        while frames and Batch((*part, frames[0])).pixels <= BATCH_PIXELS:
            part.append(frames.pop(0))
        yield Batch(part)


def _read(source: ImageSource) -> Frame | str:
    """The image, or why there is none."""
    stamp = stamp_of(Path(source.name))
    try:
        return Frame(source.key, source.name, stamp, source.read())
    except ImageError as error:
        return str(error)


def _video_batches(source: VideoSource, journal: Journal, every: int, batch: int) -> Iterator[Batch]:
    stamp = stamp_of(source.path)
    keys: list[str] = []
    waiting: list[Frame] = []
    try:
        stream = VideoStream(source.path)
    except ImageError as error:
        yield Batch(failures=[str(error)])
        return
    with stream:
        for frame in stream.frames(every):
            key = source.frame_key(frame.index)
            done = journal.images.get(key)
            keys.append(key)
            known = done if done is not None and done.stamp == stamp else None
            name = f"{source.path}#{frame.index}"
            waiting.append(Frame(key, name, stamp, frame.image, frame.time, known))
            if len(waiting) == batch or Batch(waiting).pixels >= BATCH_PIXELS:
                yield Batch(waiting, video=source, rate=stream.rate / every)
                waiting = []
        if not keys:
            yield Batch(failures=[f"{source.path} holds no frame that can be decoded; copy or record it again"])
            return
        ended = VideoDone(tuple(keys), stamp, stream.complaint)
        yield Batch(waiting, video=source, rate=stream.rate / every, ended=ended)
