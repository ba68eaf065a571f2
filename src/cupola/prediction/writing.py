"""What comes out of the network: maps, overlays and the journal, written beside it in threads of their own."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import numpy as np
from jaxtyping import UInt8

from cupola.io import write_rgb
from cupola.io.coco_panoptic import Annotation, read_map, with_boxes, write_map
from cupola.io.video_stream import VideoOutput
from cupola.prediction.classes import ClassSystem
from cupola.prediction.journal import Done, Journal
from cupola.prediction.reading import BATCH_PIXELS, Batch, Frame
from cupola.prediction.result import Prediction
from cupola.visualize import panoptic_overlay, with_legend

MAPS, OVERLAYS = "panoptic", "overlays"

DRAWERS = min(4, os.cpu_count() or 1)
"""Images that are drawn and encoded at a time."""

BATCHES_BEHIND = 2
"""Batches that may wait to be written while the network works."""

Pixels = UInt8[np.ndarray, "_height _width 3"]


class Writer:
    """Takes batches and their predictions, in order, and writes them. A context manager: leaving it waits until all is
    written, also where an error ends the run; the overlay of an unfinished video is dropped.

    Raises `DiskError`, where a later batch is handed over or at the end.
    """

    def __init__(self, out: Path, classes: ClassSystem, journal: Journal, legend: bool) -> None:
        self.out = out
        self._classes = classes
        self._journal = journal
        self._legend = legend
        self._drawing = ThreadPoolExecutor(DRAWERS, "draw")
        self._collecting = ThreadPoolExecutor(1, "write")
        self._pending: deque[Future[None]] = deque()
        self._video: VideoOutput | None = None

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._wait(0)
        finally:
            self._collecting.shutdown()
            self._drawing.shutdown()
            if self._video is not None:
                self._video.__exit__(RuntimeError, RuntimeError("the video is not complete"), None)

    def write(self, batch: Batch, predictions: Sequence[Prediction]) -> None:
        """Hands a batch over. predictions: of its frames that are not done yet."""
        fresh = iter(predictions)
        drawn = [
            self._drawing.submit(self._draw, frame, None if frame.done else next(fresh), batch.video is not None)
            for frame in batch.frames
        ]
        self._pending.append(self._collecting.submit(self._collect, batch, drawn))
        self._wait(0 if batch.pixels > BATCH_PIXELS else BATCHES_BEHIND)

    def _wait(self, most: int) -> None:
        """Until at most so many batches wait to be written."""
        while len(self._pending) > most:
            self._pending.popleft().result()

    def _draw(self, frame: Frame, prediction: Prediction | None, moving: bool) -> tuple[Done, Pixels | None]:
        """Writes the files of a frame; gives the overlay of a frame of a video, whose file takes them in order."""
        if prediction is None:
            assert frame.done is not None
            panoptic = read_map(self.out / MAPS, frame.done.annotation)
            return frame.done, self._with_legend(panoptic_overlay(frame.image, panoptic, self._classes.colors), None)
        ids = prediction.segment_ids()
        write_map(self.out / MAPS / f"{frame.key}.png", ids)
        segments = with_boxes(ids, prediction.segments)
        annotation = Annotation(frame.key, f"{frame.key}.png", frame.name, ids.shape[0], ids.shape[1], segments)
        done = Done(annotation, frame.stamp)
        if moving:
            return done, self._with_legend(prediction.overlay(), None)
        present = {s.category for s in prediction.segments}
        write_rgb(self.out / OVERLAYS / f"{frame.key}.png", self._with_legend(prediction.overlay(), present))
        return done, None

    def _with_legend(self, overlay: Pixels, present: set[int] | None) -> Pixels:
        """The overlay with its legend: of the classes present, or of all, so that it stays the same in a video."""
        return with_legend(overlay, self._classes.legend(present)) if self._legend else overlay

    def _collect(self, batch: Batch, drawn: Sequence[Future[tuple[Done, Pixels | None]]]) -> None:
        """Waits for the files of a batch, adds its overlays to the video, and notes all of it as done."""
        results = [future.result() for future in drawn]
        if batch.video is not None and batch.rate is not None:
            if self._video is None:
                self._video = VideoOutput(self.out / OVERLAYS / f"{batch.video.key}.mp4", batch.rate)
            for frame, (_, overlay) in zip(batch.frames, results, strict=True):
                if overlay is not None and frame.time is not None:
                    self._video.write(overlay, frame.time)
        fresh = [done for frame, (done, _) in zip(batch.frames, results, strict=True) if frame.done is None]
        if fresh:
            self._journal.add_images(fresh)
        if batch.video is not None and batch.ended is not None:
            video, self._video = self._video, None
            if video is not None:
                video.__exit__(None, None, None)
            self._journal.add_video(batch.video.key, batch.ended)
