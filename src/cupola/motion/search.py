"""Near fast objects, which defeat the flow: searched for in space (findings-motion 4)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32, Float64, Int32

from cupola.correspondence.kernels import loop_error
from cupola.geometry.ego_motion import static_flow
from cupola.motion import kernels
from cupola.motion.cells import LOW
from cupola.motion.scene import SIGMA_FLOOR, SIGMA_SLOPE, Scene
from cupola.motion.views import DIFFERENCE_CAP, Views, difference

SIDEWAYS, FORWARD = 3.6, 4.0
"""Largest motion along the ground that is tried [m a frame] (findings-motion 4)."""

STEP_PIXELS, STEP_DISPARITY = 2.5, 0.8
"""Steps of the search, in the image and in disparity [px] (findings-motion 4)."""

SEARCH_PIXELS = 200
"""A segment is judged on this many of its pixels at most."""

SEGMENT_AREA = 0.5
"""Smaller segments are not searched for [m^2] (findings-motion 4)."""

MAX_SEGMENTS = 12
"""At most this many segments a frame, the largest ones [m^2] first."""

NEAREST, FARTHEST = 2.0, 45.0
"""Depths between which it is worth searching [m]: beyond, no road user moves by more than the flow follows."""

DISAGREEMENT = 0.75
"""Cost of a pixel whose disparity is not that of the place it goes to."""

BELOW_STATIC, BELOW_MEDIAN = 0.75, 0.8
"""A motion is accepted where its cost is below these shares of the static cost and of the median of all tried
(findings-motion 4)."""

BADLY_SEEN = 0.6
"""Mean normalised difference of first and second image at the flow's target above which the flow has failed: where an
object has no texture, stabilised DIS repeats the static hypothesis."""

AVERAGE = 9
"""Side of the box over which differences are averaged [px at KITTI size]."""

CLOSED = 1.5
"""Largest forward-backward error of the flow found with a motion's help [px] (findings-motion 4)."""

LINK_STEP, LINK_SHARE = 0.6, 0.03
"""Neighbours of one segment differ in disparity by at most this [px] and share."""


@dataclass(frozen=True)
class _Segment:
    ys: Int32[np.ndarray, "n"]
    xs: Int32[np.ndarray, "n"]
    disparity: float


def with_large_motions(scene: Scene, views: Views, rng: np.random.Generator) -> Scene:
    """The scene with flow where near fast objects had defeated it.

    Segments of pixels above the ground whose flow has failed are tried against all translations along the ground; where
    one explains image and disparity much better than standing still, DIS is run again on the second image warped by it,
    and what closes and is seen better is taken over.
    """
    flow, sigma = scene.flow.copy(), scene.flow_sigma.copy()
    static, _ = static_flow(scene.filled, scene.ego.transform, scene.calibration)
    static_difference = _averaged(difference(views, static), scene)
    found = False
    for segment in _segments(scene, views, static):
        velocity = _search(scene, views, segment, rng)
        if velocity is not None:
            found |= _take_over(scene, views, segment, velocity, static_difference, flow, sigma)
    return scene.with_flow(flow, sigma) if found else scene


def _averaged(values: Float32[np.ndarray, "a b"], scene: Scene) -> Float32[np.ndarray, "a b"]:
    """Box mean; unknown pixels count as badly seen."""
    side = scene.odd(AVERAGE)
    return np.asarray(cv2.boxFilter(np.nan_to_num(values, nan=DIFFERENCE_CAP), -1, (side, side)), np.float32)


def _segments(scene: Scene, views: Views, static: Float32[np.ndarray, "2 h w"]) -> list[_Segment]:
    height, width = scene.size
    badly_seen = _averaged(difference(views, scene.flow), scene) > BADLY_SEEN
    x, y = static[0] + np.arange(width), static[1] + np.arange(height)[:, None]
    with np.errstate(invalid="ignore"):
        in_view = (x >= 0) & (y >= 0) & (x <= width - 1) & (y <= height - 1)
        candidate = (scene.height > LOW) & (scene.depth > NEAREST) & (scene.depth < FARTHEST)
    candidate &= in_view & (badly_seen | ~np.isfinite(scene.flow[0]))
    labels, count = kernels.depth_segments(candidate, scene.disparity, LINK_STEP, LINK_SHARE)
    area = np.where(candidate, np.nan_to_num(scene.depth) ** 2, 0) / (scene.calibration.fx * scene.calibration.fy)
    areas = np.bincount(labels.ravel(), area.ravel(), count + 1)
    areas[0] = 0
    order = np.argsort(-areas, kind="stable")[:MAX_SEGMENTS]
    segments = []
    for label in order[areas[order] >= SEGMENT_AREA]:
        ys, xs = np.nonzero(labels == label)
        segments.append(_Segment(ys.astype(np.int32), xs.astype(np.int32), float(np.median(scene.disparity[ys, xs]))))
    return segments


def _search(
    scene: Scene,
    views: Views,
    segment: _Segment,
    rng: np.random.Generator,
) -> Float64[np.ndarray, "2"] | None:
    """The translation along the ground that explains a segment far better than standing still, if there is one."""
    chosen = np.sort(rng.permutation(len(segment.ys))[:SEARCH_PIXELS])
    ys, xs = segment.ys[chosen], segment.xs[chosen]
    depth = scene.depth_scale / segment.disparity

    def costs(tried: Float64[np.ndarray, "k 2"]) -> Float64[np.ndarray, "k"]:
        return np.asarray(
            kernels.search_costs(
                ys,
                xs,
                views.first,
                views.second,
                scene.disparity,
                scene.disparity_next,
                scene.motion(),
                scene.rig,
                tried @ scene.basis[:2],
                DIFFERENCE_CAP,
                DISAGREEMENT,
            )
        )

    step = STEP_PIXELS * depth / scene.calibration.fx
    sideways = step * np.arange(-int(SIDEWAYS / step), int(SIDEWAYS / step) + 1)
    nearest = max(depth - FORWARD, 0.5 * NEAREST)
    levels = np.arange(scene.depth_scale / (depth + FORWARD), scene.depth_scale / nearest, STEP_DISPARITY)
    forward = np.append(scene.depth_scale / levels - depth, 0.0)
    tried = np.stack(np.meshgrid(sideways, forward, indexing="ij"), -1).reshape(-1, 2)
    all_costs = costs(tried)
    best = tried[np.argmin(all_costs)]
    near = depth**2 / scene.depth_scale * STEP_DISPARITY
    fine = np.stack(np.meshgrid(np.linspace(-step, step, 7), np.linspace(-near, near, 5), indexing="ij"), -1).reshape(
        -1, 2
    )
    refined = costs(best + fine)
    cost = refined.min()
    static = costs(np.zeros((1, 2)))[0]
    if cost > BELOW_STATIC * static or cost > BELOW_MEDIAN * np.median(all_costs):
        return None
    return np.asarray(best + fine[np.argmin(refined)])


def _take_over(
    scene: Scene,
    views: Views,
    segment: _Segment,
    velocity: Float64[np.ndarray, "2"],
    static_difference: Float32[np.ndarray, "h w"],
    flow: Float32[np.ndarray, "2 h w"],
    sigma: Float32[np.ndarray, "h w"],
) -> bool:
    """Writes the flow that DIS finds around the segment once its motion is known; whether any was written."""
    height, width = scene.size
    margin = max(16, int(scene.calibration.fx * segment.disparity / scene.depth_scale))
    window = np.s_[
        max(0, int(segment.ys.min()) - margin) : min(height, int(segment.ys.max()) + margin + 1),
        max(0, int(segment.xs.min()) - margin) : min(width, int(segment.xs.max()) + margin + 1),
    ]
    transform = scene.ego.transform.copy()
    transform[:3] = scene.motion(velocity)
    prediction, _ = static_flow(scene.filled, transform, scene.calibration)
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    x = columns[window] + np.nan_to_num(prediction[0][window], nan=1e4)
    y = rows[window] + np.nan_to_num(prediction[1][window], nan=1e4)
    warped = cv2.remap(views.grey_next, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    reference = np.ascontiguousarray(views.grey[window])
    there, back = _dis(reference, warped), _dis(warped, reference)
    error = np.asarray(loop_error(there, back))
    # The prediction is smooth within the object, so it is read at the pixel itself.
    total = (there + prediction[:, window[0], window[1]]).astype(np.float32)
    candidate = np.full_like(flow, np.nan)
    candidate[:, window[0], window[1]] = total
    seen = _averaged(difference(views, candidate, window), scene)
    near = np.abs(scene.disparity[window] - segment.disparity) < 2.0 + 0.25 * segment.disparity
    with np.errstate(invalid="ignore"):
        good = (error < CLOSED) & (seen < BELOW_STATIC * static_difference[window]) & near
        good &= scene.height[window] > LOW
    flow[:, window[0], window[1]][:, good] = total[:, good]
    sigma[window][good] = SIGMA_FLOOR + SIGMA_SLOPE * error[good]
    return bool(good.any())


def _dis(first: np.ndarray, second: np.ndarray) -> Float32[np.ndarray, "2 a b"]:
    matcher = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    matcher.setFinestScale(1 if min(first.shape) > 64 else 0)
    flow = matcher.calc(first, second, None)  # type: ignore[call-overload]  # the stub knows no None
    return np.ascontiguousarray(np.moveaxis(flow, -1, 0))
