"""Pictures of arrays: everything here takes arrays and gives an 8-bit RGB image of the same size."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Int32, Integer, UInt8

from cupola.taxonomy import Taxonomy
from cupola.types import VOID, PanopticMap

Color = tuple[int, int, int]

OPACITY = 0.55
"""Share of the class colour in an overlay; the rest is the image."""

SHADE = 45
"""Largest grey offset between instances of one class (spec-network 4.4 uses 60 at random; ours is fixed by the id)."""

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
    return tuple(taxonomy.colors[target] if target >= 0 else (128, 128, 128) for target in assignment)


def class_image(classes: Integer[np.ndarray, "h w"], colors: Sequence[Color]) -> UInt8[np.ndarray, "h w 3"]:
    """Each pixel in the colour of its class; `VOID` is black."""
    table = np.array([*colors, VOID_COLOR], np.uint8)
    return table[np.where(classes == VOID, len(colors), classes)]


def _boundaries(ids: Int32[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Pixels of an object next to a pixel of another object or of none."""
    edge = np.zeros(ids.shape, bool)
    across, down = ids[:, 1:] != ids[:, :-1], ids[1:] != ids[:-1]
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    edge[1:] |= down
    edge[:-1] |= down
    return edge & (ids > 0)


def panoptic_image(panoptic: PanopticMap, colors: Sequence[Color]) -> UInt8[np.ndarray, "h w 3"]:
    """Class colours, a shade an instance, instances outlined; `VOID` is black."""
    image = class_image(panoptic.classes, colors).astype(np.int32)
    # 83 is prime to 2 * SHADE + 1 = 91, so neighbouring ids get distant shades.
    shades = (panoptic.instances * 83) % (2 * SHADE + 1) - SHADE
    things = (panoptic.instances > 0) & (panoptic.classes != VOID)
    image[things] += shades[things][:, None]
    image[_boundaries(panoptic.instances)] = OUTLINE
    return np.clip(image, 0, 255).astype(np.uint8)


def blend(
    image: UInt8[np.ndarray, "h w 3"], colors: UInt8[np.ndarray, "h w 3"], where: Bool[np.ndarray, "h w"] | None = None
) -> UInt8[np.ndarray, "h w 3"]:
    """`colors` over `image`, only `where` told (everywhere by default)."""
    mixed = cv2.addWeighted(image, 1 - OPACITY, colors, OPACITY, 0)
    return mixed if where is None else np.where(where[..., None], mixed, image)


def panoptic_overlay(
    image: UInt8[np.ndarray, "h w 3"], panoptic: PanopticMap, colors: Sequence[Color]
) -> UInt8[np.ndarray, "h w 3"]:
    """The panoptic map over its image; void pixels show the image, darkened."""
    painted = blend(image, panoptic_image(panoptic, colors))
    painted[_boundaries(panoptic.instances)] = OUTLINE
    return painted


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
