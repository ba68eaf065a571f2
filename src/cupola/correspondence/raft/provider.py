"""Flow and disparity by RAFT or SMURF: one network for all six fields of a clip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from cupola.correspondence.checking import checked_clip, checked_disparity
from cupola.errors import ConfigError
from cupola.io import content_hash
from cupola.types import Correspondence, StereoClip, StereoFrame

if TYPE_CHECKING:
    import torch
    from torchvision.models.optical_flow import RAFT

GPU_BATCH = 6
"""Pairs at once on a GPU: all of a clip. On a CPU one at a time is as fast and takes a sixth of the memory."""


@dataclass(frozen=True)
class RaftCorrespondence:
    """Flow and disparity by RAFT (large or small) or SMURF.

    Args:
        weights: checkpoint, in the names of torchvision, of the RAFT release or of the converted SMURF.
        updates: recurrent updates; 0 = as published (SMURF 16, RAFT large 24, small 12).
        batch: pairs of images at once, 0.9 GB each at 640 x 1280; 0 = all six on a GPU, one on a CPU.
        device: auto, cpu or cuda.
        cache: folder of the converted weights; by default they lie beside the weights.
    """

    weights: Path
    updates: int = 0
    batch: int = 0
    device: str = "auto"
    cache: Path | None = None

    name: ClassVar[str] = "raft"
    may_differ: ClassVar[tuple[str, ...]] = ("batch", "device", "cache")

    def __post_init__(self) -> None:
        if self.updates < 0 or self.batch < 0:
            raise ConfigError(f"updates and batch must be 0 (automatic) or more, not {self.updates} and {self.batch}")

    def check(self, keys: Sequence[tuple[str, str]] = ()) -> None:
        """Loads the network. Raises `CheckpointError` or `ConfigError` where that cannot be done."""
        self._network()

    def hashes(self) -> dict[str, str]:
        """SHA-256 of the file of weights, for those who tell results apart by what made them. Raises `OSError`."""
        return {"weights": content_hash(self.weights)}

    def __call__(self, clip: StereoClip) -> Correspondence:
        """The six fields of a clip, unknown where there and back do not close (spec-stage1 2.1, 2.4).

        The features of each of the four images are computed once. Disparity is the horizontal flow between left and
        right; its vertical part is dropped. Raises `CheckpointError` where the weights cannot be used.
        """
        first, second = clip.first, clip.second
        images = [first.left, second.left, first.right, second.right]
        flows = self._flows(images, [(0, 1), (1, 0), (0, 2), (2, 0), (1, 3), (3, 1)])
        return checked_clip(clip, (flows[0], flows[1]), _disparities(*flows[2:4]), _disparities(*flows[4:6]))

    def disparity(self, frame: StereoFrame) -> tuple[Float32[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
        """Disparity of the left image [px], NaN where unknown, and where it is known."""
        flows = self._flows([frame.left, frame.right], [(0, 1), (1, 0)])
        return checked_disparity(*_disparities(*flows), frame.valid)

    def _network(self) -> tuple[RAFT, int, torch.device]:
        return _loaded(self.weights, self.cache, self.device)

    def _flows(
        self, images: Sequence[UInt8[np.ndarray, "h w 3"]], pairs: Sequence[tuple[int, int]]
    ) -> Float32[np.ndarray, "p 2 h w"]:
        import torch

        from cupola.correspondence.raft.network import find_flows

        network, updates, where = self._network()
        stacked = torch.from_numpy(np.stack(images)).to(where).permute(0, 3, 1, 2).float() / 127.5 - 1
        batch = self.batch or (1 if where.type == "cpu" else GPU_BATCH)
        return np.asarray(find_flows(network, stacked, pairs, self.updates or updates, batch).cpu().numpy())


@lru_cache(maxsize=1)
def _loaded(weights: Path, cache: Path | None, device: str) -> tuple[RAFT, int, torch.device]:
    """(network, its published number of updates, device): loaded once a process, since the frames come one by one."""
    from cupola.correspondence.raft.network import build_with
    from cupola.correspondence.raft.weights import read_raft
    from cupola.devices import pick_device

    where = pick_device(device)
    variant, state = read_raft(weights, cache)
    return build_with(variant, state, where), variant.updates, where


def _disparities(
    to_right: Float32[np.ndarray, "2 h w"], to_left: Float32[np.ndarray, "2 h w"]
) -> tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:
    """(on the left grid, on the right grid) [px]: a left pixel x matches the right pixel x - d (spec-stage1 2.1)."""
    return np.maximum(0, -to_right[0]), np.maximum(0, to_left[0])
