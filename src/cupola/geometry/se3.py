"""Rigid motions as 4 x 4 matrices T with P(t+1) = T P(t), in float64, with any number of leading axes."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64
from scipy.spatial.transform import Rotation

SMALL_ANGLE = 1e-3
"""Below this angle [rad] a Taylor series replaces quotients that tend to 0 / 0 (its error is under 1e-15)."""


def exp(twist: Float64[np.ndarray, "*batch 6"]) -> Float64[np.ndarray, "*batch 4 4"]:
    """The motion of a twist (rotation vector [rad], translational part [m])."""
    flat = twist.reshape(-1, 6)
    motion = np.tile(np.eye(4), (len(flat), 1, 1))
    if len(flat):
        motion[:, :3, :3] = Rotation.from_rotvec(flat[:, :3]).as_matrix()
        motion[:, :3, 3] = np.einsum("nij,nj->ni", _left_jacobian(flat[:, :3]), flat[:, 3:])
    return motion.reshape(*twist.shape[:-1], 4, 4)


def log(motion: Float64[np.ndarray, "*batch 4 4"]) -> Float64[np.ndarray, "*batch 6"]:
    """The twist of a motion, the inverse of `exp` for rotations below half a turn."""
    flat = motion.reshape(-1, 4, 4)
    twist = np.zeros((len(flat), 6))
    if len(flat):
        twist[:, :3] = Rotation.from_matrix(flat[:, :3, :3]).as_rotvec()
        twist[:, 3:] = np.linalg.solve(_left_jacobian(twist[:, :3]), flat[:, :3, 3, None])[..., 0]
    return twist.reshape(*motion.shape[:-2], 6)


def _left_jacobian(rotation_vector: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, "n 3 3"]:
    """V = I + (1 - cos a) / a^2 K + (a - sin a) / a^3 K^2 for the cross product matrix K of a vector of length a."""
    angle = np.linalg.norm(rotation_vector, axis=-1)[:, None, None]
    safe = np.where(angle < SMALL_ANGLE, 1.0, angle)
    square = angle**2
    first = np.where(angle < SMALL_ANGLE, 1 / 2 - square / 24, (1 - np.cos(safe)) / safe**2)
    second = np.where(angle < SMALL_ANGLE, 1 / 6 - square / 120, (safe - np.sin(safe)) / safe**3)
    cross = np.cross(np.eye(3), rotation_vector[:, None, :])
    return np.asarray(np.eye(3) + first * cross + second * cross @ cross)


def inverse(motion: Float64[np.ndarray, "*batch 4 4"]) -> Float64[np.ndarray, "*batch 4 4"]:
    """The motion back, without a general matrix inverse."""
    rotation = np.swapaxes(motion[..., :3, :3], -1, -2)
    result = np.zeros_like(motion)
    result[..., :3, :3] = rotation
    result[..., :3, 3] = -np.einsum("...ij,...j->...i", rotation, motion[..., :3, 3])
    result[..., 3, 3] = 1
    return result


def compose(*motions: Float64[np.ndarray, "*batch 4 4"]) -> Float64[np.ndarray, "*batch 4 4"]:
    """One motion after another, the last one first: compose(A, B) P = A (B P)."""
    result = motions[0]
    for motion in motions[1:]:
        result = result @ motion
    return result


def transform(
    motion: Float64[np.ndarray, "4 4"], points: Float64[np.ndarray, "3 *shape"]
) -> Float64[np.ndarray, "3 *shape"]:
    """The points [m] after the motion; NaN stays NaN."""
    moved = motion[:3, :3] @ points.reshape(3, -1) + motion[:3, 3:]
    return np.asarray(moved.reshape(points.shape))


def rotation_angle(
    first: Float64[np.ndarray, "*batch 4 4"], second: Float64[np.ndarray, "*batch 4 4"]
) -> Float64[np.ndarray, "*batch"]:
    """Angle between the rotations of two motions, in [0, pi] rad.

    From the Frobenius distance of the matrices, |A - B| = 2 sqrt 2 sin(angle / 2): exact for small angles, where the
    usual arc cosine of a trace loses half the digits or turns NaN (defect S21 of spec-stage1).
    """
    distance = np.linalg.norm(first[..., :3, :3] - second[..., :3, :3], axis=(-2, -1))
    return np.asarray(2 * np.arcsin(np.minimum(distance / np.sqrt(8), 1)))


def fit_motions(
    before: Float64[np.ndarray, "b n 3"],
    after: Float64[np.ndarray, "b n 3"],
    weights: Float64[np.ndarray, "b n"],
) -> Float64[np.ndarray, "b 4 4"]:
    """The motions that carry `before` to `after` [m] with least weighted squares (Kabsch; spec-stage1 4.5).

    Always proper rotations, also for mirrored points. Weight 0 pads sets of unequal size; its points may be NaN. A set
    needs three points off one line; with fewer the rotation is one of many (see `determines_rotation`), and with no
    weight at all the motion is the identity.
    """
    total = weights.sum(-1)[:, None]
    share = np.where(total > 0, weights / np.where(total > 0, total, 1), 0)[..., None]
    before, after = np.where(share > 0, before, 0), np.where(share > 0, after, 0)
    centre_before, centre_after = (share * before).sum(1), (share * after).sum(1)
    spread_before, spread_after = before - centre_before[:, None], after - centre_after[:, None]
    covariance = np.einsum("bni,bnj->bij", share * spread_after, spread_before)
    left, _, right = np.linalg.svd(covariance)
    left[:, :, 2] *= np.sign(np.linalg.det(left) * np.linalg.det(right))[:, None]
    motions = np.tile(np.eye(4), (len(before), 1, 1))
    motions[:, :3, :3] = left @ right
    motions[:, :3, 3] = centre_after - np.einsum("bij,bj->bi", motions[:, :3, :3], centre_before)
    motions[total[:, 0] <= 0] = np.eye(4)
    return motions


MIN_WIDTH_RATIO = 0.05
"""Points closer to one line than this share of their length leave the rotation about it to the noise (defect S19)."""


def determines_rotation(
    points: Float64[np.ndarray, "b n 3"], weights: Float64[np.ndarray, "b n"]
) -> Bool[np.ndarray, "b"]:
    """Whether the weighted points of each set fix a rotation: at least three, and not (nearly) on one line."""
    used = weights > 0
    count = used.sum(-1)
    points = np.where(used[..., None], points, 0)
    centred = (points - points.sum(1, keepdims=True) / np.maximum(count, 1)[:, None, None]) * used[..., None]
    length = np.linalg.svd(centred, compute_uv=False)
    if length.shape[-1] < 2:
        return np.zeros(len(points), bool)
    return np.asarray((count >= 3) & (length[:, 1] > MIN_WIDTH_RATIO * length[:, 0]))
