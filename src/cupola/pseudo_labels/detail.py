"""How small things are kept in small images: motion is looked for in enlarged ones, and outlines follow the image.

Ours. The patches in which flow, disparity and motion are found have a fixed size, so in a small image they cover whole
people. At 192x384 enlarging by half and drawing outlines anew took the moving things that are marked from 33 % to 49 %
(benchmarks/outlines.py --seed 7: 124 and 183 of 377; 0.15 and 0.40 s of processor time a pair).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Bool

from cupola.errors import ConfigError
from cupola.motion.outlines import outlined
from cupola.types import Instances, StereoClip, StereoFrame


@dataclass(frozen=True)
class DetailSettings:
    """How small moving things are kept; the published method does neither.

    Args:
        rows: images of fewer rows are enlarged to so many for flow, disparity and motion; 0 = none is. Fields from
            files are never enlarged.
        outlines: draw the outlines of moving objects anew along the image's edges.
    """

    rows: int = 288
    outlines: bool = True

    def __post_init__(self) -> None:
        if self.rows < 0:
            raise ConfigError(f"detail.rows must be 0 (never enlarge) or more, not {self.rows}")

    def enlarged(self, clip: StereoClip) -> StereoClip:
        """The clip with at least `rows` rows, width and calibration in proportion; itself where it has as many."""
        height, width = clip.first.size
        if height >= self.rows:
            return clip
        size = self.rows, round(width * self.rows / height)
        return StereoClip(_resized(clip.first, size), _resized(clip.second, size))

    def finished(self, instances: Instances, frame: StereoFrame) -> Instances:
        """Objects found in an enlarged clip (or in the clip itself) at the size of `frame`, with their outlines; those
        of which no pixel is left are dropped."""
        masks = _shrunk(instances.masks, frame.size)
        if self.outlines:
            masks = outlined(frame.left, masks)
        kept = masks.any((1, 2))
        motions = None if instances.motions is None else instances.motions[kept]
        return Instances(masks[kept], instances.scores[kept], motions)


AS_FOUND = DetailSettings(rows=0, outlines=False)
"""Motion is looked for in the images as they are and masks are kept as they were found: the published method."""


def _resized(frame: StereoFrame, size: tuple[int, int]) -> StereoFrame:
    """The frame at `size` = (height, width) [px]."""
    (height, width), (rows, columns) = frame.size, size
    left, right = (
        cv2.resize(image, (columns, rows), interpolation=cv2.INTER_CUBIC) for image in (frame.left, frame.right)
    )
    valid = cv2.resize(frame.valid.view(np.uint8), (columns, rows), interpolation=cv2.INTER_NEAREST).astype(bool)
    calibration = frame.calibration.resized(columns / width, rows / height)
    return replace(frame, left=left, right=right, valid=valid, calibration=calibration)


def _shrunk(masks: Bool[np.ndarray, "n a b"], size: tuple[int, int]) -> Bool[np.ndarray, "n h w"]:
    """Masks at `size` = (height, width) [px], by the nearest pixel."""
    rows, columns = (
        ((np.arange(length) + 0.5) * of / length).astype(np.intp)
        for length, of in zip(size, masks.shape[1:], strict=True)
    )
    return masks[:, rows[:, None], columns]
