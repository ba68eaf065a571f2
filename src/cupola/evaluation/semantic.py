"""Mean IoU and accuracy of classes, pixel by pixel (spec-network 5.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64, Integer

from cupola.evaluation.contingency import Contingency
from cupola.evaluation.panoptic_quality import Protocol
from cupola.types import VOID


@dataclass(frozen=True)
class SemanticScores:
    """In [0, 1]. miou: mean of `iou` over classes that are true or predicted anywhere (the others are NaN)."""

    protocol: Protocol
    miou: float
    accuracy: float
    iou: Float64[np.ndarray, "c"]


class ConfusionMatrix:
    """Counts pixels by predicted and true class.

        confusion = ConfusionMatrix(predicted_classes=27, true_classes=19)
        confusion.update(prediction, target)        # H x W x 2 (class, instance) maps, or H x W classes
        confusion.compute(match_classes(confusion.counts)).miou

    Classes outside 0..n-1 of their side are void: -1 as well as 255.
    """

    def __init__(self, predicted_classes: int, true_classes: int | None = None) -> None:
        self.predicted_classes = predicted_classes
        self.true_classes = predicted_classes if true_classes is None else true_classes
        self._counts = np.zeros((self.predicted_classes + 1, self.true_classes + 1), np.int64)

    @property
    def counts(self) -> Int64[np.ndarray, "p c"]:
        """Pixels of which both classes are known."""
        return self._counts[:-1, :-1].copy()

    @property
    def predicted_void(self) -> Int64[np.ndarray, "c"]:
        """Pixels of each true class that are void in the prediction."""
        return self._counts[-1, :-1].copy()

    def update(self, prediction: Integer[np.ndarray, "h w *two"], target: Integer[np.ndarray, "h w *two"]) -> None:
        """Adds one image: (class, instance) of each pixel, or the class alone."""
        predicted, true = (side[..., 0] if side.ndim == 3 else side for side in (prediction, target))
        size = self._counts.shape[1]
        code = _inside(predicted, self.predicted_classes) * size + _inside(true, self.true_classes)
        self._counts += np.bincount(code.ravel(), minlength=self._counts.size).reshape(self._counts.shape)

    def add(self, image: Contingency) -> None:
        """Adds one image from its table of segments."""
        predicted, true = (
            _inside(image.predicted[:, 0], self.predicted_classes),
            _inside(image.true[:, 0], self.true_classes),
        )
        np.add.at(self._counts, (predicted, true), image.areas)

    def compute(
        self, assignment: Int64[np.ndarray, "p"] | None = None, protocol: Protocol = "standard"
    ) -> SemanticScores:
        """Scores under an assignment of predicted to true classes (None: they are the same).

        A pixel that is void in the prediction is an error in the `standard` form and does not count in the `published`
        one (defect N35).
        """
        c = self.true_classes
        classes = np.arange(self.predicted_classes) if assignment is None else assignment
        mapped = np.zeros((c + 1, c), np.int64)
        np.add.at(mapped, _inside(np.append(classes, VOID), c), self._counts[:, :-1])
        known = mapped[:-1]
        hits = np.diag(known)
        true = known.sum(0) if protocol == "published" else mapped.sum(0)
        union = true + known.sum(1) - hits
        iou = np.where(union > 0, hits / np.maximum(union, 1), np.nan)
        total = true.sum()
        return SemanticScores(
            protocol,
            float(np.nanmean(iou)) if (union > 0).any() else float("nan"),
            float(hits.sum() / total) if total else float("nan"),
            iou,
        )


def _inside(classes: Integer[np.ndarray, "*shape"], number: int) -> Int64[np.ndarray, "*shape"]:
    """Classes with everything outside 0..number-1 as `number`."""
    return np.where((classes >= 0) & (classes < number), classes, number).astype(np.int64)


def confusion_of(images: Sequence[Contingency], predicted_classes: int, true_classes: int) -> ConfusionMatrix:
    """The confusion matrix of many images."""
    confusion = ConfusionMatrix(predicted_classes, true_classes)
    for image in images:
        confusion.add(image)
    return confusion
