"""SF2SE3 and its ensemble as a motion segmenter."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
from jaxtyping import Float32, UInt8

from cupola.motion.sf2se3.consensus import Objects
from cupola.motion.sf2se3.ensemble import vote
from cupola.motion.sf2se3.labelling import RunMasks, label_pixels, moving_objects, separate
from cupola.motion.sf2se3.masks import finish
from cupola.motion.sf2se3.observation import Observation, observe
from cupola.motion.sf2se3.proposals import propose
from cupola.motion.sf2se3.settings import Form, Sf2se3Settings
from cupola.motion.sf2se3.single_run import find_objects
from cupola.types import Correspondence, Instances, StereoClip

SINGLE_ITERATIONS = 10
"""Attempts at a further object where there is only one run (spec-stage1 4.18)."""


@dataclass(frozen=True)
class Sf2se3Segmenter(Sf2se3Settings):
    """An instance is a `MotionSegmenter`: the method of the paper's stage 1a.

    Clusters of a few points give rigid motions; those that explain most of the scene flow are taken one after another,
    the largest is the background, and what is left is objects. Several runs vote on them (spec-stage1 4).
    """

    name: ClassVar[str] = "sf2se3"

    @classmethod
    def single(cls) -> Sf2se3Segmenter:
        """One run whose labels are taken as they are: the "vanilla" SF2SE3 of the paper's ablation."""
        return cls(runs=1, iterations=SINGLE_ITERATIONS)

    def __call__(self, clip: StereoClip, correspondence: Correspondence, seed: int) -> Instances:
        """Masks of the moving objects on the clip's first frame, with their motions.

        Every random draw depends on (seed, clip key, run) only. A frame with too little reliable scene flow has none.
        """
        seen = observe(clip, correspondence, self)
        if seen.full.reliable.sum() < self.min_reliable or not seen.low.reliable.any():
            return Instances.empty(*clip.first.size)
        if self.runs == 1:
            return plain_labels(*self._labels(seen, seed, clip.key, 0))
        runs = []
        for run in range(self.runs):
            objects, labels, shares = self._labels(seen, seed, clip.key, run)
            kept = moving_objects(seen, objects, labels, self)
            runs.append(separate(labels, shares, objects.motions, kept, self.min_component))
        return combine(runs, seen.full.points, self)

    def _labels(
        self, seen: Observation, seed: int, key: str, run: int
    ) -> tuple[Objects, UInt8[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:
        """Objects of one run, the object of every pixel, and its share of the likelihood there."""
        rng = np.random.default_rng([seed, zlib.crc32(key.encode()), run])
        objects = find_objects(seen, self, partial(propose, seen.low, settings=self, rng=rng))
        return objects, *label_pixels(seen, objects, self)


@dataclass(frozen=True)
class PublishedSf2se3Segmenter(Sf2se3Segmenter):
    """The behaviour of the published code, with its defects."""

    name: ClassVar[str] = "sf2se3-published"
    form: Form = "published"


def plain_labels(objects: Objects, labels: UInt8[np.ndarray, "h w"], shares: Float32[np.ndarray, "h w"]) -> Instances:
    """The labels of one run but the background's, without any test (spec-stage1 4.18)."""
    kept = [k for k in range(1, len(objects)) if (labels == k).any()]
    if not kept:
        return Instances.empty(*labels.shape)
    masks = np.stack([labels == k for k in kept])
    scores = np.array([shares[mask].mean(dtype=np.float64) for mask in masks], np.float32)
    return Instances(masks, scores, objects.motions[kept])


def combine(runs: list[RunMasks], points: Float32[np.ndarray, "3 h w"], settings: Sf2se3Settings) -> Instances:
    """The objects on which the runs agree (spec-stage1 4.14 to 4.16). points: of the first frame [m]."""
    scores, motions = (np.concatenate([getattr(run, name) for run in runs]) for name in ("scores", "motions"))
    starts = np.cumsum([0, *(len(run.scores) for run in runs)], dtype=np.int32)
    ids = np.stack([np.where(run.ids > 0, run.ids + start, 0) for run, start in zip(runs, starts[:-1], strict=True)])
    chosen, lowered = vote(ids, scores, len(runs), settings)
    pieces = finish([(ids == index + 1).any(0) for index in chosen], lowered, points, settings)
    if not pieces:
        return Instances.empty(*ids.shape[1:])
    sources = [index for index, _ in pieces]
    return Instances(np.stack([mask for _, mask in pieces]), lowered[sources], motions[chosen][sources])
