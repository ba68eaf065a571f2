"""The report of a stage-1 run: what went in, what each step saw, what came out, and how each pseudo class looks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float32, Integer, UInt8

from cupola.correspondence import CorrespondenceProvider
from cupola.data import StereoDataset
from cupola.pseudo_labels.store import STATISTICS, LabelStore
from cupola.pseudo_labels.tasks import Pair
from cupola.report import Gallery, Page, Table, write_page
from cupola.taxonomy import CITYSCAPES_27
from cupola.types import VOID
from cupola.visualize import (
    Color,
    class_image,
    class_palette,
    disparity_image,
    flow_image,
    instance_overlay,
    panoptic_overlay,
)

REPORT = "report.html"

FRAMES = 10
"""Frames shown, evenly spread over the run."""

EXAMPLES = 6
"""Pictures shown of each pseudo class."""

SEARCHED = 60
"""Frames among which the examples of a class are looked for."""

MAX_WIDTH = 720
"""Pictures are shrunk to this width [px], so that the file stays small enough to mail."""


def shrink(image: UInt8[np.ndarray, "h w 3"], width: int = MAX_WIDTH) -> UInt8[np.ndarray, "h2 w2 3"]:
    """The image at most `width` wide [px]."""
    if image.shape[1] <= width:
        return image
    height = max(1, round(image.shape[0] * width / image.shape[1]))
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8)


def spread(count: int, wanted: int) -> list[int]:
    """At most `wanted` evenly spread indices below `count`."""
    return sorted({int(i) for i in np.linspace(0, count - 1, min(count, wanted)).round()}) if count else []


def _frame_row(
    store: LabelStore,
    dataset: StereoDataset,
    pair: Pair,
    correspondence: CorrespondenceProvider | None,
    colors: Sequence[Color],
) -> tuple[str, list[np.ndarray | None]]:
    record = pair[0]
    image = dataset.left(record)
    truth = dataset.truth(record, CITYSCAPES_27)
    pictures = [
        image,
        *([] if correspondence is None else _fields(dataset, pair, correspondence)),
        instance_overlay(image, store.instance_map(record.key)),
        class_image(store.semantic(record.key), colors),
        panoptic_overlay(image, store.label(record.key), colors),
    ]
    if truth is not None:
        pictures.append(panoptic_overlay(image, truth, CITYSCAPES_27.colors))
    return record.key, [None if picture is None else shrink(picture, MAX_WIDTH // 2) for picture in pictures]


def _fields(
    dataset: StereoDataset, pair: Pair, correspondence: CorrespondenceProvider
) -> tuple[np.ndarray | None, np.ndarray]:
    """Pictures of the flow, None of a frame that is paired with itself, and of the disparity."""
    clip = dataset.clip(pair)
    if pair[0] is pair[1]:
        return None, disparity_image(*correspondence.disparity(clip.first))
    fields = correspondence(clip)
    return flow_image(fields.flow, fields.flow_valid), disparity_image(fields.disparity, fields.disparity_valid)


def _densest(mask: Float32[np.ndarray, "h w"], height: int, width: int) -> tuple[int, int]:
    """Top left corner of the height x width window that holds most of the mask."""
    sums = cv2.boxFilter(mask, -1, (width, height), normalize=False, anchor=(0, 0), borderType=cv2.BORDER_CONSTANT)
    inside = sums[: mask.shape[0] - height + 1, : mask.shape[1] - width + 1]
    row, column = np.unravel_index(int(inside.argmax()), inside.shape)
    return int(row), int(column)


def _example(image: UInt8[np.ndarray, "h w 3"], semantic: Integer[np.ndarray, "h w"], label: int) -> np.ndarray:
    """The part of the image where the class is densest; what does not belong to it is dimmed."""
    height, width = image.shape[0] // 2, min(image.shape[1], image.shape[0]) // 2
    mask = semantic == label
    row, column = _densest(mask.astype(np.float32), height, width)
    part = image[row : row + height, column : column + width]
    inside = mask[row : row + height, column : column + width, None]
    return np.where(inside, part, part // 3 + 20).astype(np.uint8)


def class_gallery(store: LabelStore) -> Gallery:
    """A row a pseudo class, most frequent first: the frames where it covers most, cut to where it is densest."""
    keys = [store.keys[i] for i in spread(len(store.keys), SEARCHED)]
    counts = np.stack(
        [np.bincount(store.semantic(key)[store.semantic(key) >= 0], minlength=store.num_classes) for key in keys]
    )
    shares = counts.sum(0) / max(counts.sum(), 1)
    rows: list[tuple[str, Sequence[np.ndarray | None]]] = []
    for label in np.argsort(-shares, kind="stable"):
        if shares[label] == 0:
            continue
        best = np.argsort(-counts[:, label], kind="stable")[:EXAMPLES]
        pictures = [
            _example(store.image(keys[i]), store.semantic(keys[i]), int(label)) for i in best if counts[i, label]
        ]
        kind = "thing" if label in store.rule.split.things else "stuff"
        caption = f"class {label}, {kind}, {100 * shares[label]:.1f} % of pixels"
        rows.append((caption, [*(shrink(picture, 200) for picture in pictures)]))
    return Gallery(
        "What each pseudo class looks like",
        [f"example {i + 1}" for i in range(EXAMPLES)],
        rows,
        "Pixels of other classes are dimmed. Classes have no names: nobody told them any.",
    )


def is_outdated(path: Path, store: LabelStore) -> bool:
    """Whether the report is missing or older than the labels."""
    return not path.exists() or path.stat().st_mtime < (store.path / STATISTICS).stat().st_mtime


def write_label_report(
    path: Path,
    store: LabelStore,
    dataset: StereoDataset,
    pairs: Sequence[Pair],
    correspondence: CorrespondenceProvider | None,
) -> None:
    """Writes the HTML report of a finished label store; recomputes flow (not of a frame paired with itself) and depth
    of the frames shown, unless nobody knows what they were made with. Raises `DiskError`, `ImageError`."""
    pair_of = {pair[0].key: pair for pair in pairs}
    keys = [store.keys[i] for i in spread(len(store.keys), FRAMES)]
    colors = class_palette(store.num_classes)
    rows = [_frame_row(store, dataset, pair_of[key], correspondence, colors) for key in keys if key in pair_of]
    fields = [] if correspondence is None else ["flow", "disparity"]
    columns = ["input", *fields, "objects", "pseudo classes", "fused label", "truth"]
    legend = [(f"{store.rule.names[c]} (thing)", colors[c]) for c in store.things] + [
        (f"class {c}", colors[c]) for c in store.stuff
    ]
    frames = Gallery(
        "Frames",
        columns[: max((len(pictures) for _, pictures in rows), default=0)],
        rows,
        "In the fused label, dark pixels are ignored in training: a thing class where nothing was seen to move.",
        [*legend, ("ignore", (0, 0, 0))],
    )
    lead = (
        f"{len(store.keys)} frames, {store.num_classes} pseudo classes: {len(store.things)} of things, "
        f"{len(store.stuff)} of stuff. "
    )
    if store.imported:
        lead += f"Imported from {store.run['parts']['labels']['directory']}."
    else:
        lead += "Made from stereo video alone, without a single label."
    write_page(path, Page("Pseudo labels", lead, [_numbers(store, keys), frames, class_gallery(store)], store.facts()))


def _numbers(store: LabelStore, keys: Sequence[str]) -> Table:
    """Objects and ignored pixels of the frames shown."""
    rows = []
    for key in keys:
        label = store.label(key)
        objects = len(np.unique(label.instances[label.instances > 0]))
        rows.append([key, str(objects), f"{100 * (label.classes == VOID).mean():.1f} %"])
    return Table("Frames shown, in figures", ["frame", "objects", "ignored"], rows)
