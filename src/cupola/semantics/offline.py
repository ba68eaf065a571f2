"""Pseudo classes without any download: fitted on the user's own stereo frames (findings-features)."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from cupola.errors import ConfigError, StoreError
from cupola.io import write_bytes
from cupola.semantics.channels import WEIGHTS, frame_scale, stereo_channels, superpixel_features
from cupola.semantics.clustering import merge_clusters, nearest_centre, weighted_kmeans
from cupola.semantics.superpixels import Superpixels, slic
from cupola.types import VOID, SemanticMap, StereoFrame

CLIP = 4.0
"""Standardised channels are cut here (recipe 4)."""

SMOOTHINGS = 2
"""Rounds of smoothing over touching superpixels (recipe 5)."""


@dataclass(frozen=True)
class Described:
    """One frame as its superpixels: what fitting keeps of a frame. pixels: number of usable pixels of each."""

    means: Float64[np.ndarray, "n c"]
    pixels: Int64[np.ndarray, "n"]
    neighbours: Int64[np.ndarray, "m 2"]


def _describe(
    frame: StereoFrame, disparity: Float32[np.ndarray, "h w"], valid: Bool[np.ndarray, "h w"], seed: int
) -> tuple[Described, Superpixels]:
    channels = stereo_channels(frame, disparity, valid, seed)
    superpixels = slic(superpixel_features(frame, channels), frame_scale(frame.size[0]))
    means, pixels = superpixels.means(channels, frame.valid)
    return Described(means, pixels, superpixels.neighbours()), superpixels


def _smoothed(
    points: Float64[np.ndarray, "n c"], neighbours: Int64[np.ndarray, "m 2"], bandwidth: float
) -> Float64[np.ndarray, "n c"]:
    """Mixes every superpixel with those it touches, by exp(-squared distance / bandwidth) (recipe 5)."""
    one, two = neighbours.T
    for _ in range(SMOOTHINGS):
        weight = np.exp(-((points[one] - points[two]) ** 2).sum(1) / bandwidth)
        total = 1 + np.bincount(one, weight, len(points)) + np.bincount(two, weight, len(points))
        mixed = [
            column
            + np.bincount(one, weight * column[two], len(points))
            + np.bincount(two, weight * column[one], len(points))
            for column in points.T
        ]
        points = np.stack(mixed, 1) / total[:, None]
    return points


@dataclass(frozen=True)
class OfflineSemantics:
    """Settings of the offline pseudo classes.

    Args:
        classes: pseudo classes to form (1 .. 254); a small or plain data set may give fewer.
        clusters: small clusters that are merged into classes.
        smallest_share: share of all pixels that a class holds at least.
        fit_frames: frames to fit on, spread evenly over the data.
    """

    classes: int = 27
    clusters: int = 300
    smallest_share: float = 0.0045
    fit_frames: int = 60

    name: ClassVar[str] = "offline"

    def __post_init__(self) -> None:
        if not 1 <= self.classes <= 254:
            raise ConfigError(f"semantics.classes must lie in 1 .. 254, but is {self.classes}")
        if self.clusters < self.classes:
            raise ConfigError(
                f"semantics.clusters must be at least semantics.classes ({self.classes}), but is {self.clusters}"
            )
        if not 0 <= self.smallest_share < 1:
            raise ConfigError(f"semantics.smallest_share must lie in [0, 1), but is {self.smallest_share}")
        if self.fit_frames < 1:
            raise ConfigError(f"semantics.fit_frames must be at least 1, but is {self.fit_frames}")

    def choose(self, count: int) -> list[int]:
        """Which of `count` frames to fit on: at most `fit_frames`, spread evenly, the first among them."""
        return (
            [i * count // self.fit_frames for i in range(self.fit_frames)]
            if count > self.fit_frames
            else [*range(count)]
        )

    def describe(
        self, frame: StereoFrame, disparity: Float32[np.ndarray, "h w"], valid: Bool[np.ndarray, "h w"], seed: int
    ) -> Described:
        """The part of fitting that looks at one frame alone, for those who spread frames over processes."""
        return _describe(frame, disparity, valid, seed)[0]

    def fit(
        self,
        frames: Iterable[tuple[StereoFrame, Float32[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]],
        seed: int,
    ) -> OfflineModel:
        """Fits pseudo classes on all the given frames (`choose` says which to give).

        frames: (frame, disparity [px], where it is known), looked at once, in order. Raises `ConfigError` without any.
        """
        return self.fit_described([self.describe(*frame, seed) for frame in frames], seed)

    def fit_described(self, frames: Sequence[Described], seed: int) -> OfflineModel:
        """Fits pseudo classes on described frames. Raises `ConfigError` where they hold no usable pixel."""
        frames = [frame for frame in frames if frame.pixels.any()]
        if not frames:
            raise ConfigError("there is no frame with a usable pixel to fit pseudo classes on; check the valid masks")
        means = np.concatenate([frame.means for frame in frames])
        pixels = np.concatenate([frame.pixels for frame in frames]).astype(np.float64)
        centre = np.average(means, axis=0, weights=pixels)
        spread = np.sqrt(np.average((means - centre) ** 2, axis=0, weights=pixels))
        standardised = [_standardised(frame.means, centre, spread) for frame in frames]
        jumps = [
            ((points[frame.neighbours[:, 0]] - points[frame.neighbours[:, 1]]) ** 2).sum(1)
            for points, frame in zip(standardised, frames, strict=True)
        ]
        bandwidth = max(float(np.median(np.concatenate([*jumps, [1e-6]]))), 1e-6)
        points = np.concatenate(
            [_smoothed(p, frame.neighbours, bandwidth) for p, frame in zip(standardised, frames, strict=True)]
        )
        used = pixels > 0
        rng = np.random.default_rng(seed)
        centres, mass = weighted_kmeans(points[used], pixels[used], self.clusters, rng)
        class_of_cluster = merge_clusters(centres, mass, self.classes, self.smallest_share)
        return OfflineModel(centre, spread, bandwidth, centres, class_of_cluster, seed)

    def load(self, path: Path) -> OfflineModel:
        """What `OfflineModel.save` wrote: see `OfflineModel.load`."""
        return OfflineModel.load(path)


def _standardised(
    means: Float64[np.ndarray, "n c"], centre: Float64[np.ndarray, "c"], spread: Float64[np.ndarray, "c"]
) -> Float64[np.ndarray, "n c"]:
    weights = np.array(list(WEIGHTS.values()))
    points: Float64[np.ndarray, "n c"] = np.clip((means - centre) / np.maximum(spread, 1e-6), -CLIP, CLIP) * weights
    return points


@dataclass(frozen=True)
class OfflineModel:
    """Fitted pseudo classes; call it with a frame and its disparity.

    centre, spread: mean and standard deviation of the channels; bandwidth: of the smoothing, a squared distance;
    clusters, class_of_cluster: small clusters and the class of each; seed: of the run, for the search for the ground.
    """

    centre: Float64[np.ndarray, "c"]
    spread: Float64[np.ndarray, "c"]
    bandwidth: float
    clusters: Float64[np.ndarray, "k c"]
    class_of_cluster: Int64[np.ndarray, "k"]
    seed: int

    @property
    def num_classes(self) -> int:
        """Pseudo classes, numbered 0 .. num_classes - 1 by falling share of the fitted pixels."""
        return int(self.class_of_cluster.max()) + 1

    def __call__(
        self, frame: StereoFrame, disparity: Float32[np.ndarray, "h w"], valid: Bool[np.ndarray, "h w"]
    ) -> SemanticMap:
        """Pseudo class of every pixel of the left image, `VOID` where the frame itself is not valid."""
        described, superpixels = _describe(frame, disparity, valid, self.seed)
        points = _smoothed(
            _standardised(described.means, self.centre, self.spread), described.neighbours, self.bandwidth
        )
        clusters = nearest_centre(points, self.clusters)[superpixels.labels]
        classes = self.class_of_cluster[clusters]
        return SemanticMap(
            np.where(frame.valid, classes, VOID).astype(np.int16),
            parts=np.where(frame.valid, clusters, VOID).astype(np.int16),
        )

    def save(self, path: Path) -> None:
        """Writes the model as npz (plain arrays, no pickle), atomically. Raises `DiskError`."""
        content = io.BytesIO()
        np.savez_compressed(content, channels=np.array(list(WEIGHTS)), **asdict(self))
        write_bytes(path, content.getvalue())

    @staticmethod
    def load(path: Path) -> OfflineModel:
        """Reads a model. Raises `StoreError` where it is missing, damaged or made with other channels."""
        try:
            with np.load(path, allow_pickle=False) as file:
                values = {name: file[name] for name in file.files}
            if list(values["channels"]) != list(WEIGHTS):
                raise StoreError(f"{path} was made with other channels by another version of cupola; fit it again")
            return OfflineModel(
                values["centre"],
                values["spread"],
                float(values["bandwidth"]),
                values["clusters"],
                values["class_of_cluster"],
                int(values["seed"]),
            )
        except FileNotFoundError as error:
            raise StoreError(f"{path} does not exist; fit pseudo classes first (`cupola semantics`)") from error
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise StoreError(
                f"{path} is not a model of pseudo classes or is damaged; remove it to fit again"
            ) from error
