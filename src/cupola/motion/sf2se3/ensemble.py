"""Which masks of several runs to believe: agreement, then matrix NMS (spec-stage1 4.14, 4.15)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Float64, Int, Int32, Int64

from cupola.motion.sf2se3 import kernels
from cupola.motion.sf2se3.settings import Sf2se3Settings

NMS_SHARPNESS = 2.0
"""sigma of the Gaussian decay exp(-sigma IoU^2) (spec-stage1 4.15)."""


def vote(
    ids: Int32[np.ndarray, "planes h w"], scores: Float32[np.ndarray, "n"], runs: int, settings: Sf2se3Settings
) -> tuple[list[int], Float32[np.ndarray, "m"]]:
    """Indices of the masks of all runs to keep, best first, and their scores after matrix NMS.

    ids: 0 = none, i + 1 = mask i; masks that overlap lie in different planes, those of one run share one.
    """
    shared = shared_pixels(ids, len(scores))
    agreed = np.flatnonzero(consistency(shared, runs) >= settings.min_consistency)
    best, lowered = matrix_nms(shared[np.ix_(agreed, agreed)], scores[agreed], settings.min_score)
    return [int(i) for i in agreed[best]], lowered


def shared_pixels(ids: Int32[np.ndarray, "planes h w"], count: int) -> Int64[np.ndarray, "{count} {count}"]:
    """Pixels that any two of `count` masks share, on the diagonal their sizes. ids: as `vote` takes them."""
    shared = np.zeros((count, count), np.int64)
    kernels.shared_pixels(ids, shared)
    return shared + shared.T - np.diag(np.diag(shared))


def consistency(shared: Int[np.ndarray, "n n"], runs: int) -> Float64[np.ndarray, "n"]:
    """Mean share of the runs that have an object at a mask's pixels (Eq. 1, with 1 / n as the text means it).

    The masks of a run do not overlap, so the count of Eq. 1 at a mask's pixels adds up to what it shares with all.
    """
    return np.asarray(shared.sum(1) / (runs * np.diag(shared)))


def matrix_nms(
    shared: Int[np.ndarray, "n n"], scores: Float32[np.ndarray, "n"], min_score: float
) -> tuple[list[int], Float32[np.ndarray, "m"]]:
    """Indices of the masks that stay, best first, and their lowered scores.

    A mask's score falls with its overlap with better ones, the less the more these are overlapped themselves.
    """
    order = np.argsort(-scores, kind="stable")
    sizes = np.diag(shared)[order]
    both = shared[np.ix_(order, order)]
    iou = np.triu(both / np.maximum(sizes[:, None] + sizes - both, 1), 1)
    compensation = iou.max(0, initial=0)
    above = np.triu(np.ones_like(iou, dtype=bool), 1)
    decay = np.exp(-NMS_SHARPNESS * (iou**2 - compensation[:, None] ** 2))
    lowered = scores[order] * np.where(above, decay, 1).min(0, initial=1)
    best = [int(i) for i in np.argsort(-lowered, kind="stable") if lowered[i] >= min_score]
    return [int(order[i]) for i in best], lowered[best].astype(np.float32)
