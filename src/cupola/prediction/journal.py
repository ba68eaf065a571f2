"""What makes a prediction run resumable: `frames.jsonl` says which images and frames are done.

Its first line says what made it. The lines of a batch are added after all its files are written, so an image is either
completely there or not there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cupola.errors import DiskError, StoreError
from cupola.io import write_text
from cupola.io.coco_panoptic import Annotation
from cupola.types import Segment

FRAMES = "frames.jsonl"


@dataclass(frozen=True)
class Done:
    """A finished image. stamp: of the file it was read from, by which an image that has changed is found out."""

    annotation: Annotation
    stamp: str


@dataclass(frozen=True)
class VideoDone:
    """A video whose overlay is complete: its keys in order, its stamp, and what was wrong with it."""

    keys: tuple[str, ...]
    stamp: str
    complaint: str | None


def stamp_of(path: Path) -> str:
    """Size and time of a file, empty where there is none."""
    try:
        about = path.stat()
    except OSError:
        return ""
    return f"{about.st_size}-{about.st_mtime_ns}"


class Journal:
    """The images and videos that are done in a directory.

    run: what made them; opening a journal of another run raises `StoreError`.
    """

    def __init__(self, out: Path, run: Mapping[str, Any]) -> None:
        self.path = out / FRAMES
        self.images: dict[str, Done] = {}
        self.videos: dict[str, VideoDone] = {}
        lines = self._lines()
        if lines and lines[0].get("run") != dict(run):
            raise StoreError(
                f"{out} holds predictions of another network or by other settings; choose another --out, or delete it "
                "to begin anew"
            )
        for line in lines[1:]:
            if "video" in line:
                self.videos[line["video"]] = VideoDone(tuple(line["keys"]), line["stamp"], line["complaint"])
            else:
                self.images[line["key"]] = _from_line(line)
        # A line that a kill or a full disk cut off goes.
        write_text(self.path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines or [{"run": run}]))

    def _lines(self) -> list[dict[str, Any]]:
        try:
            text = self.path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StoreError(f"{self.path} cannot be read: {error.strerror}; choose another --out") from error
        lines = [_parsed(line) for line in text.splitlines()]
        return [line for line in lines if line is not None]

    def add_images(self, done: Sequence[Done]) -> None:
        """Adds a line for each. Raises `DiskError`."""
        self._append([_to_line(one) for one in done])
        self.images |= {one.annotation.key: one for one in done}

    def add_video(self, key: str, done: VideoDone) -> None:
        """Adds the line of a video whose frames and overlay are written. Raises `DiskError`."""
        self._append([{"video": key, "keys": done.keys, "stamp": done.stamp, "complaint": done.complaint}])
        self.videos[key] = done

    def _append(self, lines: Sequence[Mapping[str, Any]]) -> None:
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            raise DiskError(f"cannot write {self.path}: {reason}; free some space and run the command again") from error


def _parsed(line: str) -> dict[str, Any] | None:
    """A line; None for one that was cut off or is of something else."""
    try:
        content = json.loads(line)
        if "run" not in content and "video" not in content:
            _from_line(content)
    except (ValueError, KeyError, TypeError):
        return None
    return dict(content)


def _to_line(done: Done) -> dict[str, Any]:
    a = done.annotation
    segments = [[s.id, s.category, s.is_thing, s.area, s.score, s.box] for s in a.segments]
    about = {"key": a.key, "file": a.file_name, "image": a.image, "size": [a.height, a.width]}
    return about | {"stamp": done.stamp, "segments": segments}


def _from_line(line: Mapping[str, Any]) -> Done:
    height, width = line["size"]
    segments = tuple(
        Segment(number, category, is_thing, area, score, None if box is None else (box[0], box[1], box[2], box[3]))
        for number, category, is_thing, area, score, box in line["segments"]
    )
    return Done(Annotation(line["key"], line["file"], line["image"], height, width, segments), line["stamp"])
