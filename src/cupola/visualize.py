"""Pictures of arrays: everything here takes arrays and gives an 8-bit RGB image of the same size, except for
`with_legend`, which makes it taller."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Int32, Integer, UInt8

from cupola.taxonomy import Taxonomy
from cupola.types import VOID, PanopticMap

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

Color = tuple[int, int, int]

OPACITY = 0.4
"""Share of the class colour in an overlay; the rest is the image (spec-network 4.4)."""

SHADE = 60
"""Largest grey offset of an instance from the colour of its class (spec-network 4.4, at random there)."""

OUTLINE_SHARE = 3 / 1024
"""Width of outlines as a share of the image's height (spec-network 4.4), at least a pixel."""

TEXT_SHARE = 28 / 1024
"""Height of the legend's letters as a share of the image's height."""

LEAST_TEXT = 12
"""Smaller letters cannot be read [px]."""

LEGEND_PAPER: Color = (255, 255, 255)
LEGEND_INK: Color = (28, 36, 48)
UNNAMED_COLOR: Color = (128, 128, 128)
"""Colour of a pseudo class that stands for no true class."""

VOID_COLOR: Color = (0, 0, 0)
OUTLINE: Color = (255, 255, 255)
UNKNOWN_GREY = 40
"""Grey of pixels whose flow or disparity is unknown."""


def class_palette(count: int) -> tuple[Color, ...]:
    """`count` colours that are easy to tell apart: hues a golden angle apart, in three levels of lightness."""
    golden = 0.618033988749895
    hues = (np.arange(count) * golden + 0.58) % 1.0
    lightness = np.array([150, 205, 95])[np.arange(count) % 3]
    hls = np.stack([hues * 180, lightness, np.full(count, 150)], -1).astype(np.uint8)
    if count == 0:
        return ()
    rgb = cv2.cvtColor(hls[None], cv2.COLOR_HLS2RGB)[0]
    return tuple((int(r), int(g), int(b)) for r, g, b in rgb)


def matched_palette(assignment: Sequence[int], taxonomy: Taxonomy) -> tuple[Color, ...]:
    """Colours of pseudo classes by the true class each was matched to; unmatched (negative) ones are grey."""
    return tuple(taxonomy.colors[target] if target >= 0 else UNNAMED_COLOR for target in assignment)


def class_image(classes: Integer[np.ndarray, "h w"], colors: Sequence[Color]) -> UInt8[np.ndarray, "h w 3"]:
    """Each pixel in the colour of its class; `VOID` is black."""
    table = np.array([*colors, VOID_COLOR], np.uint8)
    return table[np.where(classes == VOID, len(colors), classes)]


def _boundaries(ids: Int32[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Pixels of an object near one of another object or of none, in a band whose width follows the image's height."""
    edge = np.zeros(ids.shape, np.uint8)
    across, down = ids[:, 1:] != ids[:, :-1], ids[1:] != ids[:-1]
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    edge[1:] |= down
    edge[:-1] |= down
    width = round(OUTLINE_SHARE * len(ids))
    if width > 1:
        edge[:] = cv2.dilate(edge, np.ones((2 * width - 1, 2 * width - 1), np.uint8))
    return (edge > 0) & (ids > 0)


def _shades(count: int) -> Int32[np.ndarray, "{count}"]:
    """Grey offset of the instances 0..count-1, and 0 for instance 0, which is none: steps of a third of the range, so
    that neighbours differ clearly. 83 and 121 share no divisor, so every offset comes before one repeats."""
    offsets = np.arange(count, dtype=np.int64) * 83 % (2 * SHADE + 1) - SHADE
    offsets[:1] = 0
    return offsets.astype(np.int32)


def _painted(panoptic: PanopticMap, colors: Sequence[Color]) -> UInt8[np.ndarray, "h w 3"]:
    """Class colours, a shade an instance; `VOID` is black. Through a table of all instances, as images may be large."""
    classes = np.where(panoptic.classes == VOID, len(colors), panoptic.classes).astype(np.int32)
    instances = np.where(panoptic.classes == VOID, 0, panoptic.instances)
    class_of = np.zeros(int(instances.max(initial=0)) + 1, np.int32)
    class_of[instances.ravel()] = classes.ravel()
    base = np.array([*colors, VOID_COLOR], np.int32)
    shaded = np.clip(base[class_of] + _shades(len(class_of))[:, None], 0, 255)
    table = np.concatenate([base, shaded]).astype(np.uint8)
    return table[np.where(instances > 0, instances + len(base), classes)]


def panoptic_image(panoptic: PanopticMap, colors: Sequence[Color]) -> UInt8[np.ndarray, "h w 3"]:
    """Class colours, a shade an instance, instances outlined; `VOID` is black."""
    image = _painted(panoptic, colors)
    image[_boundaries(panoptic.instances)] = OUTLINE
    return image


def blend(
    image: UInt8[np.ndarray, "h w 3"], colors: UInt8[np.ndarray, "h w 3"], where: Bool[np.ndarray, "h w"] | None = None
) -> UInt8[np.ndarray, "h w 3"]:
    """`colors` over `image`, only `where` told (everywhere by default)."""
    mixed = cv2.addWeighted(image, 1 - OPACITY, colors, OPACITY, 0)
    return mixed if where is None else np.where(where[..., None], mixed, image)


def panoptic_overlay(
    image: UInt8[np.ndarray, "h w 3"], panoptic: PanopticMap, colors: Sequence[Color]
) -> UInt8[np.ndarray, "h w 3"]:
    """The panoptic map over its image (spec-network 4.4), instances outlined; void pixels show the image, darkened."""
    painted = blend(image, _painted(panoptic, colors))
    painted[_boundaries(panoptic.instances)] = OUTLINE
    return painted


@cache
def _font(size: int) -> FreeTypeFont:
    """The letters that matplotlib brings along, so that they are the same everywhere; size [px]."""
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"), size)


def _rows(widths: Sequence[int], limit: int) -> list[list[int]]:
    """Numbers of the entries of each row, in order, so that no row is wider than `limit` where its entries allow it."""
    rows: list[list[int]] = []
    used = 0
    for number, width in enumerate(widths):
        if not rows or used + width > limit:
            rows.append([])
            used = 0
        rows[-1].append(number)
        used += width
    return rows


def with_legend(
    image: UInt8[np.ndarray, "h w 3"], entries: Sequence[tuple[str, Color]]
) -> UInt8[np.ndarray, "_height _width 3"]:
    """The image with a strip below that names colours, its letters sized by the image's height.

    An image too narrow for the longest name gets a margin at the right. Without entries it stays as it is.
    """
    from PIL import Image, ImageDraw

    if not entries:
        return image
    height, width = image.shape[:2]
    # A tall, narrow image would have no room for letters that follow its height alone.
    size = max(LEAST_TEXT, round(TEXT_SHARE * min(height, width)))
    font, pad = _font(size), size // 2
    ascent, descent = font.getmetrics()
    widths = [pad + size + pad + round(font.getlength(name)) + pad for name, _ in entries]
    rows = _rows(widths, width - pad)
    line = ascent + descent + pad // 2
    strip = Image.new("RGB", (max(width, *(w + pad for w in widths)), len(rows) * line + pad), LEGEND_PAPER)
    draw = ImageDraw.Draw(strip)
    for row, numbers in enumerate(rows):
        x, y = pad, pad // 2 + row * line
        for number in numbers:
            name, color = entries[number]
            top = y + (ascent + descent - size) // 2
            draw.rectangle((x, top, x + size - 1, top + size - 1), fill=color, outline=LEGEND_INK)
            draw.text((x + size + pad, y), name, fill=LEGEND_INK, font=font)
            x += widths[number]
    canvas = np.full((height, strip.width, 3), LEGEND_PAPER, np.uint8)
    canvas[:, :width] = image
    return np.concatenate([canvas, np.asarray(strip)])


def instance_overlay(image: UInt8[np.ndarray, "h w 3"], ids: Int32[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """Objects (ids 1..) in colours of their own over a grey image."""
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    colors = class_palette(int(ids.max(initial=0)) + 1)
    painted = blend(grey, class_image(ids.astype(np.int32), colors), ids > 0)
    painted[_boundaries(ids)] = OUTLINE
    return painted


def flow_image(
    flow: Float32[np.ndarray, "2 h w"], valid: Bool[np.ndarray, "h w"], limit: float | None = None
) -> UInt8[np.ndarray, "h w 3"]:
    """Direction as hue, length as brightness, full at `limit` [px] (default: 98th percentile); unknown: dark grey."""
    x, y = np.where(valid, flow, 0)
    length, angle = np.hypot(x, y), np.arctan2(y, x)
    if limit is None:
        limit = max(float(np.percentile(length[valid], 98)) if valid.any() else 1.0, 1e-3)
    hsv = np.stack(
        [(angle + np.pi) / (2 * np.pi) * 179, np.full_like(length, 220), np.clip(length / limit, 0, 1) * 215 + 40], -1
    )
    image = cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB)
    image[~valid] = UNKNOWN_GREY
    return image


def disparity_image(
    disparity: Float32[np.ndarray, "h w"], valid: Bool[np.ndarray, "h w"]
) -> UInt8[np.ndarray, "h w 3"]:
    """Near is warm, far is cold, on a square-root scale up to the 98th percentile; unknown: dark grey."""
    known = np.where(valid, np.maximum(disparity, 0), 0)
    limit = max(float(np.percentile(known[valid], 98)) if valid.any() else 1.0, 1e-3)
    scaled = np.sqrt(np.clip(known / limit, 0, 1)) * 255
    image = cv2.applyColorMap(scaled.astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1].copy()
    image[~valid] = UNKNOWN_GREY
    return image
