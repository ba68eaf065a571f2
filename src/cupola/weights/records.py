"""What the commands on weights give back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cupola.weights.cache import Record
from cupola.weights.known import Kind, KnownFile


@dataclass(frozen=True)
class Listed:
    """A known file; path: where it lies, None where it was not fetched."""

    entry: KnownFile
    path: Path | None


@dataclass(frozen=True)
class Fetched:
    """A file that is here now."""

    entry: KnownFile
    path: Path
    record: Record


@dataclass(frozen=True)
class Verified:
    """A file or network that is whole. held_to: what its hash was compared with; content: what it holds."""

    path: Path
    sha256: str
    held_to: Literal["published", "recorded", "nothing"]
    content: str


@dataclass(frozen=True)
class Converted:
    """What `convert` wrote. kind: of the file; files: written; about: what was found, in words; ignored: tensors of the
    file that were of no use."""

    kind: Kind
    files: tuple[Path, ...]
    about: str
    ignored: tuple[str, ...] = ()
