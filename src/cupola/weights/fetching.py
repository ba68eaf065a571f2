"""A known file, fetched."""

from __future__ import annotations

from pathlib import Path

from cupola.errors import DownloadError
from cupola.weights.cache import Record, path_of
from cupola.weights.download import download
from cupola.weights.known import KnownFile


def fetch(entry: KnownFile, folder: Path | None = None) -> tuple[Path, Record]:
    """Where the file is, and its record; fetched where it is missing. folder: another than the cache.

    Raises `DownloadError` where it cannot be had, `DiskError` where it cannot be written.
    """
    path = path_of(entry, folder)
    if entry.url is None and not path.exists():
        raise DownloadError(
            f"{entry.name} has no address that a program can fetch; get {entry.file} by way of {entry.page} and put it "
            f"at {path}"
        )
    return path, download(entry.url or entry.page, path, sha256=entry.sha256)
