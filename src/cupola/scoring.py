"""`cupola evaluate`: predictions on disk against a data set that holds truth."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int64

from cupola.config import save_config
from cupola.data import FrameRecord, StereoDataset, open_dataset
from cupola.diagnosis import installed_versions
from cupola.errors import ConfigError, DataError, StoreError
from cupola.evaluation import Evaluation, EvaluationSettings, Judged, evaluate_maps
from cupola.io import write_json
from cupola.io.coco_panoptic import Annotation, Category, read_index, read_map
from cupola.progress import progress
from cupola.taxonomy import CITYSCAPES_19, CITYSCAPES_27, Taxonomy
from cupola.types import PanopticMap

TAXONOMIES: dict[int, Taxonomy] = {19: CITYSCAPES_19, 27: CITYSCAPES_27}

INDEX, MAPS, RESULT = "panoptic.json", "panoptic", "result.json"

MAX_STRETCH = 0.02
"""A prediction of another size is enlarged to the truth if the two scales differ by less than this share."""


def evaluate(
    predictions: Path,
    data: Path,
    *,
    layout: str = "auto",
    classes: Literal[19, 27] = 19,
    settings: EvaluationSettings = EvaluationSettings(),
    assignment: Path | None = None,
    out: Path | None = None,
) -> Evaluation:
    """Score pseudo labels or predictions against truth: PQ, SQ, RQ, mIoU, accuracy, mask AP, recall of objects.

    Pseudo classes are first matched to true classes over all frames, as in the paper. Frames are matched by their key
    (or by the name of their left image); frames without a prediction or without truth are left out. Where truth is
    sparse (lidar points), only labelled pixels count, and least areas shrink as an object's pixels do.

    Args:
        predictions: a label store, or a folder of COCO panoptic files (panoptic.json and panoptic/), such as the output
            of `cupola predict`.
        data: a data set with truth.
        layout: its layout; `auto` finds out.
        classes: evaluate on the 19 or the 27 Cityscapes classes.
        settings: what counts, such as the smallest area.
        assignment: result.json of an earlier run whose matching is used instead of a new one.
        out: folder for result.json and config.yaml; without it the result is only printed.
    """
    annotations, categories = read_index(predictions / INDEX)
    dataset = open_dataset(data, layout)
    pairs = _common(annotations, dataset, predictions)
    kinds = _pseudo_is_thing(categories, predictions)
    settings = settings.at_density(dataset.truth_density())
    given = None if assignment is None else _read_assignment(assignment, len(kinds), classes)
    result = evaluate_maps(
        _judged(progress(pairs, "evaluate"), predictions / MAPS, dataset, TAXONOMIES[classes]),
        TAXONOMIES[classes],
        kinds,
        settings,
        given,
    )
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        save_config(
            out / "config.yaml",
            predictions=predictions,
            data=data,
            layout=layout,
            classes=classes,
            settings=settings,
            assignment=assignment,
            out=out,
        )
        source = {"predictions": str(predictions), "data": str(data), "layout": dataset.layout}
        write_json(out / RESULT, source | {"versions": installed_versions()} | result.to_dict())
    return result


def _common(
    annotations: tuple[Annotation, ...], dataset: StereoDataset, predictions: Path
) -> list[tuple[Annotation, FrameRecord]]:
    """Predictions with the frame they are of, where that has truth. Raises `DataError` if there is none."""
    with_truth = [record for record in dataset.records if record.truth is not None]
    if not with_truth:
        raise DataError(f"{dataset.root} (layout {dataset.layout}) holds no truth, so nothing can be scored against it")
    stems = [Path(str(record.left)).stem for record in with_truth]
    frames = {stem: record for stem, record in zip(stems, with_truth, strict=True) if stems.count(stem) == 1}
    frames |= {record.key: record for record in with_truth}
    pairs = [(annotation, frames[annotation.key]) for annotation in annotations if annotation.key in frames]
    if not pairs:
        example = annotations[0].key if annotations else "nothing"
        raise DataError(
            f"no prediction in {predictions} is of a frame with truth in {dataset.root}: predictions are named like "
            f"{example}, frames like {with_truth[0].key}; name the data set that was predicted"
        )
    return pairs


def _pseudo_is_thing(categories: tuple[Category, ...], predictions: Path) -> Bool[np.ndarray, "p"]:
    """Whether each pseudo class is a thing, up to the highest id. Raises `StoreError` for ids that are no classes."""
    ids = [category.id for category in categories]
    if not ids or min(ids) < 0 or max(ids) > np.iinfo(np.int16).max:
        raise StoreError(f"{predictions / INDEX} names no usable category ids (0 to 32767); make it again")
    kinds = np.zeros(max(ids) + 1, bool)
    for category in categories:
        kinds[category.id] = category.is_thing
    return kinds


def _read_assignment(path: Path, pseudo_classes: int, classes: int) -> Int64[np.ndarray, "p"]:
    """The matching of an earlier result. Raises `ConfigError` where it does not fit."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        names, assignment = tuple(content["classes"]), np.array(content["matched"]["assignment"], np.int64)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is not a result.json of `cupola evaluate` ({type(error).__name__})") from error
    if names != TAXONOMIES[classes].names or assignment.shape != (pseudo_classes,):
        raise ConfigError(
            f"{path} assigns {assignment.size} pseudo classes to {len(names)} classes, but here {pseudo_classes} go to "
            f"{classes}; take a result of the same model with --classes {len(names)}"
        )
    return assignment


def _judged(
    pairs: Iterable[tuple[Annotation, FrameRecord]], maps: Path, dataset: StereoDataset, taxonomy: Taxonomy
) -> Iterator[Judged]:
    for annotation, record in pairs:
        target = dataset.truth(record, taxonomy)
        if target is not None:
            prediction = _resized(read_map(maps, annotation), target.classes.shape, annotation.key)
            prediction, target = dataset.judged(record, prediction, target)
            scores = {s.id: s.score for s in annotation.segments if s.score is not None}
            yield Judged(record.key, prediction, target, dataset.moving(record), scores)


def _resized(prediction: PanopticMap, size: tuple[int, ...], key: str) -> PanopticMap:
    """The prediction at the size (height, width) of the truth, by the nearest pixel. Raises `DataError` where the two
    have different proportions."""
    height, width = prediction.classes.shape
    if (height, width) == size:
        return prediction
    if abs((size[0] / height) / (size[1] / width) - 1) > MAX_STRETCH:
        raise DataError(
            f"the prediction of {key} is {width} x {height} but its truth is {size[1]} x {size[0]}, which is no scaled "
            "version of it; predict the whole image"
        )
    rows = ((np.arange(size[0]) + 0.5) * height / size[0]).astype(np.intp)[:, None]
    columns = ((np.arange(size[1]) + 0.5) * width / size[1]).astype(np.intp)
    return PanopticMap(prediction.classes[rows, columns], prediction.instances[rows, columns])
