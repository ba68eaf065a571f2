"""report.html of a prediction run: some pictures, what the colours mean, and what could not be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from cupola.errors import ImageError
from cupola.io.coco_panoptic import Annotation, read_map
from cupola.io.video import VideoReader
from cupola.prediction.predictor import Predictor
from cupola.prediction.sources import ImageSource, Source
from cupola.prediction.writing import MAPS
from cupola.report import Gallery, Page, Table, write_page
from cupola.visualize import panoptic_overlay

REPORT_ROWS = 24
"""Images shown, evenly spread; more would make the file too large to open."""

PICTURE_SIDE = 768
"""Longest side of a picture in the report [px]; a page shows half of it."""


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
        rows.append((annotation.key, [_small(image), _small(overlay)]))
    for reader in readers.values():
        reader.close()
    return rows


def _small(image: UInt8[np.ndarray, "h w 3"]) -> np.ndarray:
    height, width = image.shape[:2]
    scale = PICTURE_SIDE / max(height, width)
    if scale >= 1:
        return image
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _frame(annotation: Annotation, readers: dict[str, VideoReader]) -> np.ndarray:
    """A frame of a video, upright; `readers` keeps the files open."""
    path, _, index = annotation.image.rpartition("#")
    if path not in readers:
        readers[path] = VideoReader(Path(path))
    return readers[path].read(int(index), upright=True)
