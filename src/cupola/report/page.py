"""The page itself: typed blocks in, HTML out. Nothing is loaded from elsewhere; pictures are inside the file."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8
from jinja2 import Environment, select_autoescape

from cupola.io import write_text

JPEG_QUALITY = 88
"""Good enough for flat colours beside photographs, a fifth of the size of PNG."""


@dataclass(frozen=True)
class Table:
    """A table. rows: cells as text; the first column is a name, the others are right-aligned."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True)
class Figure:
    """One wide plot (uint8 H×W×3 RGB) with a caption, kept sharp (PNG)."""

    title: str
    image: UInt8[np.ndarray, "h w 3"]
    note: str = ""


@dataclass(frozen=True)
class Gallery:
    """Rows of pictures. rows: (caption, one uint8 H×W×3 RGB picture a column, or None where there is none)."""

    title: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[np.ndarray | None]]]
    note: str = ""
    legend: Sequence[tuple[str, tuple[int, int, int]]] = ()


@dataclass(frozen=True)
class Page:
    """A report: an opening sentence or two, blocks in reading order, and the facts that made the result."""

    title: str
    lead: str
    blocks: Sequence[Table | Figure | Gallery]
    facts: Mapping[str, str] = field(default_factory=dict)


def _jpeg(image: UInt8[np.ndarray, "h w 3"]) -> str:
    _, content = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(content.tobytes()).decode()


def _png(image: UInt8[np.ndarray, "h w 3"]) -> str:
    _, content = cv2.imencode(".png", image[..., ::-1])
    return "data:image/png;base64," + base64.b64encode(content.tobytes()).decode()


def write_page(path: Path, page: Page) -> None:
    """Writes the report as one HTML file, atomically. Raises `DiskError`."""
    environment = Environment(autoescape=select_autoescape(default=True), trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"jpeg": _jpeg, "png": _png}
    environment.filters["kind"] = lambda block: type(block).__name__
    template = (Path(__file__).parent / "page.html.j2").read_text(encoding="utf-8")
    write_text(path, environment.from_string(template).render(page=page))
