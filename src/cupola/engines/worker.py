"""What a worker process of `cupola.engines.Processes` runs: read an item, call the function, write the result.

Pickles here come from the parent process alone, through a pipe that nobody else holds.
"""

from __future__ import annotations

import os
import pickle
import sys
import traceback
from dataclasses import dataclass
from typing import IO


@dataclass(frozen=True)
class Failure:
    """An exception of the function. error: the exception itself where it can be pickled; text: its traceback."""

    error: Exception | None
    text: str

    def exception(self) -> Exception:
        """The exception, with the worker's traceback as a note."""
        error = self.error or RuntimeError("a worker process failed")
        error.add_note(f"in a worker process:\n{self.text}")
        return error


def _failure(error: Exception) -> Failure:
    text = traceback.format_exc()
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever an exception's own pickling may raise
        return Failure(None, text)
    return Failure(error, text)


def serve(source: IO[bytes], sink: IO[bytes]) -> None:
    """Answers until the input ends. A message is ("function", module path, pickled function) or ("item", pickled item);
    what is inside is unpickled apart, so that an error there is an answer too."""
    content, function = b"", None
    try:
        while True:
            message = pickle.load(source)
            if message[0] == "function":
                _, sys.path[:], content = message
                function = None
                continue
            try:
                function = function or pickle.loads(content)
                answer = pickle.dumps(function(pickle.loads(message[1])), pickle.HIGHEST_PROTOCOL)
            except Exception as error:  # passed on whole: the parent raises it
                answer = pickle.dumps(_failure(error), pickle.HIGHEST_PROTOCOL)
            sink.write(answer)
            sink.flush()
    except (EOFError, BrokenPipeError):
        return


def main() -> None:
    """Keeps the pipe for results to itself: whatever prints goes to stderr."""
    sink = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    import cv2

    cv2.setNumThreads(1)
    serve(sys.stdin.buffer, sink)
