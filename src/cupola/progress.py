"""A progress bar with rate and remaining time for whatever takes longer than two seconds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")

QUIET_SECONDS = 2.0
"""A bar appears only for work that lasts longer than this [s]."""


def progress(
    items: Iterable[T], title: str, total: int | None = None, done: int = 0, *, silent: bool = False
) -> tqdm[T]:
    """Wraps `items` in a bar on stderr; `done` of `total` steps were finished by an earlier run; silent: no bar."""
    return tqdm(items, desc=title, total=total, initial=done, delay=QUIET_SECONDS, dynamic_ncols=True, disable=silent)


def byte_progress(title: str, total: int | None, done: int = 0) -> tqdm[Any]:
    """A bar of bytes, to be used with `with` and `update`; `done` of `total` were there before."""
    return tqdm(
        desc=title, total=total, initial=done, delay=QUIET_SECONDS, dynamic_ncols=True, unit="B", unit_scale=True
    )
