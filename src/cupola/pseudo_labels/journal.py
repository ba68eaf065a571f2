"""What makes stage 1 resumable: the manifest says what a store is of, frames.jsonl which of its frames are done.

A line is appended after both images of a frame are written, so a frame is either completely there or not there.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from cupola.errors import DiskError, StoreError
from cupola.io import write_json, write_text
from cupola.pseudo_labels.statistics import ClassStatistics, PartStatistics

FORMAT = 2
"""Version of the store's own files."""

MANIFEST, FRAMES, TIMINGS, LOCK = "manifest.json", "frames.jsonl", "timings.jsonl", ".lock"


@dataclass(frozen=True)
class FrameDone:
    """A finished frame. scores: of the instances 1, 2, ..; extents: their width and height [m]; aligned, raw: class
    counts with and without alignment; parts: counts of finer classes; sizes: of the frame's files [bytes], by which a
    file cut short is found out."""

    key: str
    scores: tuple[float, ...]
    extents: Float32[np.ndarray, "n 2"]
    aligned: ClassStatistics
    raw: ClassStatistics
    parts: PartStatistics
    sizes: Mapping[str, int]


@dataclass(frozen=True)
class FrameFailed:
    """A frame without a label, and why; the next run tries it again."""

    key: str
    reason: str


def _to_line(entry: FrameDone | FrameFailed) -> str:
    if isinstance(entry, FrameFailed):
        return json.dumps({"key": entry.key, "failed": entry.reason}, ensure_ascii=False)
    content: dict[str, Any] = {"key": entry.key, "scores": [round(score, 4) for score in entry.scores]}
    content["extents"] = [[round(x, 3) if np.isfinite(x) else None for x in row] for row in entry.extents.tolist()]
    content["sizes"] = dict(entry.sizes)
    counts = {"aligned": counts_to_json(entry.aligned), "raw": counts_to_json(entry.raw)}
    return json.dumps(content | counts | {"parts": parts_to_json(entry.parts)})


def _from_line(line: str) -> FrameDone | FrameFailed:
    content = json.loads(line)
    if "failed" in content:
        return FrameFailed(content["key"], content["failed"])
    return FrameDone(
        content["key"],
        tuple(content["scores"]),
        np.array(content["extents"], np.float32).reshape(-1, 2),
        counts_from_json(content["aligned"]),
        counts_from_json(content["raw"]),
        parts_from_json(content["parts"]),
        content["sizes"],
    )


def counts_to_json(counts: ClassStatistics) -> dict[str, list[int]]:
    """Counts as lists of integers."""
    return {name: getattr(counts, name).tolist() for name in ("inside", "total", "masks")}


def counts_from_json(content: Mapping[str, Any]) -> ClassStatistics:
    """The inverse of `counts_to_json`. Raises `KeyError` where one is missing."""
    return ClassStatistics(*(np.array(content[name], np.int64) for name in ("inside", "total", "masks")))


def parts_to_json(parts: PartStatistics) -> dict[str, list[int]]:
    """Counts as lists of integers."""
    return {"inside": parts.inside.tolist(), "total": parts.total.tolist()}


def parts_from_json(content: Mapping[str, Any]) -> PartStatistics:
    """The inverse of `parts_to_json`. Raises `KeyError` where one is missing."""
    return PartStatistics(np.array(content["inside"], np.int64), np.array(content["total"], np.int64))


def read_frames(out: Path) -> dict[str, FrameDone | FrameFailed]:
    """The last entry of every key. A line that cannot be read (a run killed while writing it) counts as not written."""
    path = out / FRAMES
    entries: dict[str, FrameDone | FrameFailed] = {}
    if not path.exists():
        return entries
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = _from_line(line)
        except (ValueError, KeyError, TypeError):
            continue
        entries[entry.key] = entry
    return entries


def write_frames(out: Path, entries: Sequence[FrameDone | FrameFailed]) -> None:
    """Writes frames.jsonl anew, atomically: what is resumed from, or the finished list in order. Raises `DiskError`."""
    write_text(out / FRAMES, "".join(f"{_to_line(entry)}\n" for entry in entries))


def append_frame(out: Path, entry: FrameDone | FrameFailed) -> None:
    """Appends a line and waits until it is on disk. Raises `DiskError`."""
    append_line(out / FRAMES, _to_line(entry))


def append_frames(out: Path, entries: Sequence[FrameDone | FrameFailed]) -> None:
    """Appends a line each and waits once until all are on disk. Raises `DiskError`."""
    if entries:
        append_line(out / FRAMES, "\n".join(_to_line(entry) for entry in entries))


def append_line(path: Path, line: str) -> None:
    """Appends a line to a text file and waits until it is on disk. Raises `DiskError`."""
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise DiskError(f"cannot write {path}: {error.strerror}; free some space and run the same command again") from (
            error
        )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a store. Raises `StoreError` where it is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StoreError(f"{path} does not exist; is {path.parent} a finished label store?") from error
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read ({error}); make the labels again in another --out") from error
    if not isinstance(content, dict):
        raise StoreError(f"{path} is not a file of a label store; make the labels again in another --out")
    return content


def begin(out: Path, manifest: Mapping[str, Any], free: Collection[str] = ()) -> None:
    """Makes the manifest of a new store, or checks that the run belongs to the one that is there.

    free: settings by dotted name that may differ from those that are there. Raises `StoreError` naming the first
    setting that differs, or where the directory holds something else.
    """
    path = out / MANIFEST
    if not path.exists():
        foreign = [entry.name for entry in out.iterdir() if entry.name not in (LOCK, "config.yaml")]
        if foreign:
            raise StoreError(f"{out} holds {foreign[0]} but no label store; choose another --out")
        write_json(path, {"format": FORMAT, **manifest})
        return
    there = read_json(path)
    if there.get("format") != FORMAT:
        raise StoreError(f"{out} is in store format {there.get('format')}, not {FORMAT}; choose another --out")
    difference = _difference(there.get("run", {}), json.loads(json.dumps(manifest["run"])), free)
    if difference:
        name, old, new = difference
        raise StoreError(f"{out} was made with {name} = {old}, not {new}; choose another --out or the old {name}")
    if there.get("keys") != list(manifest["keys"]):
        raise StoreError(
            f"{out} is of {len(there.get('keys', []))} frames that are not the {len(manifest['keys'])} that the data "
            "now holds; choose another --out"
        )


def _difference(old: Any, new: Any, free: Collection[str], name: str = "") -> tuple[str, Any, Any] | None:
    """The first place where two nested settings differ that may not: its dotted name and both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            found = _difference(old.get(key), new.get(key), free, f"{name}.{key}" if name else key)
            if found:
                return found
        return None
    return None if old == new or name in free else (name, old, new)


@contextmanager
def sole_writer(out: Path) -> Iterator[None]:
    """Holds the store for this process; the system lets go of it however the process ends.

    Raises `StoreError` where another process holds it and `DiskError` where the directory cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        file = (out / LOCK).open("w")
    except OSError as error:
        raise DiskError(f"cannot write in {out}: {error.strerror}; choose another --out") from error
    with file:
        if sys.platform != "win32":
            import fcntl

            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StoreError(f"another run is writing to {out}; wait for it or choose another --out") from error
        yield


def remove_temporary(folder: Path) -> None:
    """Removes what a killed writer left unfinished (`cupola.io.atomic_path`)."""
    for path in folder.glob(".*"):
        if path.is_file() and path.name != LOCK:
            path.unlink(missing_ok=True)
