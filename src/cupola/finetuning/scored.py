"""How good a network is on annotated images: as it is where its classes are true ones, else matched as in the paper."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cupola.errors import DataError
from cupola.evaluation import Evaluation, Judged, evaluate_maps
from cupola.finetuning.annotated import Annotated
from cupola.prediction import Predictor
from cupola.progress import progress

AT_ONCE = 4
"""Images a forward pass."""


@dataclass(frozen=True)
class Figures:
    """The standard protocol, in [0, 1]; NaN where nothing counts."""

    pq: float
    sq: float
    rq: float
    pq_things: float
    pq_stuff: float
    miou: float

    @staticmethod
    def of(content: Mapping[str, Any]) -> Figures:
        """From what `Evaluation.to_dict` gave."""
        scores = content["matched"]["standard"]
        values = [scores["all"][name] for name in ("pq", "sq", "rq")]
        values += [scores["things"]["pq"], scores["stuff"]["pq"], scores["miou"]]
        return Figures(*(float("nan") if value is None else float(value) for value in values))


@dataclass(frozen=True)
class Tuned:
    """A fine-tuned network. path: its directory; images: it learnt from; subset: number of the draw, None where none
    was drawn; figures: on the validation images."""

    path: Path
    images: int
    subset: int | None
    figures: Figures | None


@dataclass(frozen=True)
class Spread:
    """Mean, standard deviation (of a sample; 0 for one value), smallest and largest of some values."""

    mean: float
    deviation: float
    least: float
    most: float

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        """Of at least one value."""
        deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        return Spread(float(np.mean(values)), deviation, min(values), max(values))


def judge(predictor: Predictor, annotated: Annotated, *, matched: bool) -> Evaluation:
    """Scores of a network on all images. matched: its classes are pseudo classes, which are matched to the true ones;
    else class k of the network is class k of the truth. Raises `DataError` where images cannot be read."""
    taxonomy = annotated.taxonomy
    if matched:
        kinds = np.zeros(len(predictor.classes.names), bool)
        kinds[list(predictor.classes.things)] = True
        return evaluate_maps(_judged(predictor, annotated), taxonomy, kinds)
    identity = np.arange(len(taxonomy), dtype=np.int64)
    kinds = np.array(taxonomy.is_thing, bool)
    return evaluate_maps(_judged(predictor, annotated), taxonomy, kinds, assignment=identity)


def _judged(predictor: Predictor, annotated: Annotated) -> Iterator[Judged]:
    for start in progress(range(0, len(annotated.keys), AT_ONCE), "validating"):
        keys = annotated.keys[start : start + AT_ONCE]
        images, truths = zip(*(annotated.read(key) for key in keys), strict=True)
        for key, prediction, truth in zip(keys, predictor.batch(images), truths, strict=True):
            scores = {s.id: s.score for s in prediction.segments if s.score is not None}
            yield Judged(key, prediction.panoptic, truth, scores=scores)


def require_comparable(train: Annotated, validate: Annotated) -> None:
    """Raises `DataError` where the two are the same images, or have different classes."""
    if train.path.resolve() == validate.path.resolve():
        raise DataError(f"{validate.path} is what the network learns from; validate on other images")
    if train.taxonomy.names != validate.taxonomy.names or train.taxonomy.is_thing != validate.taxonomy.is_thing:
        raise DataError(
            f"{validate.path} has {len(validate.taxonomy)} classes ({', '.join(validate.taxonomy.names[:3])}, ..), but "
            f"{train.path} has {len(train.taxonomy)} ({', '.join(train.taxonomy.names[:3])}, ..); validate on images "
            "annotated with the same classes"
        )
