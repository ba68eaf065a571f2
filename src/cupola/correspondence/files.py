"""Flow and disparity from disk, so that any network in the world can make them (docs/fields-from-files.md)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float32

from cupola.correspondence.checking import checked_clip, checked_disparity
from cupola.errors import DataError
from cupola.io.fields import FIELD_SUFFIXES, read_disparity, read_flow
from cupola.types import Correspondence, StereoClip, StereoFrame

FLOW, BACKWARD, LEFT, RIGHT = "flow", "flow_backward", "disparity", "disparity_right"
"""The folders; a file is named by the key of its frame, a flow by the key of the clip's first frame."""

MAX_NEGATIVE = 0.5
"""A disparity of which a larger share is negative has the wrong sign, not a few bad pixels."""


@dataclass(frozen=True)
class FileCorrespondence:
    """Flow and disparity read from files, made by any network.

    Unknown stay pixels that a file calls so, that are not positive (disparity), or that the way back does not confirm.

    Args:
        directory: holds flow/KEY, flow_backward/KEY, disparity/KEY and, if there is one, disparity_right/KEY, each as
            .png (KITTI's 16 bit), .flo, .pfm or .npz.
    """

    directory: Path

    name: ClassVar[str] = "files"

    def check(self, keys: Sequence[tuple[str, str]] = ()) -> None:
        """Looks for the files of these pairs of frames. Raises `DataError` naming the first that is missing."""
        if not self.directory.is_dir():
            raise DataError(f"there is no directory {self.directory} of flow and disparity files")
        for key, following in keys:
            wanted = [(LEFT, key), (LEFT, following), (FLOW, key), (BACKWARD, key)]
            for folder, of in wanted[:1] if key == following else wanted:  # a frame with itself needs no flow
                self._find(folder, of)

    def __call__(self, clip: StereoClip) -> Correspondence:
        """The fields of a clip, unknown where there and back do not close (spec-stage1 2.4).

        Without disparity_right the disparity is taken as it is. A field without a single known pixel is no error: such
        a frame has no moving object. Raises `DataError` for a file that is missing, damaged or of another size than
        the image, and for disparities of the wrong sign.
        """
        flows = [self._read(folder, clip.key, clip.first.size, read_flow) for folder in (FLOW, BACKWARD)]
        first, second = self._disparities(clip.first), self._disparities(clip.second)
        return checked_clip(clip, (flows[0], flows[1]), first, second)

    def disparity(self, frame: StereoFrame) -> tuple[Float32[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
        """Disparity of the left image [px], NaN where unknown, and where it is known. Raises `DataError`."""
        return checked_disparity(*self._disparities(frame), frame.valid)

    def _disparities(self, frame: StereoFrame) -> tuple[np.ndarray, np.ndarray | None]:
        left = self._read(LEFT, frame.key, frame.size, _read_positive)
        if not any((self.directory / RIGHT).glob("*")):
            return left, None
        return left, self._read(RIGHT, frame.key, frame.size, _read_positive)

    def _find(self, folder: str, key: str) -> Path:
        for suffix in FIELD_SUFFIXES:
            path = self.directory / folder / f"{key}{suffix}"
            if path.is_file():
                return path
        names = ", ".join(f"{key}{suffix}" for suffix in FIELD_SUFFIXES)
        raise DataError(f"{self.directory / folder} has no file for frame {key}: none of {names}")

    def _read(self, folder: str, key: str, size: tuple[int, int], read: Callable[[Path], np.ndarray]) -> np.ndarray:
        path = self._find(folder, key)
        field = read(path)
        if field.shape[-2:] != size:
            raise DataError(
                f"{path} is {field.shape[-1]} x {field.shape[-2]} pixels, but the images are {size[1]} x {size[0]} "
                "(after --scale); make the fields at the size of the images they are used with"
            )
        return field


def _read_positive(path: Path) -> Float32[np.ndarray, "h w"]:
    """Disparity with NaN for what is not positive. Raises `DataError` where most of it is negative."""
    disparity = read_disparity(path)
    known = np.isfinite(disparity)
    if (disparity < 0).sum() > MAX_NEGATIVE * max(1, known.sum()):
        raise DataError(f"{path} is mostly negative; a disparity is x(left) - x(right), positive: turn its sign")
    return np.where(disparity > 0, disparity, np.float32(np.nan))
