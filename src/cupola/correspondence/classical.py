"""Flow and disparity without weights: SGBM both ways, and DIS flow stabilised by the camera's own motion.

findings-motion 1: on static KITTI points the stabilised flow has an end-point error of 1.3 px where plain DIS has 6.6.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8

from cupola.correspondence import kernels
from cupola.geometry.disparity import fill_disparity
from cupola.geometry.ego_motion import estimate_ego_motion, static_flow
from cupola.types import Calibration, Correspondence, StereoClip, StereoFrame

SUBPIXEL = 16
"""SGBM gives disparity in sixteenths of a pixel."""

MIN_DISPARITY = 0.5
"""Smaller values are infinitely far or guessed [px] (findings-features 1)."""

MAX_DISPARITY_SHARE = 0.25
"""No disparity above this share of the image width is searched."""

DIS_WIDTH = 620
"""The final DIS pass ends at about this width [px]: scale 1 at KITTI size (findings-motion 1), scale 0 below."""


@dataclass(frozen=True)
class ClassicalCorrespondence:
    """Flow and disparity without weights.

    Args:
        block: side of the SGBM block [px].
        min_depth: nearest depth that is searched [m].
        left_right: largest difference of the mirrored pass [px].
        speckle: smaller islands of disparity are dropped [share of the image].
        loop: a flow is known where forward and backward flow close within loop + loop_share * length [px].
        loop_share: see loop.
        seed: of the ego-motion's draws.
    """

    block: int = 5
    min_depth: float = 3.1
    left_right: float = 1.5
    speckle: float = 3.2e-4
    loop: float = 1.5
    loop_share: float = 0.05
    seed: int = 0

    name: ClassVar[str] = "classical"

    def __call__(self, clip: StereoClip) -> Correspondence:
        """Flow both ways and both disparities of a clip (findings-motion 1).

        A flow is unknown where the way there and back does not close or leaves the image, a disparity where the two
        SGBM passes disagree; both also where the frame says that it does not show the scene.
        """
        first, second = clip.first, clip.second
        disparity, disparity_valid = self.disparity(first)
        disparity_next, disparity_next_valid = self.disparity(second)
        forward, backward = self._flows(clip, disparity, disparity_valid, disparity_next, disparity_next_valid)
        valid = self._closed(forward, backward) & first.valid
        backward_valid = self._closed(backward, forward) & second.valid
        forward[:, ~valid] = np.nan
        backward[:, ~backward_valid] = np.nan
        return Correspondence(
            forward, backward, disparity, disparity_next, valid, disparity_valid, disparity_next_valid
        )

    def disparity(self, frame: StereoFrame) -> tuple[Float32[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
        """Disparity of the left image [px], NaN where unknown, and where it is known."""
        levels = disparity_levels(frame.calibration, frame.size[1], self.min_depth)
        left, right = _grey(frame.left), _grey(frame.right)
        disparity = self._one_way(left, right, levels)
        mirrored = self._one_way(right[:, ::-1], left[:, ::-1], levels)[:, ::-1]
        valid = (kernels.mirrored_error(disparity, np.ascontiguousarray(mirrored)) < self.left_right) & frame.valid
        disparity[~valid] = np.nan
        return disparity, valid

    def _one_way(self, left: np.ndarray, right: np.ndarray, levels: int) -> Float32[np.ndarray, "h w"]:
        """SGBM disparity of the first image, NaN = unknown. The border is padded, so that the strip of `levels` columns
        at the left is matched too."""
        matcher = cv2.StereoSGBM.create(
            minDisparity=0,
            numDisparities=levels,
            blockSize=self.block,
            P1=8 * self.block**2,
            P2=32 * self.block**2,
            mode=cv2.STEREO_SGBM_MODE_SGBM_3WAY,
        )
        padded = [cv2.copyMakeBorder(image, 0, 0, levels, 0, cv2.BORDER_REPLICATE) for image in (left, right)]
        raw = matcher.compute(padded[0], padded[1])
        smallest = round(self.speckle * left.size)
        cv2.filterSpeckles(raw, -SUBPIXEL, smallest, SUBPIXEL)
        disparity = raw[:, levels:].astype(np.float32) / SUBPIXEL
        disparity[disparity < MIN_DISPARITY] = np.nan
        return np.ascontiguousarray(disparity)

    def _flows(
        self,
        clip: StereoClip,
        disparity: Float32[np.ndarray, "h w"],
        disparity_valid: Bool[np.ndarray, "h w"],
        disparity_next: Float32[np.ndarray, "h w"],
        disparity_next_valid: Bool[np.ndarray, "h w"],
    ) -> tuple[Float32[np.ndarray, "2 h w"], Float32[np.ndarray, "2 h w"]]:
        """Flow first to second and back, without gaps. Without a trustworthy ego-motion it is plain DIS."""
        first, second = _grey(clip.first.left), _grey(clip.second.left)
        rough = _dis(first, second, finest=None)
        rng = np.random.default_rng([self.seed, zlib.crc32(clip.key.encode())])
        inside = _stays_inside(rough) & clip.first.valid
        ego = estimate_ego_motion(rough, inside, disparity, disparity_valid, clip.calibration, rng)
        if ego is None:
            return rough, _dis(second, first, finest=None)
        there = _stabilised(first, second, disparity, disparity_valid, ego.transform, clip.calibration)
        back = _stabilised(
            second, first, disparity_next, disparity_next_valid, np.linalg.inv(ego.transform), clip.calibration
        )
        return there, back

    def _closed(self, flow: Float32[np.ndarray, "2 h w"], back: Float32[np.ndarray, "2 h w"]) -> np.ndarray:
        length = np.hypot(flow[0], flow[1])
        return np.asarray(kernels.loop_error(flow, back) < self.loop + self.loop_share * length)


def disparity_levels(calibration: Calibration, width: int, min_depth: float) -> int:
    """Number of disparities to search [px, multiple of 16]: what `min_depth` [m] asks for, within the image."""
    wanted = calibration.fx * calibration.baseline / min_depth
    most = max(16, int(MAX_DISPARITY_SHARE * width) // 16 * 16)
    return min(max(16, math.ceil(wanted / 16) * 16), most)


def _grey(image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w"]:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))


def _dis(first: np.ndarray, second: np.ndarray, finest: int | None) -> Float32[np.ndarray, "2 h w"]:
    """DIS flow (preset fast), down to scale `finest` (None: the preset's)."""
    matcher = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    if finest is not None:
        matcher.setFinestScale(finest)
    flow = matcher.calc(first, second, None)  # type: ignore[call-overload]  # the stub knows no None
    return np.ascontiguousarray(np.moveaxis(flow, -1, 0))


def _stays_inside(flow: Float32[np.ndarray, "2 h w"]) -> Bool[np.ndarray, "h w"]:
    height, width = flow.shape[1:]
    x, y = flow[0] + np.arange(width), flow[1] + np.arange(height)[:, None]
    return np.asarray((x >= 0) & (y >= 0) & (x <= width - 1) & (y <= height - 1))


def _stabilised(
    first: np.ndarray,
    second: np.ndarray,
    disparity: np.ndarray,
    valid: np.ndarray,
    transform: np.ndarray,
    calibration: Calibration,
) -> Float32[np.ndarray, "2 h w"]:
    """DIS on what is left of the motion once the second image is warped by the static flow (findings-motion 1)."""
    height, width = disparity.shape
    filled = fill_disparity(disparity, valid)
    prediction, _ = static_flow(filled, transform, calibration)
    prediction = np.nan_to_num(np.clip(prediction, -width, width))
    x, y = (
        prediction[0] + np.arange(width, dtype=np.float32),
        prediction[1] + np.arange(height, dtype=np.float32)[:, None],
    )
    warped = cv2.remap(second, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    finest = max(0, round(math.log2(width / DIS_WIDTH)))
    return np.asarray(kernels.compose(_dis(first, warped, finest), prediction))
