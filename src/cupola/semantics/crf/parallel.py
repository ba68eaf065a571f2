"""Calls on several threads. Compiled loops let go of Python's lock, so that threads are enough."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from itertools import pairwise
from typing import Any

import numpy as np

PIECES = 16
"""Parts that a loop is cut into, for up to so many threads. No result depends on it."""


def in_parallel(pool: Executor, function: Callable[..., None], calls: Iterable[tuple[Any, ...]]) -> None:
    """Makes these calls, and waits for them."""
    for future in [pool.submit(function, *arguments) for arguments in calls]:
        future.result()


def in_pieces(pool: Executor, function: Callable[..., None], count: int, *arguments: Any) -> None:
    """Runs function(start, stop, *arguments) over the pieces of 0 .. count."""
    edges = np.linspace(0, count, PIECES + 1).astype(int).tolist()
    in_parallel(pool, function, [(a, b, *arguments) for a, b in pairwise(edges) if a < b])
