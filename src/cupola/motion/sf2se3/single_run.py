"""One run: objects accepted one after another from random proposals (spec-stage1 4.4)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float64

from cupola.motion.sf2se3.consensus import Objects, join, motion_consensus
from cupola.motion.sf2se3.fitting import refit
from cupola.motion.sf2se3.observation import Observation
from cupola.motion.sf2se3.selection import select, split
from cupola.motion.sf2se3.settings import Sf2se3Settings

Proposer = Callable[[Bool[np.ndarray, "h w"]], Float64[np.ndarray, "n 4 4"]]
"""Motions to try, given the cells that accepted objects explain."""

MOTIONS_AT_ONCE, PARTS_AT_ONCE, MOST_OBJECTS = 1, 3, 10
"""Motions taken from the proposals, parts of one taken at a time, objects of a run in the end (spec-stage1 4.4)."""

EMPTY_SELECTIONS = 2
"""The run ends when nothing was worth taking so many times."""


def find_objects(seen: Observation, settings: Sf2se3Settings, propose: Proposer) -> Objects:
    """The objects of one run, by falling support: the first is the background. Random only through `propose`."""
    found, misses = Objects.none(seen.low.size), 0
    for _ in range(settings.iterations):
        explained = np.asarray(found.assigned.any(0))
        motions = propose(explained)
        if not len(motions):
            continue
        soft = motion_consensus(seen, seen.low, motions, settings).soft
        chosen = select(soft, found.soft, seen.low.reliable, MOTIONS_AT_ONCE, settings)
        if not chosen:
            misses += 1
            if misses == EMPTY_SELECTIONS:
                break
            continue
        if not settings.published:
            misses = 0  # the published code counts misses that do not follow each other, too (defect S39)
        parts = split(seen, soft[chosen[0]], explained, settings)
        objects = join(seen, np.repeat(motions[chosen], len(parts), 0), parts, settings)
        objects = objects[select(objects.soft, found.soft, seen.low.reliable, PARTS_AT_ONCE, settings)]
        if len(objects):
            found += refit(seen, objects, settings)
    nothing = Objects.none(seen.low.size).soft
    return found[select(found.soft, nothing, seen.low.reliable, MOST_OBJECTS, settings)]
