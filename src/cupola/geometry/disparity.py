"""Disparity where the stereo match is unknown."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32

from cupola.geometry import kernels


def fill_disparity(disparity: Float32[np.ndarray, "h w"], valid: Bool[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """A value for every pixel: the smaller of the next valid ones left and right, then above and below.

    A stereo match fails most often beside a near object, on ground that only one camera sees; that ground belongs to
    the background, hence the smaller. Rows without any valid pixel are filled from the rows above and below by the same
    rule. With no valid pixel at all the result is zero (infinitely far) everywhere.

    disparity [px] is read only where `valid`; the valid values come back unchanged.
    """
    filled = np.where(valid, disparity, np.float32(0))
    known = valid.copy()
    kernels.fill_rows(filled, known)
    if not known.all():
        columns, known_columns = np.ascontiguousarray(filled.T), np.ascontiguousarray(known.T)
        kernels.fill_rows(columns, known_columns)
        filled = np.ascontiguousarray(columns.T)
    return filled
