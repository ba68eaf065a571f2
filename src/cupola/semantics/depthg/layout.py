"""Where the passes look: sizes of the two images, windows, and which pixels each of them decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from cupola.semantics.depthg.settings import DepthgSettings

Size = tuple[int, int]
"""Height and width [px]."""


@dataclass(frozen=True)
class Windows:
    """Parts of an image, all of one size [px]. corners: (y, x) of each, negative where the window begins in the
    padding; padding: rows above and below, columns left and right."""

    size: Size
    corners: tuple[tuple[int, int], ...]
    padding: Size = (0, 0)


def pass_size(size: Size, shorter: int, patch: int) -> Size:
    """The size of an image whose shorter side is resized to `shorter`, both sides rounded down to whole cells."""
    height, width = (side * shorter // min(size) // patch * patch for side in size)
    return max(height, patch), max(width, patch)


def low_size(size: Size, settings: DepthgSettings, patch: int) -> Size:
    """Of the low pass."""
    return (size[0] // 2, size[1] // 2) if settings.published else pass_size(size, settings.low, patch)


def high_size(size: Size, settings: DepthgSettings, patch: int) -> Size:
    """Of the high pass."""
    return size if settings.published else pass_size(size, settings.high, patch)


def windows(size: Size, settings: DepthgSettings, patch: int) -> Windows:
    """The windows of the high pass, row by row, each half over the next.

    size: of the high pass. Where they do not fill the image, the last one is moved back to the border; the published
    code instead pads with zeros, and on both sides as much as is missing in all (spec-stage1 S42).
    """
    whole = (min(size), min(size)) if settings.window == "square" else size
    window = (whole[0] // 2, whole[1] // 2)
    if not settings.published:
        window = (max(window[0] // patch, 1) * patch, max(window[1] // patch, 1) * patch)
        starts = [_aligned(*axis) for axis in zip(size, window, strict=True)]
        return Windows(window, tuple((y, x) for y in starts[0] for x in starts[1]))
    missing = [-(side - part) % (part // 2) for side, part in zip(size, window, strict=True)]
    starts = [
        list(range(-pad, side + pad - part + 1, part // 2))
        for side, part, pad in zip(size, window, missing, strict=True)
    ]
    return Windows(window, tuple((y, x) for y in starts[0] for x in starts[1]), (missing[0], missing[1]))


def _aligned(side: int, part: int) -> list[int]:
    starts = list(range(0, side - part + 1, part // 2))
    return starts if starts[-1] + part == side else [*starts, side - part]


@dataclass(frozen=True)
class Place:
    """A window in an image. image: its size [px]; scaled: to which it was resized for the pass; corner, extent: of the
    window in that (y, x) [px]."""

    image: Size
    scaled: Size
    corner: tuple[int, int]
    extent: Size

    @property
    def pixels(self) -> tuple[slice, slice]:
        """(rows, columns) of the image's pixels that the window decides: those whose centres it holds."""
        rows, columns = (pixels(*axis) for axis in zip(self.image, self.scaled, self.corner, self.extent, strict=True))
        return rows, columns

    def sampling(self, cells: Sequence[int]) -> tuple[Float32[np.ndarray, "y rows"], Float32[np.ndarray, "x columns"]]:
        """Weights, along either axis, that turn values of the window's cells into values of its pixels."""
        rows, columns = (
            sampling(chosen, count, scaled, corner, number, extent // number)
            for chosen, count, scaled, corner, number, extent in zip(
                self.pixels, self.image, self.scaled, self.corner, cells, self.extent, strict=True
            )
        )
        return rows, columns


def pixels(count: int, scaled: int, start: int, length: int) -> slice:
    """The pixels of an image whose centres lie in [start, start + length) of its scaled version, along one axis."""
    first, last = (
        -((scaled - 2 * end * count) // (2 * scaled)) for end in (start, start + length)
    )  # ceil(end * count / scaled - 1 / 2)
    return slice(max(first, 0), min(last, count))


def sampling(
    chosen: slice, count: int, scaled: int, start: int, cells: int, patch: int
) -> Float32[np.ndarray, "n cells"]:
    """Weights that turn values of cells into values of pixels, bilinearly, along one axis.

    chosen: pixels of an image of `count`, which was resized to `scaled`; the first of the cells begins at `start`
    of that. Pixels beyond the middle of an outer cell get its value.
    """
    centres = (np.arange(chosen.start, chosen.stop) + 0.5) * scaled / count - start
    place = np.clip(centres / patch - 0.5, 0, cells - 1)
    lower = np.minimum(place.astype(np.int64), max(cells - 2, 0))
    share = (place - lower).astype(np.float32)
    weights = np.zeros((len(place), cells), np.float32)
    number = np.arange(len(place))
    weights[number, lower] = 1 - share
    weights[number, np.minimum(lower + 1, cells - 1)] += share
    return weights
