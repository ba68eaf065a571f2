"""Parts of stage 1 that remember on disk what they found, so that rows which share a part compute it once.

Each wraps another part and gives exactly what that gives: arrays are written as they are.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32

from cupola.correspondence import CorrespondenceProvider, NeedsFiles
from cupola.io import atomic_path
from cupola.motion import MotionSegmenter
from cupola.semantics import SemanticMethod, SemanticModel
from cupola.types import Correspondence, Instances, SemanticMap, StereoClip, StereoFrame

Found = TypeVar("Found")

Disparity = Float32[np.ndarray, "h w"]
Known = Bool[np.ndarray, "h w"]


@dataclass(frozen=True)
class _Disparity:
    disparity: np.ndarray
    valid: np.ndarray


def kept(path: Path, kind: type[Found], find: Callable[[], Found], *, compress: bool = False) -> Found:
    """The dataclass of arrays in the file, or what `find` gives, which is then written. A damaged file is replaced.
    Raises `DiskError` where it cannot be written."""
    there = _read(path)
    if there is not None:
        return kind(**there)
    found = find()
    _write(path, found, compress)
    return found


def _write(path: Path, found: Any, compress: bool = True) -> None:
    values = {field.name: getattr(found, field.name) for field in fields(found)}
    with atomic_path(path) as temporary:
        write = np.savez_compressed if compress else np.savez
        write(temporary, **{name: value for name, value in values.items() if value is not None})


def _read(path: Path, *names: str) -> dict[str, np.ndarray] | None:
    """These arrays of an npz file, or all; None where there is no such file or it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in names or file.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _name(frame: StereoFrame) -> str:
    """Of what was found in the frame at its size."""
    return f"{frame.key}_{frame.size[0]}x{frame.size[1]}.npz"


@dataclass(frozen=True)
class KeptCorrespondence:
    """Flow and disparity of `inner`, in `folder`, of images of each size: 24 bytes and 3 flags a pixel."""

    inner: CorrespondenceProvider
    folder: Path

    def check(self, keys: Sequence[tuple[str, str]] = ()) -> None:
        """As that of `inner`, where it has one."""
        check(self.inner, keys)

    def _clip(self, frame: StereoFrame) -> Path:
        return self.folder / "clips" / _name(frame)

    def __call__(self, clip: StereoClip) -> Correspondence:
        """Flow both ways and the disparity of both frames."""
        return kept(self._clip(clip.first), Correspondence, lambda: self.inner(clip))

    def disparity(self, frame: StereoFrame) -> tuple[Disparity, Known]:
        """Disparity of the left image [px] and where it is known."""
        there = _read(self._clip(frame), "disparity", "disparity_valid")
        if there is not None:
            return there["disparity"], there["disparity_valid"]
        path = self.folder / "disparity" / _name(frame)
        found = kept(path, _Disparity, lambda: _Disparity(*self.inner.disparity(frame)))
        return found.disparity, found.valid


@dataclass(frozen=True)
class KeptMotion:
    """Moving objects of `inner`, in `folder`, which belongs to one way of finding the correspondence, in images of each
    size."""

    inner: MotionSegmenter
    folder: Path

    def check(self, keys: Sequence[tuple[str, str]] = ()) -> None:
        """As that of `inner`, where it has one."""
        check(self.inner, keys)

    def __call__(self, clip: StereoClip, correspondence: Correspondence, seed: int) -> Instances:
        """Objects on the clip's first frame."""
        path = self.folder / _name(clip.first)
        return kept(path, Instances, lambda: self.inner(clip, correspondence, seed), compress=True)


@dataclass(frozen=True)
class KeptSemantics:
    """Pseudo classes of `inner`, in `folder`, which belongs to one way of finding the correspondence.

    sharing: others that fit nothing and can share the work on a frame with `inner`: what they find of it is written
    with what `inner` finds.
    """

    inner: SemanticMethod
    folder: Path
    sharing: tuple[KeptSemantics, ...] = ()

    @property
    def _model(self) -> Path:
        return self.folder / "model.npz"

    def check(self, keys: Sequence[tuple[str, str]] = ()) -> None:
        """As that of `inner`, where it has one."""
        check(self.inner, keys)

    def choose(self, count: int) -> list[int]:
        """Which of `count` frames to fit on: none where a model is kept."""
        return [] if self._model.exists() else self.inner.choose(count)

    def describe(self, frame: StereoFrame, disparity: Disparity, valid: Known, seed: int) -> Any:
        """What fitting needs of one frame."""
        return self.inner.describe(frame, disparity, valid, seed)

    def fit_described(self, frames: Sequence[Any], seed: int) -> KeptModel:
        """The model of described frames, or the one that is kept."""
        if self._model.exists():
            return self.load(self._model)
        model = self.inner.fit_described(frames, seed)
        model.save(self._model)
        return self._kept(model)

    def load(self, path: Path) -> KeptModel:
        """Reads what a model of `inner` has saved. Raises `StoreError`."""
        return self._kept(self.inner.load(path))

    def _kept(self, model: SemanticModel) -> KeptModel:
        return KeptModel(model, self.folder, tuple(other.fit_described((), 0) for other in self.sharing))


@runtime_checkable
class SharesWork(Protocol):
    """A model that looks at a frame once for several models."""

    def together(
        self, others: Sequence[Any], frame: StereoFrame, disparity: Disparity, valid: Known
    ) -> list[SemanticMap]:
        """What it and the others find."""
        ...


@dataclass(frozen=True)
class KeptModel:
    """Pseudo classes whose maps are kept in `folder`; sharing: see `KeptSemantics`."""

    inner: SemanticModel
    folder: Path
    sharing: tuple[KeptModel, ...] = ()

    @property
    def num_classes(self) -> int:
        """Pseudo classes are 0 .. num_classes - 1."""
        return self.inner.num_classes

    def __call__(self, frame: StereoFrame, disparity: Disparity, valid: Known) -> SemanticMap:
        """Class of every pixel and, where there are finer ones, its part; no scores."""

        def find() -> SemanticMap:
            others = [other for other in self.sharing if not other._map(frame.key).exists()]
            if not others or not isinstance(self.inner, SharesWork):
                return _without_scores(self.inner(frame, disparity, valid))
            found, *more = self.inner.together([other.inner for other in others], frame, disparity, valid)
            for other, one in zip(others, more, strict=True):
                _write(other._map(frame.key), _without_scores(one))
            return _without_scores(found)

        return kept(self._map(frame.key), SemanticMap, find, compress=True)

    def _map(self, key: str) -> Path:
        return self.folder / "maps" / f"{key}.npz"

    def save(self, path: Path) -> None:
        """Writes the model as `inner` does."""
        self.inner.save(path)


def _without_scores(found: SemanticMap) -> SemanticMap:
    return SemanticMap(found.classes, parts=found.parts)


def check(part: Any, keys: Sequence[tuple[str, str]]) -> None:
    """Lets a part that needs files look for them. Raises the `CupolaError` that it would meet."""
    if isinstance(part, NeedsFiles):
        part.check(keys)
