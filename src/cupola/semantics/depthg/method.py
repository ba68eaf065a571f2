"""Pseudo classes by DepthG as a part of stage 1. torch is imported when the network is first read."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from jaxtyping import Bool, Float32

from cupola.config import plain
from cupola.errors import CheckpointError, StoreError
from cupola.io import content_hash, write_bytes
from cupola.semantics.crf import CrfSettings, dense_crf
from cupola.semantics.depthg.settings import DepthgSettings, Form, Window
from cupola.types import VOID, SemanticMap, StereoFrame

if TYPE_CHECKING:
    import torch

    from cupola.semantics.depthg.checkpoint import Depthg

MARK = "cupola depthg classes 1"
"""Of the file that a store keeps of these pseudo classes."""


@dataclass(frozen=True)
class DepthgSemantics(DepthgSettings):
    """The paper's pseudo classes: DINO features, DepthG's head and probe, two scales weighed by depth, dense CRF.

    Nothing is fitted on the data: the file of weights holds the classes.
    """

    name: ClassVar[str] = "depthg"
    may_differ: ClassVar[tuple[str, ...]] = ("batch", "device")

    def check(self, keys: Sequence[tuple[str, str]] = ()) -> None:
        """Loads the network. Raises `CheckpointError` or `ConfigError` where that cannot be done."""
        self.network()

    def hashes(self) -> dict[str, str]:
        """SHA-256 of the file of weights. Raises `CheckpointError` where it is missing."""
        _stamp(self.weights)
        return {"weights": content_hash(self.weights)}

    def choose(self, count: int) -> list[int]:
        """Which of `count` frames to fit on: none."""
        return []

    def describe(
        self, frame: StereoFrame, disparity: Float32[np.ndarray, "h w"], valid: Bool[np.ndarray, "h w"], seed: int
    ) -> None:
        """What fitting needs of a frame: nothing."""

    def fit_described(self, frames: Sequence[Any], seed: int) -> DepthgModel:
        """The pseudo classes of the weights. Raises `CheckpointError` where they are missing."""
        return DepthgModel(self, self.hashes()["weights"])

    def load(self, path: Path) -> DepthgModel:
        """What `DepthgModel.save` wrote, read with these settings. Raises `StoreError` where it is missing, damaged, or
        of other weights than these settings name."""
        try:
            with np.load(path, allow_pickle=False) as file:
                mark, digest, weights = (str(file[name]) for name in ("mark", "sha256", "weights"))
        except FileNotFoundError as error:
            raise StoreError(f"{path} does not exist; is {path.parent} a finished result?") from error
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise StoreError(f"{path} is damaged, or of other semantics than depthg; choose another --out") from error
        if mark != MARK:
            raise StoreError(f"{path} was written by another version of cupola; choose another --out")
        if self.hashes()["weights"] != digest:
            raise StoreError(
                f"{path} was made with other weights ({weights}, SHA-256 {digest[:8]}...) than "
                f"{self.weights} holds now, so its classes mean something else; give --semantics.weights that file, or "
                "choose another --out"
            )
        return DepthgModel(self, digest)

    def network(self) -> tuple[Depthg, torch.device]:
        """The network and where it computes. Raises `CheckpointError`, `ConfigError`."""
        return _loaded(self.weights, self.device, *_stamp(self.weights))


@dataclass(frozen=True)
class PublishedDepthgSemantics(DepthgSemantics):
    """The behaviour of the published code, with its defects."""

    name: ClassVar[str] = "depthg-published"
    window: Window = "square"
    form: Form = "published"


@dataclass(frozen=True)
class DepthgModel:
    """Pseudo classes of a file of weights; call it with a frame and its disparity. sha256: of that file."""

    settings: DepthgSemantics
    sha256: str

    @property
    def num_classes(self) -> int:
        """Pseudo classes, numbered as the probe's centres."""
        return self.settings.network()[0].probe.classes

    def __call__(
        self, frame: StereoFrame, disparity: Float32[np.ndarray, "h w"], valid: Bool[np.ndarray, "h w"]
    ) -> SemanticMap:
        """Pseudo class and class scores of every pixel of the left image, `VOID` where the frame is not valid.

        Raises `CheckpointError` where the weights can no longer be read, `ConfigError` where the published form is
        asked for an image that the network's cells do not fit into.
        """
        return self.together((), frame, disparity, valid)[0]

    def together(
        self,
        others: Sequence[DepthgModel],
        frame: StereoFrame,
        disparity: Float32[np.ndarray, "h w"],
        valid: Bool[np.ndarray, "h w"],
    ) -> list[SemanticMap]:
        """What this model and others of the same weights find, each pass of the network made once."""
        made: dict[Any, torch.Tensor] = {}
        return [model._found(frame, disparity, valid, made) for model in (self, *others)]

    def _found(
        self,
        frame: StereoFrame,
        disparity: Float32[np.ndarray, "h w"],
        valid: Bool[np.ndarray, "h w"],
        made: dict[Any, torch.Tensor],
    ) -> SemanticMap:
        from cupola.semantics.depthg.inference import crf_image, depth_weight, predict

        settings = self.settings
        network, device = settings.network()
        calibration = frame.calibration
        weight = depth_weight(disparity, valid, calibration.fx * calibration.baseline, settings.form)
        scores = predict(network, frame.left, weight, settings, made)
        if settings.crf:
            scores = dense_crf(crf_image(frame.left, settings.form), scores, CrfSettings(), str(device))
        classes = np.where(frame.valid, scores.argmax(0), VOID).astype(np.int16)
        return SemanticMap(classes, scores.astype(np.float16))

    def save(self, path: Path) -> None:
        """Writes which weights and settings these are, as npz (plain arrays, no pickle), atomically. Raises
        `DiskError`."""
        content = io.BytesIO()
        settings = json.dumps(plain(self.settings))
        np.savez(content, mark=MARK, weights=str(self.settings.weights), sha256=self.sha256, settings=settings)
        write_bytes(path, content.getvalue())


def _stamp(weights: Path) -> tuple[int, int]:
    """Size and time of change of the file: another one is read anew. Raises `CheckpointError` where it is missing."""
    try:
        about = weights.stat()
    except OSError as error:
        raise CheckpointError(
            f"there is no file of DepthG weights at {weights}; give --semantics.weights the path of depthg.ckpt "
            "(docs/weights.md says where it is published), or use --semantics offline, which needs none"
        ) from error
    return about.st_size, about.st_mtime_ns


@lru_cache(maxsize=1)
def _loaded(weights: Path, device: str, *_: int) -> tuple[Depthg, torch.device]:
    """Loaded once a process, since the frames come one by one."""
    from cupola.devices import pick_device
    from cupola.semantics.depthg.checkpoint import read_depthg

    where = pick_device(device)
    return read_depthg(weights).to(where), where
