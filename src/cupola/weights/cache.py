"""Where fetched weights lie, and the record beside each file of what was fetched."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from cupola.io import write_json
from cupola.weights.known import KnownFile

CACHE_VARIABLE = "CUPOLA_CACHE"
"""Environment variable that names another cache folder."""


@dataclass(frozen=True)
class Record:
    """What is known of a fetched file. sha256: of its content, as found; size: in bytes; validator: the server's mark
    of this version (ETag or date), None where it gave none."""

    url: str
    sha256: str
    size: int
    validator: str | None = None


def cache_folder() -> Path:
    """`$CUPOLA_CACHE`, else `cupola` in the user's cache folder (`$XDG_CACHE_HOME`, `~/.cache`)."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "cupola"


def weights_folder() -> Path:
    """Where `cupola weights get` puts files."""
    return cache_folder() / "weights"


def path_of(entry: KnownFile, folder: Path | None = None) -> Path:
    """Where the file of an entry lies once it is there."""
    return (weights_folder() if folder is None else folder) / entry.file


def record_path(path: Path) -> Path:
    """Of the record beside a file."""
    return path.with_name(f"{path.name}.json")


def read_record(path: Path) -> Record | None:
    """The record beside a file, None where there is none or it is no record."""
    try:
        return Record(**json.loads(record_path(path).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def write_record(path: Path, record: Record) -> None:
    """Writes the record beside a file. Raises `DiskError`."""
    write_json(record_path(path), asdict(record))
