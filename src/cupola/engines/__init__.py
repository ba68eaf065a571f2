"""How work on many frames is spread: in this process, or over several. One interface, the same results.

An engine maps a function over items and gives pairs (item, result) in the order in which they are done. The function
and the items must be picklable for `Processes`; a frozen dataclass with `__call__`, defined in a module, is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Protocol, TypeVar, runtime_checkable

from cupola.engines.in_process import InProcess
from cupola.engines.processes import Processes
from cupola.errors import ConfigError

__all__ = ["Engine", "InProcess", "Processes", "choose_engine", "in_order"]

Item = TypeVar("Item")
Result = TypeVar("Result")


@runtime_checkable
class Engine(Protocol):
    """Anything that maps a function over items; a context manager that holds what it needs for several maps."""

    def __enter__(self) -> Engine:
        """Starts nothing yet."""
        ...

    def __exit__(self, *_: object) -> None:
        """Ends what was started."""
        ...

    def map(
        self, function: Callable[[Item], Result], items: Iterable[Item]
    ) -> Generator[tuple[Item, Result], None, None]:
        """(item, result) as they are done; an exception of the function is raised here."""
        ...


def choose_engine(workers: int, items: int) -> Engine:
    """An engine for this many items: as many processes as `workers` (0: as this machine has cores), none in vain.

    Raises `ConfigError` for a negative number.
    """
    if workers < 0:
        raise ConfigError(f"workers must be 0 (as many as there are cores) or more, not {workers}")
    count = min(workers or available_cores(), items)
    return Processes(count) if count > 1 else InProcess()


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_order(done: Iterable[tuple[int, Result]]) -> Iterator[Result]:
    """Results of numbered items (0, 1, ...) in the order of their numbers, each as soon as those before it are done."""
    waiting: dict[int, Result] = {}
    following = 0
    for number, result in done:
        waiting[number] = result
        while following in waiting:
            yield waiting.pop(following)
            following += 1
