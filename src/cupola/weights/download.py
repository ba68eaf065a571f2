"""Fetching a file over HTTP so that a cut connection costs only what was not there yet.

What has come so far lies in `<file>.part`, with the server's mark of its version in `<file>.part.json`. A later call
asks for the rest on the condition that the mark is still the same (`If-Range`); a server that has another version, or
cannot send parts, sends the whole file, and it begins anew. The file appears under its name only when it is complete
and its hash is right.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import json
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any

from cupola import __version__
from cupola.errors import ConfigError, DiskError, DownloadError
from cupola.io import content_hash, write_json
from cupola.progress import byte_progress
from cupola.weights.cache import Record, read_record, write_record

CHUNK = 1 << 20
"""Bytes read at a time."""

TIMEOUT = 30.0
"""Without a byte for so long, a connection counts as cut [s]."""

ATTEMPTS = 5
"""Connections in a row that bring nothing before it is given up."""

PAUSE = 1.0
"""Before the second attempt; doubled for each further one [s]."""

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EFBIG)
"""Troubles of our own file, not of the connection."""

SPARE = 16 << 20
"""Free space that a download leaves on the disk [bytes]."""


@dataclass(frozen=True)
class _Progress:
    """What `.part` holds: bytes of the version with this mark."""

    validator: str | None = None
    size: int = 0


class _BrokenError(Exception):
    """The connection ended early; the message says how."""


def download(url: str, path: Path, *, sha256: str | None = None) -> Record:
    """Fetches `url` to `path`, or finishes what an earlier call began. Returns what is there, also recorded beside it.

    sha256: what the content must be, None = take what comes and record its hash. A file that is already there is only
    compared: with `sha256`, or with the hash recorded when it came.

    Raises `DownloadError` where the address cannot be reached, is refused, or brings another content, `DiskError`
    where the disk is full or cannot be written, `ConfigError` for an address that is none.
    """
    if not url.startswith(("https://", "http://")):
        raise ConfigError(f"{url} is no web address (https://...)")
    if path.exists():
        return _present(url, path, sha256)
    part = path.with_name(f"{path.name}.part")
    with _disk(path), _alone(part):
        if path.exists():  # another process has just finished it
            return _present(url, path, sha256)
        record = _whole(url, part, path, sha256)
        write_record(path, record)
        part.replace(path)
        _discard(part)
    return record


def _whole(url: str, part: Path, path: Path, sha256: str | None) -> Record:
    """Fills `.part` with the right content; one that was joined from two connections and is wrong is fetched anew."""
    while True:
        validator, joined = _fetch(url, part, path)
        record = Record(url, _hash(part), part.stat().st_size, validator)
        if sha256 is None or record.sha256 == sha256:
            return record
        _discard(part)
        if not joined:
            raise DownloadError(
                f"what {url} sent is not the known {path.name}: its SHA-256 is {record.sha256}, not {sha256}; it was "
                "thrown away, so try again, or see the publisher's page"
            )


def _present(url: str, path: Path, sha256: str | None) -> Record:
    before = read_record(path)
    expected = sha256 or (before.sha256 if before else None)
    found = content_hash(path)
    if expected is not None and found != expected:
        raise DownloadError(
            f"{path} is not what was published or fetched: its SHA-256 is {found}, not {expected}; delete it and run "
            "the command again"
        )
    if before is not None:
        return before
    record = Record(url, found, path.stat().st_size)  # put there by hand
    write_record(path, record)
    return record


def _fetch(url: str, part: Path, path: Path) -> tuple[str | None, bool]:
    """Fills `.part`. Returns the server's mark, and whether any of it was joined to an earlier beginning."""
    joined, answered, idle = False, False, 0
    while True:
        before = _so_far(part)
        joined = joined or before.size > 0
        try:
            return _once(url, part, before), joined
        except urllib.error.HTTPError as error:
            if _is_complete(error, before):
                return before.validator, joined
            _require_worth_another(url, path, part, error)
            trouble: Exception = error
        except (_BrokenError, OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno in DISK_ERRORS:
                raise
            if not answered and isinstance(error, urllib.error.URLError):
                raise _unreachable(url, path, part, error) from error
            trouble = error
        answered = True
        idle = 0 if _so_far(part).size > before.size else idle + 1
        if idle >= ATTEMPTS:
            raise _unreachable(url, path, part, trouble) from trouble
        time.sleep(PAUSE * 2**idle if idle else 0)


def _once(url: str, part: Path, before: _Progress) -> str | None:
    """One connection: appends to `.part`, or begins it anew where the server does not send the rest."""
    headers = {"User-Agent": f"cupola/{__version__}", "Accept-Encoding": "identity"}
    if before.size and before.validator:
        headers |= {"Range": f"bytes={before.size}-", "If-Range": before.validator}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT) as answer:
        validator, total = _validator(answer.headers), _length(answer.headers)
        start = 0
        if answer.status == http.HTTPStatus.PARTIAL_CONTENT:
            start, total = _range(answer.headers)
            if start != before.size:
                raise _BrokenError(f"the server sent the part from byte {start} on, not from {before.size}")
            validator = before.validator
        _require_space(part, None if total is None else total - start)
        write_json(_about(part), {"validator": validator})
        with part.open("r+b" if part.exists() else "wb") as file:
            file.seek(start)
            file.truncate()
            with byte_progress(part.stem, total, start) as bar:
                for chunk in iter(lambda: answer.read(CHUNK), b""):
                    file.write(chunk)
                    bar.update(len(chunk))
            size = file.tell()
    if total is not None and size != total:
        raise _BrokenError(f"the connection ended after {size} of {total} bytes")
    return validator


def _validator(headers: Message) -> str | None:
    """The strong ETag, else the date: what `If-Range` may carry."""
    tag = headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified")


def _length(headers: Message) -> int | None:
    text = headers.get("Content-Length", "")
    return int(text) if text.isdigit() else None


def _range(headers: Message) -> tuple[int, int | None]:
    """(first byte, size of the whole file) of `Content-Range: bytes 5-9/10`."""
    unit, _, rest = headers.get("Content-Range", "").partition(" ")
    span, _, total = rest.partition("/")
    first = span.partition("-")[0]
    if unit != "bytes" or not first.isdigit():
        raise _BrokenError("the server sent a part and does not say which")
    return int(first), int(total) if total.isdigit() else None


def _so_far(part: Path) -> _Progress:
    """What can be gone on with; without a mark a beginning is worth nothing."""
    try:
        validator: Any = json.loads(_about(part).read_text(encoding="utf-8"))["validator"]
        return _Progress(str(validator), part.stat().st_size) if validator else _Progress()
    except (OSError, ValueError, KeyError, TypeError):
        return _Progress()


def _about(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _about(part).unlink(missing_ok=True)


def _hash(part: Path) -> str:
    with part.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _require_space(part: Path, wanted: int | None) -> None:
    """Raises `DiskError` before the first byte where the rest cannot fit."""
    free = shutil.disk_usage(part.parent).free
    if wanted is not None and wanted + SPARE > free:
        raise DiskError(
            f"{part.parent} has {free / 1e6:.0f} MB left, and {wanted / 1e6:.0f} MB are to come; free some space or "
            "choose another folder with --out"
        )


def _is_complete(error: urllib.error.HTTPError, before: _Progress) -> bool:
    """Whether the server says that there is nothing after what has come: `Content-Range: bytes */10`."""
    whole = error.headers.get("Content-Range", "").rpartition("/")[2]
    return error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and whole == str(before.size)


def _require_worth_another(url: str, path: Path, part: Path, error: urllib.error.HTTPError) -> None:
    """Raises `DownloadError` for a refusal that another attempt will not change."""
    if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        _discard(part)
    elif error.code < http.HTTPStatus.INTERNAL_SERVER_ERROR and error.code != http.HTTPStatus.TOO_MANY_REQUESTS:
        raise DownloadError(
            f"{url} is refused ({error.code} {error.reason}); fetch it by way of its page (`cupola weights list`) and "
            f"put it at {path}"
        ) from error


def _unreachable(url: str, path: Path, part: Path, error: Exception) -> DownloadError:
    why = getattr(error, "reason", None) or error
    size = _so_far(part).size
    kept = f"; {size / 1e6:.0f} MB are kept, and the same command goes on from there" if size else ""
    return DownloadError(
        f"{url} cannot be reached from this machine ({why}){kept}; fetch it on another machine and put it at {path}"
    )


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    """Makes the folder; errors of writing become `DiskError`. What has come so far stays."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise DiskError(
            f"cannot write {path}: {error.strerror or error}; free some space or choose another folder with --out"
        ) from error


@contextmanager
def _alone(part: Path) -> Iterator[None]:
    """Keeps a second process from writing the same `.part`. Raises `DownloadError` where one does."""
    with part.open("ab") as file:
        if sys.platform != "win32":
            import fcntl

            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise DownloadError(f"another process is fetching {part.stem}; wait for it") from error
        try:
            yield
        finally:
            if part.exists() and not part.stat().st_size:
                _discard(part)
