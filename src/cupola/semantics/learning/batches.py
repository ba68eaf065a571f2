"""What one step learns from, a pure function of the views, the seed and the step: there is no sampler to save."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from cupola.semantics.learning.pairing import derangement, views_of_step
from cupola.semantics.learning.positions import far_positions, random_positions, read_bilinear, read_nearest
from cupola.semantics.learning.settings import SmallRecipe
from cupola.semantics.learning.store import COMPUTE_ALONE, ViewStore

ORDER, BATCH, DROPOUT = 0, 1, 2
"""What a stream of random numbers is for: the order of views, the draws of a batch, the channels left out."""


@dataclass(frozen=True)
class Batch:
    """b views at n positions each. features: of the views; positives: of one view like each, at positions of its own;
    depth: at the positions of `features` [m], NaN where unknown; negatives: for each of k permutations, the view of
    the batch that each view is set against."""

    features: Float32[Tensor, "b n c"]
    positives: Float32[Tensor, "b n c"]
    depth: Float32[Tensor, "b n"]
    negatives: Int64[Tensor, "k b"]

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        parts = (self.features, self.positives, self.depth, self.negatives)
        return Batch(*(part.to(device) for part in parts))


@dataclass(frozen=True)
class Batches:
    """All batches of a run. neighbours: of each view the views most like it; seed: of the run."""

    store: ViewStore
    neighbours: Int64[np.ndarray, "n k"]
    settings: SmallRecipe
    seed: int

    def at(self, step: int) -> Batch:
        """The batch of a step. Raises what reading an image raises where features are not kept."""
        rng = np.random.default_rng([self.seed, BATCH, step])
        size = self.settings.batch
        order_seed = int(np.random.default_rng([self.seed, ORDER]).integers(2**31))
        views = views_of_step(len(self.store), size, step, order_seed)
        positives = self.neighbours[views, rng.integers(self.neighbours.shape[1], size=size)]
        negatives = np.stack([derangement(size, rng) for _ in range(self.settings.negatives)])
        seen = [self._seen(int(view), rng) for view in views]
        alike = [self._seen(int(view), rng)[0] for view in positives]
        return Batch(
            torch.from_numpy(np.stack([features for features, _ in seen])),
            torch.from_numpy(np.stack(alike)),
            torch.from_numpy(np.stack([depth for _, depth in seen])),
            torch.from_numpy(negatives),
        )

    def _seen(self, view: int, rng: np.random.Generator) -> tuple[Float32[np.ndarray, "n c"], Float32[np.ndarray, "n"]]:
        """Features and depth of a view at positions drawn for it."""
        points = self.store.points[view]
        count = self.settings.positions**2
        if self.settings.sampling == "farthest":
            positions = far_positions(points, count, rng)
        else:
            positions = random_positions(points.shape[1], points.shape[2], count, rng)
        return read_bilinear(self.store.features(view), positions), read_nearest(points[2], positions)

    def ahead(self, first: int, last: int) -> Iterator[Batch]:
        """The batches of steps `first` .. `last` - 1, each made while the one before is learnt from."""
        with ThreadPoolExecutor(1, "batches", *COMPUTE_ALONE) as pool:
            waiting = pool.submit(self.at, first)
            for step in range(first, last):
                batch = waiting.result()
                if step + 1 < last:
                    waiting = pool.submit(self.at, step + 1)
                yield batch


def dropout_generator(seed: int, step: int) -> torch.Generator:
    """Source of the channels that a step leaves out; on the CPU, so that it is the same on every device."""
    words = np.random.SeedSequence([seed, DROPOUT, step]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(words[0] >> np.uint64(1)))
