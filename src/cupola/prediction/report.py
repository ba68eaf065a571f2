"""report.html of a prediction run: some pictures, what the colours mean, and what could not be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cupola.errors import ImageError
from cupola.io.coco_panoptic import Annotation, read_map
from cupola.io.video import VideoReader
from cupola.prediction.pixels import shrunk
from cupola.prediction.predictor import Predictor
from cupola.prediction.sources import ImageSource, Source
from cupola.prediction.writing import MAPS
from cupola.report import Gallery, Page, Table, write_page
from cupola.visualize import panoptic_overlay

REPORT_ROWS = 24
"""Images shown, evenly spread; more would make the file too large to open."""

PICTURE_PIXELS = 1 << 18
"""Pixels of a picture in the report."""


def write_report(
    path: Path,
    sources: Sequence[Source],
    annotations: Sequence[Annotation],
    predictor: Predictor,
    complaints: Sequence[str],
    facts: Mapping[str, str],
) -> None:
    """Writes report.html. complaints: what could not be read, or in part only. Raises `DiskError`."""
    classes = predictor.classes
    legend = [(f"{classes.names[c]} (thing)", classes.colors[c]) for c in classes.things]
    legend += [(classes.names[c], classes.colors[c]) for c in classes.stuff]
    objects = sum(s.is_thing for a in annotations for s in a.segments)
    lead = f"{len(annotations)} images, {objects} objects, at a score of at least {predictor.settings.threshold}."
    shown = _pictures(path.parent / MAPS, sources, annotations, predictor)
    blocks: list[Table | Gallery] = [
        Gallery(
            "Images and panoptic maps", ["image", "panoptic map"], shown, "Dark: nothing was recognised.",
            list(dict.fromkeys(legend)),
        )
    ]  # fmt: skip
    if complaints:
        blocks.append(Table("What could not be read", ["what went wrong"], [[complaint] for complaint in complaints]))
    write_page(path, Page("Predictions", lead, blocks, facts))


def _pictures(
    maps: Path, sources: Sequence[Source], annotations: Sequence[Annotation], predictor: Predictor
) -> list[tuple[str, Sequence[np.ndarray | None]]]:
    """(key, (image, overlay)) of some images, read again from their sources and maps."""
    count = min(REPORT_ROWS, len(annotations))
    chosen = [annotations[number * len(annotations) // count] for number in range(count)]
    stills = {source.key: source for source in sources if isinstance(source, ImageSource)}
    readers: dict[str, VideoReader] = {}
    rows: list[tuple[str, Sequence[np.ndarray | None]]] = []
    for annotation in chosen:
        try:
            image = stills[annotation.key].read() if annotation.key in stills else _frame(annotation, readers)
        except ImageError:
            continue  # it is gone or has changed since
        overlay = panoptic_overlay(image, read_map(maps, annotation), predictor.classes.colors)
        rows.append((annotation.key, [shrunk(image, PICTURE_PIXELS), shrunk(overlay, PICTURE_PIXELS)]))
    for reader in readers.values():
        reader.close()
    return rows


def _frame(annotation: Annotation, readers: dict[str, VideoReader]) -> np.ndarray:
    """A frame of a video, upright; `readers` keeps the files open."""
    path, _, index = annotation.image.rpartition("#")
    if path not in readers:
        readers[path] = VideoReader(Path(path))
    return readers[path].read(int(index), upright=True)
