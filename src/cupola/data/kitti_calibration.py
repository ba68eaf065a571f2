"""The calibration files of KITTI: lines `KEY: numbers`, projections as 3x4 matrices in row order (spec-stage1 1.3)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float64

from cupola.errors import CalibrationError
from cupola.types import Calibration


def read_projection(path: Path, lines: dict[str, str], key: str) -> Float64[np.ndarray, "3 4"]:
    """The projection matrix under `key`. Raises `CalibrationError` where it is missing or not 12 numbers."""
    if key not in lines:
        raise CalibrationError(f"{path} has no line {key}: of the camera's projection; take the data set's own file")
    try:
        numbers = [float(word) for word in lines[key].split()]
    except ValueError as error:
        raise CalibrationError(f"{path}, line {key}: holds something that is not a number; copy it again") from error
    if len(numbers) != 12:
        raise CalibrationError(f"{path}, line {key}: holds {len(numbers)} numbers instead of 12; copy it again")
    return np.array(numbers, np.float64).reshape(3, 4)


def read_kitti_calibration(path: Path, left_key: str, right_key: str) -> Calibration:
    """Intrinsics of the left camera and the baseline P_left[3]/fx - P_right[3]/fx [m] (spec-stage1 1.3).

    Raises `CalibrationError` naming the file where it is missing, damaged or impossible.
    """
    try:
        text = path.read_text()
    except FileNotFoundError as error:
        raise CalibrationError(
            f"{path} is missing; it holds the projections {left_key} and {right_key} and comes with the data set"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise CalibrationError(f"{path} cannot be read as text; copy it again") from error
    lines = {key.strip(): rest for key, colon, rest in (line.partition(":") for line in text.splitlines()) if colon}
    left, right = read_projection(path, lines, left_key), read_projection(path, lines, right_key)
    if left[0, 0] == 0 or right[0, 0] == 0:
        raise CalibrationError(f"{path} gives a focal length of 0; take the data set's own file")
    try:
        return Calibration(
            fx=float(left[0, 0]),
            fy=float(left[1, 1]),
            cx=float(left[0, 2]),
            cy=float(left[1, 2]),
            baseline=float(left[0, 3] / left[0, 0] - right[0, 3] / right[0, 0]),
        )
    except CalibrationError as error:
        raise CalibrationError(f"{path}: {error}") from error
