"""The plain engine: one item after the other, here."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import TypeVar

import cv2

Item = TypeVar("Item")
Result = TypeVar("Result")


class InProcess:
    """Maps in this process, OpenCV on one thread as in `Processes`: some of its results depend on how many it has."""

    def __enter__(self) -> InProcess:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def map(
        self, function: Callable[[Item], Result], items: Iterable[Item]
    ) -> Generator[tuple[Item, Result], None, None]:
        """(item, result), in order."""
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)
        try:
            for item in items:
                yield item, function(item)
        finally:
            cv2.setNumThreads(threads)
