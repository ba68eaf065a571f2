"""Where a run tells what it measures: `metrics.jsonl` always, TensorBoard or Weights & Biases where asked for."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol

import numpy as np
from jaxtyping import UInt8

from cupola.errors import ConfigError
from cupola.runs.metrics import Metrics

Log = Literal["none", "tensorboard", "wandb"]

PROJECT = "cupola"
"""Project under which Weights & Biases files runs."""


class _Writer(Protocol):
    def scalars(self, step: int, values: dict[str, float]) -> None: ...
    def picture(self, step: int, name: str, image: UInt8[np.ndarray, "h w 3"]) -> None: ...
    def close(self) -> None: ...


class TensorboardWriter:
    """Event files in out/tensorboard; those of steps that a stop lost are purged."""

    def __init__(self, out: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(out / "tensorboard"), purge_step=step + 1)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """A curve a name."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def picture(self, step: int, name: str, image: UInt8[np.ndarray, "h w 3"]) -> None:
        """An RGB image."""
        self._writer.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        """Writes what is left."""
        self._writer.close()


class WandbWriter:
    """A run in out/wandb, told to nobody unless the environment says so (WANDB_MODE, by default `offline`)."""

    def __init__(self, out: Path, step: int) -> None:
        import wandb

        self._wandb: Any = wandb
        mode = os.environ.get("WANDB_MODE", "offline")
        self._run: Any = wandb.init(project=PROJECT, name=out.name, dir=str(out), mode=mode, config={"first": step + 1})

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """A curve a name."""
        self._run.log(values, step=step)

    def picture(self, step: int, name: str, image: UInt8[np.ndarray, "h w 3"]) -> None:
        """An RGB image."""
        self._run.log({name: self._wandb.Image(image)}, step=step)

    def close(self) -> None:
        """Ends the run."""
        self._run.finish()


def require_log(log: Log) -> None:
    """Raises `ConfigError` where the package of a log is not installed."""
    from importlib.util import find_spec

    if log != "none" and find_spec(log) is None:
        raise ConfigError(f"--log {log} needs the package {log}: run `pip install 'cupola[{log}]'`, or leave --log out")


class Recorder:
    """Writes what a run measures; opened to go on after `step`, lines of later steps are dropped. A context manager."""

    def __init__(self, out: Path, step: int, log: Log = "none") -> None:
        self._metrics = Metrics(out, step)
        self._writer: _Writer | None = None
        if log != "none":
            self._writer = TensorboardWriter(out, step) if log == "tensorboard" else WandbWriter(out, step)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()

    def step(self, step: int, values: dict[str, float]) -> None:
        """What was measured in a step. Raises `DiskError`."""
        self._metrics.write(step, **values)
        self.scalars(step, values)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Values that do not belong into metrics.jsonl, for the log alone."""
        if self._writer is not None:
            self._writer.scalars(step, values)

    def picture(self, step: int, name: str, image: UInt8[np.ndarray, "h w 3"]) -> None:
        """An RGB image, for the log alone."""
        if self._writer is not None:
            self._writer.picture(step, name, image)
