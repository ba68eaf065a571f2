"""Several worker processes on this machine, each a fresh interpreter that is fed through its standard input.

Not `multiprocessing`: its workers import the caller's main module again (a plain script then starts itself once more)
and outlive a parent that is killed. A worker here knows only the function it is sent, ends when its input ends, and is
out of reach of the terminal's Ctrl-C, which the parent answers by ending its workers.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterable
from typing import Any, TypeVar

from cupola.engines.worker import Failure
from cupola.errors import ConfigError, CupolaError

Item = TypeVar("Item")
Result = TypeVar("Result")

ONE_THREAD = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
"""A worker is one thread: more would fight over the cores that the other workers have."""

NO_BARS = {"TQDM_DISABLE": "1"}
"""Nor does it draw progress bars: the parent's would fight with them over the terminal."""

_END = object()


class Processes:
    """Maps over `count` worker processes; a worker gets its next item when it has given back the last.

    A context manager: the workers start with the first map, serve the following ones too, and end with the block. A map
    that is left early, by an exception or by closing its generator, ends them at once.
    """

    def __init__(self, count: int) -> None:
        if count < 1:
            raise ConfigError(f"a pool needs at least one process, not {count}")
        self.count = count
        self._workers: list[_Worker] = []

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the workers."""
        while self._workers:
            self._workers.pop().end()

    def map(
        self, function: Callable[[Item], Result], items: Iterable[Item]
    ) -> Generator[tuple[Item, Result], None, None]:
        """(item, result) as they are done; items are drawn as workers become free.

        An exception of the function is raised here. Raises `CupolaError` where a worker was ended from outside, and
        `ConfigError` where the function cannot be sent to another process.
        """
        payload = _pickled_function(function)
        self._workers = self._workers or [_Worker() for _ in range(self.count)]
        source = _Source(items)
        done: queue.Queue[Any] = queue.Queue(maxsize=2 * self.count)
        stop = threading.Event()
        running = self.count
        try:
            for worker in self._workers:
                threading.Thread(target=_feed, args=(worker, payload, source, done, stop), daemon=True).start()
            while running:
                entry = done.get()
                if entry is _END:
                    running -= 1
                elif isinstance(entry, BaseException):
                    raise entry
                else:
                    yield entry
        finally:
            if running:
                stop.set()
                self.close()


def _pickled_function(function: Callable[..., Any]) -> bytes:
    if getattr(function, "__module__", None) == "__main__":
        raise ConfigError(f"{function} is defined in the script itself; move it to a module or use one worker")
    try:
        return pickle.dumps(function, pickle.HIGHEST_PROTOCOL)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ConfigError(f"{function} cannot be sent to another process ({error}); use one worker") from error


class _Source:
    """Items for several threads."""

    def __init__(self, items: Iterable[Any]) -> None:
        self._items = iter(items)
        self._lock = threading.Lock()

    def next(self) -> Any:
        with self._lock:
            return next(self._items, _END)


class _Worker:
    """A worker process and the pipe to it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from cupola.engines.worker import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ
            | dict.fromkeys(ONE_THREAD, "1")
            | NO_BARS
            | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            start_new_session=True,
        )

    def begin(self, function: bytes) -> None:
        """Makes this the function of the following calls."""
        self._send(("function", sys.path, function))

    def _send(self, message: tuple[Any, ...]) -> None:
        assert self._process.stdin is not None
        pickle.dump(message, self._process.stdin, pickle.HIGHEST_PROTOCOL)
        self._process.stdin.flush()

    def call(self, item: Any) -> Any:
        """The result of one item, or the `Failure` that came instead. Raises `EOFError`, `BrokenPipeError` where the
        process has ended."""
        assert self._process.stdout is not None
        self._send(("item", pickle.dumps(item, pickle.HIGHEST_PROTOCOL)))
        return pickle.load(self._process.stdout)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except BrokenPipeError:
                continue

    def ending(self) -> str:
        """How the process ended and what to do about it."""
        code = self._process.wait()
        if code == -signal.SIGKILL:
            return "by the system, probably for lack of memory; run the same command again with fewer --workers"
        how = f"from outside by signal {-code}" if code < 0 else f"with exit code {code}"
        return f"{how}; run the same command again to go on"


def _feed(worker: _Worker, function: bytes, source: _Source, done: queue.Queue[Any], stop: threading.Event) -> None:
    """Passes items to one worker and its results on, until there are none left."""
    try:
        worker.begin(function)
        while not stop.is_set() and (item := source.next()) is not _END:
            result = worker.call(item)
            _put(done, result.exception() if isinstance(result, Failure) else (item, result), stop)
        _put(done, _END, stop)
    except (EOFError, BrokenPipeError, pickle.UnpicklingError):
        if not stop.is_set():
            _put(done, CupolaError(f"a worker process was ended {worker.ending()}"), stop)
    except Exception as error:  # an item that cannot be drawn or pickled: raised where map() is read
        _put(done, error, stop)


def _put(done: queue.Queue[Any], entry: Any, stop: threading.Event) -> None:
    """Waits for room in the queue, but not when nobody reads it any more."""
    while not stop.is_set():
        try:
            done.put(entry, timeout=0.2)
            return
        except queue.Full:
            continue
