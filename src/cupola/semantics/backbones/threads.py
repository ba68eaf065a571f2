"""Spreading what a network does over threads, bit for bit the same with any number of them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def spread(
    function: Callable[[Item], Result], items: Sequence[Item], device: torch.device
) -> Generator[Result, None, None]:
    """Results in order, without gradients. On a CPU the items are spread over threads, and each of them computes alone:
    that leaves no thread waiting for another, and the number of threads changes no bit of a result."""

    def call(item: Item) -> Result:
        with torch.no_grad():
            return function(item)

    if device.type != "cpu":
        yield from map(call, items)
        return
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            yield from pool.map(call, items)
        finally:
            torch.set_num_threads(threads)
