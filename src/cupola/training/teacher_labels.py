"""What a teacher's prediction teaches: labels of an image from the mean of its views (paper; spec-network 3.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from cupola.errors import ConfigError
from cupola.models import IGNORE, SOME_THING, NetworkPrediction
from cupola.training.targets import FIRST_OBJECT, UNMARKED, Sample, hide_remnants


@dataclass(frozen=True)
class TeacherLabelSettings:
    """Which of a teacher's predictions become labels.

    Attributes:
        score: least score of an object (gamma of the paper, which does not give it; the published code: 0.7).
        doubt: an object of a lower score, but at least this one, is neither label nor background: its pixels are
            ignored. The same as `score` where there is no such band, as in the paper.
        share: a pixel's class counts where its probability is at least this share of that class's largest in the image
            (zeta of the paper; the published code: 0.5).
        rule: `paper` = the most probable class, if it reaches its threshold; `published` = the most probable of the
            classes that exceed their threshold, so that a weak class may take a pixel from a strong one (N15).
        left_over: thing pixels without an object are to be ignored in the semantics too (N29), or to be learnt as
            `thing` there, as published (N28). Whether they speak against objects is the rule of negatives' business.
    """

    score: float = 0.7
    doubt: float = 0.7
    share: float = 0.5
    rule: Literal["paper", "published"] = "paper"
    left_over: Literal["ignore", "thing"] = "ignore"

    def __post_init__(self) -> None:
        for name in ("score", "doubt", "share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must be 0..1, but is {getattr(self, name)}")
        if self.doubt > self.score:
            raise ConfigError(f"doubt must not exceed the score of labels ({self.score}), but is {self.doubt}")


def confident_pixels(
    probabilities: Float[Tensor, "k h w"], share: float, rule: Literal["paper", "published"] = "paper"
) -> Bool[Tensor, "k h w"]:
    """Where each class reaches its threshold: `share` times its largest probability in the image. By the rule
    `published` it has to exceed it (spec-network 3.4)."""
    threshold = share * probabilities.amax((1, 2), keepdim=True)
    return probabilities >= threshold if rule == "paper" else probabilities > threshold


def pixel_labels(
    probabilities: Float[Tensor, "k h w"], share: float, rule: Literal["paper", "published"] = "paper"
) -> Int64[Tensor, "h w"]:
    """Class of each pixel, `IGNORE` where none is confident enough; see `TeacherLabelSettings.rule`."""
    confident = confident_pixels(probabilities, share, rule)
    if rule == "paper":
        best = probabilities.argmax(0)
        return torch.where(confident.gather(0, best[None])[0], best, IGNORE)
    return torch.where(confident.any(0), (probabilities * confident).argmax(0), IGNORE)


def teacher_sample(
    image: UInt8[np.ndarray, "h w 3"], prediction: NetworkPrediction, settings: TeacherLabelSettings
) -> Sample:
    """An image with the labels that a prediction of it gives (`predict_views`: its `semantic` holds probabilities).

    Pixels of accepted objects belong to them, in semantics and masks alike; for the other thing pixels, confident or
    not, see `TeacherLabelSettings.left_over`. Other pixels without a confident class are `IGNORE`. Objects are things
    of the panoptic map, so that none covers another; those too small to learn from are left out.
    """
    semantic = pixel_labels(prediction.semantic, settings.share, settings.rule)
    codes = semantic.cpu().numpy().astype(np.uint16)
    thing_like = codes == SOME_THING
    if settings.left_over == "ignore":
        thing_like |= (prediction.semantic.argmax(0) == SOME_THING).cpu().numpy()
    codes[thing_like] = UNMARKED if settings.left_over == "ignore" else SOME_THING
    panoptic = prediction.panoptic.cpu().numpy()
    classes: list[int] = []
    areas: list[int] = []
    for segment in prediction.segments:
        if not segment.is_thing or segment.score is None:
            continue
        mask = panoptic == segment.id
        if segment.score < settings.score:
            codes[mask] = UNMARKED
            continue
        codes[mask] = FIRST_OBJECT + len(classes)
        classes.append(segment.category)
        areas.append(segment.area)
    return Sample(image, hide_remnants(codes, np.array(areas, np.int64)), np.array(classes, np.int64))
