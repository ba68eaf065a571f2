"""Files that appear complete or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from cupola.errors import DiskError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside `path`; when the block ends well it replaces `path` in one step.

    A kill, an error or a full disk leaves the earlier file (or none), never half a file. (Not synced to the platter: a
    sync a file made writing a street ten times slower, and guards against power loss only.) The temporary name keeps
    the suffix, for writers that look at it. Raises `DiskError` where the system refuses to write.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
    except OSError as error:
        raise DiskError(f"cannot write {path}: {error.strerror}; free some space or choose another --out") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise DiskError(f"cannot write {path}: {error.strerror}; free some space or choose another --out") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes `content` atomically. Raises `DiskError`."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_over(path: Path, pieces: Sequence[bytes | memoryview], *, lasting: bool = False) -> None:
    """Writes `pieces` one after the other over what a file holds, in place; it ends where they end. lasting: and waits
    until they are on the disk itself. Raises `DiskError`.

    Not atomic, but for a new file: for files that say themselves whether they are whole, and are written over and over.
    Their pages are in memory already, which makes this several times faster than a new file.
    """
    if not path.is_file():
        with atomic_path(path) as temporary:
            _write_pieces(temporary, pieces, lasting=lasting)
        return
    try:
        _write_pieces(path, pieces, lasting=lasting)
    except OSError as error:
        raise DiskError(f"cannot write {path}: {error.strerror}; free some space or choose another --out") from error


def _write_pieces(path: Path, pieces: Sequence[bytes | memoryview], *, lasting: bool) -> None:
    with path.open("r+b") as file:
        for piece in pieces:
            file.write(piece)
        file.truncate()
        if lasting:
            file.flush()
            os.fsync(file.fileno())


def write_text(path: Path, content: str) -> None:
    """Writes `content` as UTF-8, atomically. Raises `DiskError`."""
    write_bytes(path, content.encode())


def write_json(path: Path, content: Any) -> None:
    """Writes indented JSON with sorted keys, atomically. Raises `DiskError`."""
    write_text(path, json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def content_hash(path: Path) -> str:
    """SHA-256 of a file's content, read once a process for each version of the file. Raises `OSError`."""
    about = path.stat()
    return _content_hash(path, about.st_size, about.st_mtime_ns)


@lru_cache(maxsize=16)
def _content_hash(path: Path, *_: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
