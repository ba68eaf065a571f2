"""SF2SE3 and its ensemble as a motion segmenter."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float32

from cupola.motion.sf2se3.ensemble import vote
from cupola.motion.sf2se3.labelling import RunMasks, label_pixels, moving_objects, separate
from cupola.motion.sf2se3.masks import finish
from cupola.motion.sf2se3.observation import Observation, observe
from cupola.motion.sf2se3.proposals import propose
from cupola.motion.sf2se3.settings import Sf2se3Settings
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

    @classmethod
    def as_published(cls) -> Sf2se3Segmenter:
        """The behaviour of the published code, with its defects."""
        return cls(form="published")

    @classmethod
    def single(cls) -> Sf2se3Segmenter:
        """One run whose labels are taken as they are: the "vanilla" SF2SE3 of the paper's ablation."""
        return cls(runs=1, iterations=SINGLE_ITERATIONS)

    def __call__(self, clip: StereoClip, correspondence: Correspondence, seed: int) -> Instances:
        """Masks of the moving objects on the clip's first frame, with their motions.

        Every random draw depends on (seed, clip key, run) only.
        """
        seen = observe(clip, correspondence, self)
        if seen.full.reliable.sum() < self.min_reliable or not seen.low.reliable.any():
            return Instances.empty(*clip.first.size)
        generators = [np.random.default_rng([seed, zlib.crc32(clip.key.encode()), run]) for run in range(self.runs)]
        if self.runs == 1:
            return self._plain(seen, generators[0])
        return combine([self.run(seen, rng) for rng in generators], seen.full.points, self)

    def run(self, seen: Observation, rng: np.random.Generator) -> RunMasks:
        """One run of the ensemble: its moving objects, in connected parts."""
        objects = find_objects(seen, self, partial(propose, seen.low, settings=self, rng=rng))
        labels, shares = label_pixels(seen, objects, self)
        kept = moving_objects(seen, objects, labels, self)
        return separate(labels, shares, objects.motions, kept, self.min_component)

    def _plain(self, seen: Observation, rng: np.random.Generator) -> Instances:
        """The labels of one run but the background's, without any test (spec-stage1 4.18)."""
        objects = find_objects(seen, self, partial(propose, seen.low, settings=self, rng=rng))
        labels, shares = label_pixels(seen, objects, self)
        kept = [k for k in range(1, len(objects)) if (labels == k).any()]
        if not kept:
            return Instances.empty(*seen.full.size)
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
