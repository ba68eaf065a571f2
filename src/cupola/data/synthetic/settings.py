"""Settings of the street, and the truth that belongs to a frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int16, Int32

from cupola.errors import ConfigError
from cupola.types import Calibration, PanopticMap


@dataclass(frozen=True)
class StreetSettings:
    """How the street is filmed and how busy it is.

    Args:
        focal: focal length as a share of the image width.
        baseline: distance between the two cameras [m].
        camera_height: camera above the road [m].
        interval: time between frames [s].
        noise: standard deviation of the sensor noise [grey levels].
        traffic: share of the usual number of moving cars and cyclists.
        people: share of the usual number of people.
        parked: share of the parking places that are taken.
        moving_shift: an object moves if it shifts by at least this between a frame and the next [m].
    """

    focal: float = 0.7
    baseline: float = 0.6
    camera_height: float = 1.5
    interval: float = 0.1
    noise: float = 2.5
    traffic: float = 1.0
    people: float = 1.0
    parked: float = 0.5
    moving_shift: float = 0.05

    def __post_init__(self) -> None:
        positive = ("focal", "baseline", "camera_height", "interval", "moving_shift")
        for name in positive:
            if not getattr(self, name) > 0:
                raise ConfigError(f"the street's {name} must be positive, but is {getattr(self, name)}")
        for name in ("noise", "traffic", "people", "parked"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"the street's {name} must not be negative, but is {getattr(self, name)}")

    def calibration(self, height: int, width: int) -> Calibration:
        """The rig at this image size [px]; square pixels, the principal point in the middle."""
        focal = self.focal * width
        return Calibration(focal, focal, (width - 1) / 2, (height - 1) / 2, self.baseline)


@dataclass(frozen=True)
class StreetTruth:
    """Exact truth of the left image of a frame.

    disparity [px], 0 in the sky; depth along the optical axis [m], inf in the sky; flow (x, y) to the next left image
    [px]: the motion of the visible surface point, NaN where it passes behind the camera; classes: Cityscapes label ids;
    instances: label id * 1000 + n for things, 0 for stuff; moving: visible instances that move to the next frame;
    moving_mask: their pixels.
    """

    disparity: Float32[np.ndarray, "h w"]
    depth: Float32[np.ndarray, "h w"]
    flow: Float32[np.ndarray, "2 h w"]
    instances: Int32[np.ndarray, "h w"]
    classes: Int16[np.ndarray, "h w"]
    moving: frozenset[int]

    @property
    def moving_mask(self) -> Bool[np.ndarray, "h w"]:
        """Pixels of the moving instances."""
        return np.isin(self.instances, list(self.moving))

    def instance_ids(self) -> Int32[np.ndarray, "h w"]:
        """The Cityscapes encoding: instance id of things, label id of stuff."""
        return np.where(self.instances > 0, self.instances, self.classes.astype(np.int32))

    def panoptic(self) -> PanopticMap:
        """Classes are Cityscapes label ids."""
        return PanopticMap(self.classes, self.instances)
