"""Dense fields from any source, checked against each other: what does not close is unknown (spec-stage1 2.1, 2.4)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32, Float64

from cupola.geometry import consistent_disparity, consistent_flow, noise_scale, warp_bilinear
from cupola.types import Correspondence, StereoClip

Flow = Float32[np.ndarray, "2 h w"]
Disparity = Float32[np.ndarray, "h w"]
Seen = Bool[np.ndarray, "h w"]

UNKNOWN = np.float32(np.nan)


def checked_disparity(left: Disparity, right: Disparity | None, seen: Seen) -> tuple[Disparity, Seen]:
    """The left disparity [px], NaN where it is not positive, not confirmed by the right one or not `seen`; and where it
    is known. right: positive, on the right image's grid; without it nothing needs confirmation."""
    valid = seen & (left > 0)
    if right is not None:
        valid &= consistent_disparity(left, right)
    return np.where(valid, left, UNKNOWN), valid


def checked_clip(
    clip: StereoClip,
    flows: tuple[Flow, Flow],
    disparities: tuple[Disparity, Disparity | None],
    next_disparities: tuple[Disparity, Disparity | None],
) -> Correspondence:
    """The correspondence of a clip from its dense fields [px]. flows: there and back; disparities: on the left and, if
    there is one, on the right grid, of each frame. NaN is unknown from the start."""
    forward, backward = flows
    disparity, disparity_valid = checked_disparity(*disparities, clip.first.valid)
    following, following_valid = checked_disparity(*next_disparities, clip.second.valid)
    valid = clip.first.valid & consistent_flow(forward, backward)
    back_valid = clip.second.valid & consistent_flow(backward, forward)
    return Correspondence(
        np.where(valid, forward, UNKNOWN),
        np.where(back_valid, backward, UNKNOWN),
        disparity,
        following,
        valid,
        disparity_valid,
        following_valid,
        None if disparities[1] is None else measured_noise(flows, (disparities[0], disparities[1]), clip.first.valid),
    )


def measured_noise(
    flows: tuple[Flow, Flow], disparities: tuple[Disparity, Disparity], seen: Seen
) -> Float64[np.ndarray, "3"]:
    """Noise of flow x, flow y and disparity [px], from how badly the ways there and back close, before anything is
    thrown away for it (spec-stage1 4.2)."""
    forward, backward = flows
    left, right = disparities
    flow_deviation = forward + warp_bilinear(backward, forward)
    shift = np.stack([-left, np.zeros_like(left)])
    disparity_deviation = (left - warp_bilinear(right, shift))[None]
    return np.concatenate([noise_scale(flow_deviation, seen), noise_scale(disparity_deviation, seen)])
