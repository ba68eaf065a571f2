"""What the frozen backbone says of every view, found once and kept on the disk until the run is over.

OUT/views/KEY.npz holds what is always needed of an image (points, means), OUT/views/KEY.npy the features of its views
in float16, unless they would need too much room: then they are computed whenever they are asked for, with equal result.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float16, Float32, Float64, UInt8

from cupola.correspondence import CorrespondenceProvider
from cupola.data import FrameRecord, StereoDataset
from cupola.errors import DataError, StoreError
from cupola.io.files import atomic_path
from cupola.progress import progress
from cupola.semantics.backbones import normalised
from cupola.semantics.learning.settings import CROPS
from cupola.semantics.learning.views import Square, five_squares, view_image, view_points

if TYPE_CHECKING:
    from cupola.semantics.backbones.networks import Backbone

FREE_SHARE = 0.8
"""At most this share of the free disk is filled with features."""

FLOAT16_BYTES = 2

COMPUTE_ALONE = (torch.set_num_threads, (1,))
"""How a thread of a pool begins: what it computes is not spread over others, so their number changes no bit of it."""

SMALLEST_DEVIATION = 1e-6
"""Features that vary less are constant."""


@dataclass(frozen=True)
class ViewStore:
    """The views of all readable images, numbered image by image, five each.

    records: the images; points: (X, Y, Z) of each cell [m], NaN where unknown; means: of the features of each view;
    centre, deviation: of every feature over all cells; cached: the features lie on the disk; failed: what was wrong
    with each image that is left out.
    """

    eye: Eye
    records: tuple[FrameRecord, ...]
    points: Float32[np.ndarray, "n 3 rows columns"]
    means: Float32[np.ndarray, "n c"]
    centre: Float32[np.ndarray, "c"]
    deviation: Float32[np.ndarray, "c"]
    cached: bool
    failed: dict[str, str]

    def __len__(self) -> int:
        return len(self.points)

    def features(self, view: int) -> Float16[np.ndarray, "rows columns c"]:
        """Features of a view; of those on the disk only what is looked at is read."""
        image, crop = divmod(view, CROPS)
        if self.cached:
            kept = np.load(self.eye.feature_file(self.records[image]), mmap_mode="r")
            return np.asarray(kept[crop])
        left = self.eye.dataset.left(self.records[image])
        return self.eye.look(left, five_squares(*left.shape[:2])[crop])


@dataclass(frozen=True)
class Eye:
    """Whatever is needed to see a view. cells: of the backbone on each side of a view; directory: of the files."""

    dataset: StereoDataset
    correspondence: CorrespondenceProvider
    backbone: Backbone
    device: torch.device
    cells: int
    directory: Path

    def feature_file(self, record: FrameRecord) -> Path:
        return self.directory / f"{record.key}.npy"

    def facts_file(self, record: FrameRecord) -> Path:
        return self.directory / f"{record.key}.npz"

    def look(self, image: UInt8[np.ndarray, "h w 3"], square: Square) -> Float16[np.ndarray, "rows columns c"]:
        """Features of one view of an image. Views pass one by one, so that a result depends on no other view."""
        view = normalised(view_image(image, square, self.cells * self.backbone.patch))
        with torch.inference_mode():
            features = self.backbone(torch.from_numpy(view)[None].to(self.device))[0]
            return np.asarray(features.permute(1, 2, 0).half().cpu().contiguous().numpy())

    def prepare(self, record: FrameRecord, keep: bool) -> str | None:
        """Writes the files of an image; they are complete once the one with the facts is there. Returns None, or why
        the image cannot be used."""
        try:
            frame = self.dataset.frame(record)
        except DataError as error:
            return str(error)
        squares = five_squares(*frame.size)
        disparity, valid = self.correspondence.disparity(frame)
        points = np.stack([view_points(frame, disparity, valid, square, self.cells) for square in squares])
        features = np.stack([self.look(frame.left, square) for square in squares])
        if not np.isfinite(features).all():
            return f"the backbone gives features of {record.left} that are no finite numbers in float16"
        if keep:
            _write(self.feature_file(record), lambda path: np.save(path, features))
        values = features.reshape(len(squares), -1, features.shape[-1]).astype(np.float64)
        facts = {"points": points, "sums": values.sum(1), "squares": (values**2).sum((0, 1))}
        _write(self.facts_file(record), lambda path: np.savez(path, **facts))
        return None


def prepare_views(eye: Eye, records: Sequence[FrameRecord], gigabytes: float, workers: int) -> ViewStore:
    """Looks at every view that has not been looked at yet; images are spread over threads.

    gigabytes: of features that may lie on the disk. Raises `DataError` where no image can be read, `DiskError`.
    """
    needed = len(records) * CROPS * eye.cells**2 * eye.backbone.channels * FLOAT16_BYTES
    eye.directory.mkdir(parents=True, exist_ok=True)
    present = sum(path.stat().st_size for path in eye.directory.glob("*.npy"))
    room = FREE_SHARE * (shutil.disk_usage(eye.directory).free + present)
    keep = needed <= min(gigabytes * 1e9, room)
    todo = [
        record
        for record in records
        if not eye.facts_file(record).is_file() or (keep and not eye.feature_file(record).is_file())
    ]
    failed: dict[str, str] = {}
    with ThreadPoolExecutor(workers, "views", *COMPUTE_ALONE) as pool:
        reasons = pool.map(lambda record: eye.prepare(record, keep), todo)
        try:
            bar = progress(reasons, "features", len(records), len(records) - len(todo))
            for record, reason in zip(todo, bar, strict=True):
                if reason is not None:
                    failed[record.key] = reason
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    good = tuple(record for record in records if record.key not in failed)
    if not good:
        raise DataError(f"none of {len(records)} images can be used; the first: {next(iter(failed.values()))}")
    return _gathered(eye, good, keep, failed)


def _gathered(eye: Eye, records: tuple[FrameRecord, ...], cached: bool, failed: dict[str, str]) -> ViewStore:
    points, sums, squares = zip(*(_facts(eye.facts_file(record)) for record in records), strict=True)
    cells = eye.cells**2
    total = len(records) * CROPS * cells
    centre = np.sum([per_image.sum(0) for per_image in sums], axis=0) / total
    variance = np.sum(squares, axis=0) / total - centre**2
    deviation = np.maximum(np.sqrt(np.maximum(variance, 0)), SMALLEST_DEVIATION)
    means = np.concatenate(sums) / cells
    return ViewStore(
        eye,
        records,
        np.concatenate(points),
        means.astype(np.float32),
        centre.astype(np.float32),
        deviation.astype(np.float32),
        cached,
        failed,
    )


def _facts(
    path: Path,
) -> tuple[Float32[np.ndarray, "v 3 rows columns"], Float64[np.ndarray, "v c"], Float64[np.ndarray, "c"]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return file["points"], file["sums"], file["squares"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise StoreError(f"{path} is damaged; remove it and run the command again") from error


def _write(path: Path, write: Callable[[Path], None]) -> None:
    with atomic_path(path) as temporary:
        write(temporary)
