"""Noise tiles with mip levels, made once and the same for every street."""

from __future__ import annotations

from functools import cache

import numpy as np
from jaxtyping import Float32, Float64, UInt8

TEXELS = 256
"""Side of a tile; tiles repeat without a seam [texels]."""
SEED = 20261124
"""Every street uses the same tiles; scenes differ by where they look into them."""


def _filtered(rng: np.random.Generator, low: float, high: float, slope: float) -> Float64[np.ndarray, "256 256"]:
    """Tileable noise with wavelengths between `low` and `high` texels, amplitude falling as frequency ** slope."""
    frequency = np.hypot(np.fft.fftfreq(TEXELS)[:, None], np.fft.fftfreq(TEXELS)[None])
    frequency[0, 0] = np.inf
    amplitude = np.where((frequency <= 1 / low) & (frequency >= 1 / high), frequency**slope, 0.0)
    spectrum = amplitude * np.exp(2j * np.pi * rng.random((TEXELS, TEXELS)))
    return np.asarray(np.fft.ifft2(spectrum).real)


def _uniform(field: Float64[np.ndarray, "256 256"]) -> Float32[np.ndarray, "256 256"]:
    """The field's ranks: values spread evenly over [0, 1], so that thresholds are shares."""
    ranks = np.empty(field.size)
    ranks[np.argsort(field, axis=None, kind="stable")] = np.arange(field.size)
    return (ranks / field.size).reshape(field.shape).astype(np.float32)


@cache
def noise_tiles() -> UInt8[np.ndarray, "3 texels"]:
    """Tiles 0: stains (broad), 1: grain (fine), 2: leaves (blotches of a few texels), each with its mip levels
    256 x 256, 128 x 128, ... 1 x 1 one after another; 0..255, so that all fit the processor's cache."""
    rng = np.random.default_rng(SEED)
    fields = (_filtered(rng, 3.0, 128.0, -1.6), _filtered(rng, 2.0, 16.0, -0.4), _filtered(rng, 4.0, 24.0, -1.0))
    return np.stack([_pyramid(_uniform(field)) for field in fields])


def _pyramid(level: Float32[np.ndarray, "side side"]) -> UInt8[np.ndarray, "texels"]:
    """A tile and its halvings, flat."""
    levels = [level]
    while level.shape[0] > 1:
        level = level.reshape(level.shape[0] // 2, 2, level.shape[1] // 2, 2).mean((1, 3))
        levels.append(level)
    flat: np.ndarray = np.rint(255 * np.concatenate([level.ravel() for level in levels])).astype(np.uint8)
    return flat


@cache
def gamma_table(steps: int = 4096) -> Float32[np.ndarray, "steps"]:
    """Linear [0, 1] -> sRGB [0, 255] with a soft shoulder instead of hard clipping."""
    linear = np.arange(steps) / (steps - 1)
    curve = np.where(linear < 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055)
    return (255 * curve).astype(np.float32)
