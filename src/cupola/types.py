"""The types that pass between rooms: frozen dataclasses of arrays, checked when they are made.

Images are H×W, pixel x to the right and y down, pixel centres at integer coordinates. Lengths are metres; disparity and
flow are pixels of the image at hand. An unknown pixel is ``valid = False`` and NaN, never an invented value.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float16, Float32, Float64, Int16, Int32, UInt8

from cupola.errors import CalibrationError

VOID = -1
"""Class of a pixel without a known class (ignore)."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True)
class Calibration:
    """A rectified stereo rig at the size of its images.

    fx, fy: focal lengths [px]; cx, cy: principal point of the left camera [px, centres at integers];
    baseline: distance from the left to the right camera [m]. Raises `CalibrationError` unless fx, fy and baseline are
    positive and all are finite.
    """

    fx: float
    fy: float
    cx: float
    cy: float
    baseline: float

    def __post_init__(self) -> None:
        if not all(np.isfinite([self.fx, self.fy, self.cx, self.cy, self.baseline])):
            raise CalibrationError(f"the calibration holds a value that is not finite: {self}")
        if self.fx <= 0 or self.fy <= 0:
            raise CalibrationError(f"the focal lengths must be positive, but fx = {self.fx}, fy = {self.fy}")
        if self.baseline <= 0:
            raise CalibrationError(
                f"the baseline must be positive, but is {self.baseline} m; are the left and right images exchanged?"
            )

    def cropped(self, x: float, y: float) -> Calibration:
        """The calibration of the part of the image that starts at column x, row y [px]."""
        return replace(self, cx=self.cx - x, cy=self.cy - y)

    def resized(self, scale_x: float, scale_y: float) -> Calibration:
        """The calibration after a resize by these factors (half-pixel rule, spec-stage1 1.5)."""
        return replace(
            self,
            fx=self.fx * scale_x,
            fy=self.fy * scale_y,
            cx=(self.cx + 0.5) * scale_x - 0.5,
            cy=(self.cy + 0.5) * scale_y - 0.5,
        )

    def matrix(self) -> Float64[np.ndarray, "3 3"]:
        """The pinhole matrix K [px]."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]], np.float64)


@dataclass(frozen=True)
class StereoFrame:
    """One rectified stereo pair. valid: pixels of the left image that show the scene (not ego vehicle, not border);
    key: unique name within the data set, usable as a file name; time: seconds, if known."""

    left: UInt8[np.ndarray, "h w 3"]
    right: UInt8[np.ndarray, "h w 3"]
    calibration: Calibration
    valid: Bool[np.ndarray, "h w"]
    key: str
    time: float | None = None

    def __post_init__(self) -> None:
        _require(self.left.shape == self.right.shape, f"{self.key}: left and right image differ in size")
        _require(self.valid.shape == self.left.shape[:2], f"{self.key}: valid differs from the image in size")

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) [px]."""
        return self.left.shape[0], self.left.shape[1]


@dataclass(frozen=True)
class StereoClip:
    """Two consecutive stereo frames; labels made from it belong to the first."""

    first: StereoFrame
    second: StereoFrame

    def __post_init__(self) -> None:
        _require(self.first.size == self.second.size, f"{self.first.key}: the two frames of a clip differ in size")

    @property
    def key(self) -> str:
        return self.first.key

    @property
    def calibration(self) -> Calibration:
        return self.first.calibration


@dataclass(frozen=True)
class Correspondence:
    """Where the pixels of a clip go. flow: first left to second left image, channels (x, y) [px]; flow_backward: the
    reverse, on the second image's grid; disparity, disparity_next: positive [px], on the left grids. Unknown: NaN.
    noise: of flow x, flow y and disparity [px], where the provider measures it (`geometry.noise_scale`)."""

    flow: Float32[np.ndarray, "2 h w"]
    flow_backward: Float32[np.ndarray, "2 h w"]
    disparity: Float32[np.ndarray, "h w"]
    disparity_next: Float32[np.ndarray, "h w"]
    flow_valid: Bool[np.ndarray, "h w"]
    disparity_valid: Bool[np.ndarray, "h w"]
    disparity_next_valid: Bool[np.ndarray, "h w"]
    noise: Float64[np.ndarray, "3"] | None = None


@dataclass(frozen=True)
class Instances:
    """Objects as masks. scores in [0, 1]; motions: T with P(t+1) = T P(t) in the camera frame [m], if known."""

    masks: Bool[np.ndarray, "n h w"]
    scores: Float32[np.ndarray, "n"]
    motions: Float64[np.ndarray, "n 4 4"] | None = None

    def __post_init__(self) -> None:
        _require(len(self.masks) == len(self.scores), "masks and scores differ in number")
        _require(self.motions is None or len(self.motions) == len(self.masks), "masks and motions differ in number")

    def __len__(self) -> int:
        return len(self.masks)

    def id_map(self) -> Int32[np.ndarray, "h w"]:
        """0 = no object, i + 1 = object i; where masks overlap, the better score wins."""
        ids = np.zeros(self.masks.shape[1:], np.int32)
        for i in np.argsort(self.scores, kind="stable"):
            ids[self.masks[i]] = i + 1
        return ids

    @staticmethod
    def empty(height: int, width: int) -> Instances:
        """No object in an image of this size [px]."""
        return Instances(np.zeros((0, height, width), bool), np.zeros(0, np.float32), np.zeros((0, 4, 4)))


@dataclass(frozen=True)
class SemanticMap:
    """Class of every pixel, `VOID` = unknown; scores: per class and pixel, kept only on request; parts: finer classes,
    each within one class, where the method has them."""

    classes: Int16[np.ndarray, "h w"]
    scores: Float16[np.ndarray, "k h w"] | None = None
    parts: Int16[np.ndarray, "h w"] | None = None


@dataclass(frozen=True)
class PanopticMap:
    """Class and instance of every pixel: class `VOID` = ignore; instance 0 = stuff or none, positive = objects, whose
    ids are unique in the image (also across classes)."""

    classes: Int16[np.ndarray, "h w"]
    instances: Int32[np.ndarray, "h w"]

    def __post_init__(self) -> None:
        _require(self.classes.shape == self.instances.shape, "classes and instances differ in size")

    def stacked(self) -> Int32[np.ndarray, "h w 2"]:
        """(class, instance) as one array, the form that `cupola.evaluation` takes."""
        return np.stack([self.classes.astype(np.int32), self.instances], -1)


@dataclass(frozen=True)
class Segment:
    """One segment of a panoptic map. id: value in the id map, 1..; category: class id; score in [0, 1] for things, None
    for stuff; area [px]; box: x, y, width, height [px] of the smallest rectangle around it, where somebody asked;
    is_crowd: several things that are not told apart."""

    id: int
    category: int
    is_thing: bool
    area: int
    score: float | None = None
    box: tuple[int, int, int, int] | None = None
    is_crowd: bool = False
