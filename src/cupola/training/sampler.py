"""Which frames make a batch, and the batch itself: pure functions of (seed, step), so there is no sampler to save."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cupola.models import Target
from cupola.models.boxes import one_each
from cupola.training.augment import AugmentSettings, augment
from cupola.training.copy_paste import CopyPasteSettings, Cutout, cut_objects, paste_objects
from cupola.training.data import TrainingData
from cupola.training.targets import Sample, make_target

ORDER, VIEW, NETWORK, SCALE = 0, 1, 2, 5
"""What a stream of random numbers is for: the order of frames, a view of a frame, the network's own choices, the size
of a step's images."""

SCALE_STEP = 0.05
"""Scales of a step's images are multiples of it (spec-network 2.3: 384 to 704 rows of 640, in steps of 32)."""

SIDES = 32
"""Sides of the images of such a step are multiples of this [px] (spec-network 2.3)."""

AHEAD = 2
"""Batches made in advance, while the network works on an earlier one."""


@dataclass(frozen=True)
class BatchSettings:
    """size: images a step; canvas: (height, width) of each [px]; seed: of the run; rank, ranks: this process and how
    many share each batch evenly."""

    size: int
    canvas: tuple[int, int]
    seed: int
    augment: AugmentSettings
    copy_paste: CopyPasteSettings
    rank: int = 0
    ranks: int = 1

    @property
    def places(self) -> range:
        """Places in each batch of the images of this process."""
        own = self.size // self.ranks
        return range(self.rank * own, (self.rank + 1) * own)


@dataclass(frozen=True)
class Batch:
    """What one step, or one process in it, learns from. keys: of its frames; images: RGB in [0, 1]; first: place of the
    first of them in the step's whole batch."""

    keys: tuple[str, ...]
    images: list[Float[Tensor, "3 h w"]]
    targets: list[Target]
    first: int = 0

    def to(self, device: torch.device | str) -> Batch:
        """The same on another device."""
        images, targets = [image.to(device) for image in self.images], [target.to(device) for target in self.targets]
        return Batch(self.keys, images, targets, self.first)

    def pieces(self, count: int) -> list[Batch]:
        """The batch in `count` pieces of as many images."""
        length = len(self.images) // count
        return [
            Batch(
                self.keys[start : start + length],
                self.images[start : start + length],
                self.targets[start : start + length],
                self.first + start,
            )
            for start in range(0, count * length, length)
        ]


def frames_of_step(frames: int, size: int, step: int, seed: int) -> list[int]:
    """Numbers of the `size` frames of a step: one random order of all `frames` after the other."""
    numbers: list[int] = []
    for position in range(step * size, (step + 1) * size):
        epoch, place = divmod(position, frames)
        if not numbers or place == 0:
            order = np.random.default_rng([seed, ORDER, epoch]).permutation(frames)
        numbers.append(int(order[place]))
    return numbers


def size_of_step(settings: BatchSettings, step: int) -> tuple[float, tuple[int, int]]:
    """The scale of a step and the (height, width) of its images [px]: one for the whole batch, drawn evenly from the
    multiples of `SCALE_STEP` in `augment.resolution` (N26). The canvas itself where nothing is drawn."""
    low, high = (round(limit / SCALE_STEP) for limit in settings.augment.resolution)
    if low == high:
        return low * SCALE_STEP, settings.canvas
    scale = SCALE_STEP * float(np.random.default_rng([settings.seed, SCALE, step]).integers(low, high + 1))
    height, width = (max(1, round(side * scale / SIDES)) * SIDES for side in settings.canvas)
    return scale, (height, width)


def make_sample(
    data: TrainingData, number: int, step: int, index: int, settings: BatchSettings, bank: Sequence[Cutout]
) -> Sample:
    """Image `index` of a step: frame `number` with objects of `bank` pasted, seen in a random view."""
    rng = np.random.default_rng([settings.seed, VIEW, step, index])
    pasted = paste_objects(data.sample(number), bank, settings.copy_paste, rng)
    scale, canvas = size_of_step(settings, step)
    return augment(pasted, canvas, settings.augment, rng, scale)


def make_batch(data: TrainingData, step: int, settings: BatchSettings, bank: Sequence[Cutout] | None = None) -> Batch:
    """This process's share of the batch of a step, a pure function of the arguments. bank: what is pasted, by default
    labelled objects. An image's draws depend on its place in the whole batch, whoever makes it."""
    numbers = frames_of_step(len(data), settings.size, step, settings.seed)
    places = settings.places
    if bank is None:
        bank = data.bank
        if settings.copy_paste.source == "batch":
            bank = [cut for n in numbers for cut in cut_objects(data.sample(n), settings.copy_paste.min_side)]
    samples = [make_sample(data, numbers[place], step, place, settings, bank) for place in places]
    return Batch(
        tuple(data.keys[numbers[place]] for place in places),
        [to_tensor(sample.image) for sample in samples],
        [make_target(sample) for sample in samples],
        places.start,
    )


def to_tensor(image: np.ndarray) -> Float[Tensor, "3 h w"]:
    """An RGB image H x W x 3 of 8 bits as the network takes it: channels first, in [0, 1]."""
    return torch.from_numpy(image.transpose(2, 0, 1).astype(np.float32) / np.float32(255))


def network_generator(seed: int, step: int, first: int = 0) -> torch.Generator:
    """Source of the random choices that the network's losses make in a step, from the image at place `first` of the
    batch on."""
    words = np.random.SeedSequence([seed, NETWORK, step]).generate_state(1, np.uint64)
    generator = torch.Generator().manual_seed(int(words[0] >> np.uint64(1)))
    one_each(generator, first)
    return generator


class Batches:
    """Batches by step, made in a thread of their own while the network works on earlier ones. A context manager."""

    def __init__(
        self,
        data: TrainingData,
        settings: BatchSettings,
        bank: Callable[[int], Sequence[Cutout] | None] = lambda step: None,
    ) -> None:
        """bank: what is pasted in a step, None = labelled objects; asked `AHEAD` steps before it at most."""
        self._data, self._settings, self._bank = data, settings, bank
        self._waiting: dict[int, Future[Batch]] = {}
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="batches")

    def __enter__(self) -> Batches:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def use(self, data: TrainingData) -> None:
        """From now on batches are made of `data`."""
        for future in self._waiting.values():
            future.cancel()
        self._data, self._waiting = data, {}

    def get(self, step: int) -> Batch:
        """The batch of a step; those of the next steps are begun. Raises what reading its frames raises."""
        for number in range(step, step + AHEAD + 1):
            if number not in self._waiting:
                self._waiting[number] = self._pool.submit(
                    make_batch, self._data, number, self._settings, self._bank(number)
                )
        return self._waiting.pop(step).result()
