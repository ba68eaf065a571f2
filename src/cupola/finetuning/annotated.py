"""Images with panoptic truth, from any data set that has it or from a folder of COCO panoptic files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import UInt8

from cupola.data import FrameRecord, open_dataset
from cupola.data.resizing import resize_ids, resize_image
from cupola.errors import DataError
from cupola.io import read_rgb
from cupola.io.coco_panoptic import Annotation, read_index, read_map
from cupola.taxonomy import CITYSCAPES_19, CITYSCAPES_27, Taxonomy
from cupola.types import VOID, PanopticMap

TAXONOMIES: Mapping[int, Taxonomy] = {19: CITYSCAPES_19, 27: CITYSCAPES_27}

INDEX, MAPS, IMAGES = "panoptic.json", "panoptic", "images"
"""A folder of COCO panoptic files holds these; `images` has each image under its file name (spec-network 6.8)."""


@dataclass(frozen=True)
class Annotated:
    """Images with truth. keys: sorted; read_image, read_truth: of a key; truth in classes of `taxonomy` (`VOID` where
    it has none), instances of things, 0 for stuff and crowds."""

    path: Path
    keys: tuple[str, ...]
    taxonomy: Taxonomy
    read_image: Callable[[str], UInt8[np.ndarray, "h w 3"]]
    read_truth: Callable[[str], PanopticMap]

    def read(self, key: str) -> tuple[UInt8[np.ndarray, "h w 3"], PanopticMap]:
        """An image and its truth. Raises `DataError` where they differ in size, and what reading raises."""
        image, truth = self.read_image(key), self.read_truth(key)
        if image.shape[:2] != truth.classes.shape:
            height, width = truth.classes.shape
            raise DataError(
                f"the image {key} of {self.path} is {image.shape[1]} x {image.shape[0]}, but its truth {width} x "
                f"{height}; they must have one size"
            )
        return image, truth


def open_annotated(path: Path, layout: str = "auto", scale: float = 1.0, classes: int = 19) -> Annotated:
    """The annotated images of a data set, in 19 or 27 Cityscapes classes, or of a COCO panoptic folder, in its own.

    Raises `DataError` where there are none, `StoreError` for a damaged index.
    """
    if (path / INDEX).is_file() and (path / IMAGES).is_dir():
        return _coco(path, scale)
    dataset = open_dataset(path, layout, scale)
    records = {record.key: record for record in dataset.records if record.truth is not None}
    if not records:
        raise DataError(
            f"{path} (layout {dataset.layout}) holds no truth, so there is nothing to learn from; name a data set with "
            f"annotated images, or a folder with {INDEX}, {MAPS}/ and {IMAGES}/"
        )
    if dataset.truth_density() < 1:
        raise DataError(
            f"the truth of {path} (layout {dataset.layout}) marks single pixels, which is enough to score masks but "
            "not to learn them; name a data set with whole images annotated"
        )
    taxonomy = TAXONOMIES[classes]

    def truth(record: FrameRecord) -> PanopticMap:
        found = dataset.truth(record, taxonomy)
        assert found is not None  # only such records are kept
        return found

    return Annotated(
        path, tuple(sorted(records)), taxonomy, lambda key: dataset.left(records[key]), lambda key: truth(records[key])
    )


def _coco(path: Path, scale: float) -> Annotated:
    annotations, categories = read_index(path / INDEX)
    if not annotations:
        raise DataError(f"{path / INDEX} lists no annotated image, so there is nothing to learn from")
    categories = tuple(sorted(categories, key=lambda category: category.id))
    taxonomy = Taxonomy(
        names=tuple(category.name for category in categories),
        colors=tuple(category.color for category in categories),
        is_thing=tuple(category.is_thing for category in categories),
        label_ids=tuple(category.id for category in categories),
    )
    entries = {annotation.key: annotation for annotation in annotations}
    if len(entries) < len(annotations):
        raise DataError(f"{path / INDEX} annotates an image twice; remove one of the two")
    return Annotated(
        path,
        tuple(sorted(entries)),
        taxonomy,
        lambda key: _coco_image(path / IMAGES, scale, entries[key]),
        lambda key: _coco_truth(path / MAPS, taxonomy, scale, entries[key]),
    )


def _coco_image(folder: Path, scale: float, annotation: Annotation) -> UInt8[np.ndarray, "h w 3"]:
    name = PurePosixPath(annotation.image)
    if name.is_absolute() or ".." in name.parts:
        raise DataError(
            f"the image {name} of {folder.parent / INDEX} leaves the folder {folder}; write the index again"
        )
    return resize_image(read_rgb(folder / name), scale)


def _coco_truth(folder: Path, taxonomy: Taxonomy, scale: float, annotation: Annotation) -> PanopticMap:
    found = read_map(folder, annotation)
    ids = np.array(taxonomy.label_ids)
    known = found.classes != VOID
    place = np.where(known, np.searchsorted(ids, np.where(known, found.classes, ids[0])), VOID).astype(np.int16)
    return PanopticMap(resize_ids(place, scale), resize_ids(found.instances, scale))
