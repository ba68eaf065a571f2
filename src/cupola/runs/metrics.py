"""`metrics.jsonl`: what a run measured in each step."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from cupola.errors import DiskError
from cupola.io import write_bytes

METRICS = "metrics.jsonl"


class Metrics:
    """`metrics.jsonl`, or another file of a line a step. Opened to go on after `step`, it first drops the lines after
    it."""

    def __init__(self, out: Path, step: int, name: str = METRICS) -> None:
        self.path = out / name
        lines = [line for line in self._lines() if _step(line) is not None and (_step(line) or 0) <= step]
        write_bytes(self.path, "".join(line + "\n" for line in lines).encode())

    def _lines(self) -> list[str]:
        try:
            return self.path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []

    def write(self, step: int, **values: float) -> None:
        """Adds the line of a step. Raises `DiskError`."""
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **values}) + "\n")
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            raise DiskError(f"cannot write {self.path}: {reason}; free some space and run the command again") from error


def _step(line: str) -> int | None:
    """The step that a line is about; None for one that a kill cut off."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return None


def read_metrics(out: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, without a last one that is cut off."""
    text = (out / METRICS).read_text(encoding="utf-8") if (out / METRICS).is_file() else ""
    return [json.loads(line) for line in text.splitlines() if _step(line) is not None]
