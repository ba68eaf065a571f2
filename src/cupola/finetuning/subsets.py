"""Which annotated images a network learns from: disjoint random subsets, or those of a list (spec-network 7 [R])."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cupola.errors import ConfigError, DataError


def draw_subset(keys: Sequence[str], images: int, subset: int, seed: int) -> tuple[str, ...]:
    """Subset number `subset` (from 0 on) of `images` of the keys: the same for the same keys and seed, whatever their
    order, and disjoint from the other subsets of this size. Raises `ConfigError` where there are not so many."""
    if images < 1 or subset < 0:
        raise ConfigError(f"a subset has a number from 0 on and at least one image, not number {subset} of {images}")
    if (subset + 1) * images > len(keys):
        raise ConfigError(
            f"{subset + 1} disjoint subsets of {images} images need {(subset + 1) * images} annotated images, but "
            f"there are {len(keys)}; take fewer --images or --subsets"
        )
    order = np.random.default_rng([seed, images]).permutation(len(keys))
    chosen = sorted(order[subset * images : (subset + 1) * images].tolist())
    ordered = sorted(keys)
    return tuple(ordered[number] for number in chosen)


def read_list(path: Path, keys: Sequence[str]) -> tuple[str, ...]:
    """The keys that a file lists, one a line. Raises `DataError` for a file that cannot be read, is empty, or names a
    key that is not among `keys`, or one twice."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({type(error).__name__}); it should list one key a line") from error
    chosen = [line for line in lines if line]
    known = set(keys)
    for number, key in enumerate(chosen):
        if key not in known:
            raise DataError(f"{path} lists {key}, which is no annotated image; they are named like {min(known)}")
        if key in chosen[:number]:
            raise DataError(f"{path} lists {key} twice; remove one")
    if not chosen:
        raise DataError(f"{path} lists no image; write one key a line")
    return tuple(sorted(chosen))
