"""How noisy flow and disparity are in one frame, from how badly the ways there and back close (spec-stage1 4.2)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32, Float64
from scipy.special import erf

TRUNCATION = 10 * 2**0.5
"""Larger deviations are outliers, not noise [px]."""

SIGMA_MIN, SIGMA_MAX = 2 * 2**0.5, 10 * 2**0.5
"""Bounds of the scale of a deviation [px], which is a difference of two noisy fields."""

MIN_SHARE = 0.1
"""With a smaller share of usable pixels the scale is its lower bound."""

RATIOS = np.linspace(0.1, 1.0, 100)
RATIO_TOLERANCE = 0.01
"""Grid of ratios of truncated to true deviation, and how well one must solve the equation (spec-stage1 4.2)."""


def deviation_scale(
    deviation: Float32[np.ndarray, "c h w"], valid: Bool[np.ndarray, "h w"]
) -> Float64[np.ndarray, "c"]:
    """Standard deviation of each channel [px] of a normal distribution of which only |e| <= 10 sqrt 2 px was seen.

    A truncated normal looks narrower than it is; its true width solves an equation in the ratio of the two, of which
    the largest solution on a grid is taken. Clamped to 2 sqrt 2 .. 10 sqrt 2; NaN deviations are not used.
    """
    return np.array(
        [_channel_scale(channel[valid & (np.abs(channel) <= TRUNCATION)], valid.size) for channel in deviation]
    )


def _channel_scale(seen: Float32[np.ndarray, "n"], elements: int) -> float:
    if len(seen) < MIN_SHARE * elements:
        return SIGMA_MIN
    truncated = max(float(np.sqrt((seen.astype(np.float64) ** 2).mean())), 1e-12)
    scaled = TRUNCATION / (truncated * np.sqrt(2)) * RATIOS
    residual = 1 - 2 / np.sqrt(np.pi) * scaled * np.exp(-(scaled**2)) / erf(scaled) - RATIOS**2
    solutions = RATIOS[np.abs(residual) < RATIO_TOLERANCE]
    ratio = solutions[-1] if len(solutions) else RATIOS[0]
    return float(np.clip(truncated / ratio, SIGMA_MIN, SIGMA_MAX))


def noise_scale(deviation: Float32[np.ndarray, "c h w"], valid: Bool[np.ndarray, "h w"]) -> Float64[np.ndarray, "c"]:
    """Noise of each channel of a field [px], in 2 .. 10: a deviation is the difference of two fields of that noise.

    deviation [px]: flow + flow back, or left minus right disparity, each read at the match. Pixels whose deviation is
    longer than 10 sqrt 2 over all channels are left out.
    """
    length = np.sqrt((deviation.astype(np.float64) ** 2).sum(0))
    return np.asarray(deviation_scale(deviation, valid & (length < TRUNCATION)) / np.sqrt(2))
