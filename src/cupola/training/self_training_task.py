"""The task of stage 3: images without labels, which a teacher labels as it goes; the teacher follows the student."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import UInt8
from lightning_fabric import Fabric
from torch import Tensor, nn

from cupola.errors import StoreError
from cupola.models import PanopticModel, PanopticNetwork, predict_views
from cupola.models.layers import freeze_norms
from cupola.training.augment import augment
from cupola.training.copy_paste import cut_objects, paste_objects
from cupola.training.frames import Frames
from cupola.training.processes import gathered
from cupola.training.sampler import AHEAD, VIEW, Batch, frames_of_step, to_tensor
from cupola.training.self_training_settings import SelfTrainingSettings
from cupola.training.targets import Sample, make_target
from cupola.training.teacher_labels import teacher_sample

ROWS, USE = 3, 6
"""What a stream of random numbers is for, beside those of `sampler`: the size of a step's images, the order in which
the images of a pool are used."""

TEACHER, CODES, CLASSES = "teacher/", "codes/", "classes/"
"""Beginnings of the names of a state's tensors: weights of the teacher, labels of each image of the pool."""


class SelfTrainingTask:
    """Stage 3 as a `cupola.training.loop.Task`.

    A block is the steps that share a pool of images. The teacher labels these, whole and as they are, before the first
    of the steps, and then stays what the student's steps make of it; each step pastes and varies its share anew.
    """

    def __init__(
        self,
        teacher: PanopticNetwork,
        frames: Frames,
        settings: SelfTrainingSettings,
        seed: int,
        name: str,
        fabric: Fabric | None = None,
    ) -> None:
        """teacher: on its device, changed in place; name: of all that it learns from, the network it began as too;
        fabric: of several processes, each of which labels and learns its share of the images."""
        self._fabric = fabric
        self.teacher = teacher.eval().requires_grad_(False)
        self._frames, self._settings, self._seed, self.fingerprint = frames, settings, seed, name
        self._pool: list[Sample] = []
        self._images: dict[int, Future[list[UInt8[np.ndarray, "_h _w 3"]]]] = {}
        self._waiting: dict[int, Future[Batch]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="self-training")

    def parameters(self, network: PanopticModel) -> Iterable[tuple[str, nn.Parameter]]:
        """Those of `SelfTrainingSettings.trained`."""
        return trained_parameters(network, self._settings.trained)

    def train_mode(self, network: PanopticModel) -> None:
        """Batch norms are constants (spec-network 3.1)."""
        freeze_norms(network.train())

    @contextmanager
    def batches(self) -> Iterator[SelfTrainingTask]:
        """The task itself, while its thread that reads and varies images is there."""
        try:
            yield self
        finally:
            self._thread.shutdown(cancel_futures=True)

    def numbers(self, block: int) -> list[int]:
        """Numbers of the images of a block's pool: every image once, in random order, before any comes again."""
        return frames_of_step(len(self._frames), self._settings.pool, block, self._seed)

    def before_step(self, step: int, share: float, network: PanopticModel) -> None:
        """Labels the pool of the block that begins, with the teacher as it is after the step before."""
        block, place = divmod(step, self._settings.block)
        if place == 0:
            images = self._read_ahead(block).result()
            self._read_ahead(block + 1)
            self._pool = self._labelled_together(images)
        elif not self._images:  # went on inside a block
            images = self._read_ahead(block).result()
            self._read_ahead(block + 1)
            self._pool = [replace(label, image=image) for label, image in zip(self._pool, images, strict=True)]

    def _read_ahead(self, block: int) -> Future[list[UInt8[np.ndarray, "_h _w 3"]]]:
        if block not in self._images:
            numbers = self.numbers(block)
            self._images = {block: self._thread.submit(lambda: [self._frames.read(number) for number in numbers])}
        return self._images[block]

    def label(self, images: Sequence[UInt8[np.ndarray, "_h _w 3"]]) -> list[Sample]:
        """What the teacher sees in images, in float32."""
        labels, device = self._settings.labels, self.teacher.mean.device
        with torch.autocast(device.type, enabled=False):
            predictions = predict_views(
                self.teacher,
                [to_tensor(image).to(device) for image in images],
                self._settings.views,
                score_threshold=labels.doubt,
            )
        return [teacher_sample(image, found, labels) for image, found in zip(images, predictions, strict=True)]

    def _labelled_together(self, images: Sequence[UInt8[np.ndarray, "_h _w 3"]]) -> list[Sample]:
        """The labels of a pool, each process labelling its share."""
        if self._fabric is None or self._fabric.world_size == 1:
            return self.label(images)
        share = self._share(len(images))
        mine = [(sample.codes, sample.classes) for sample in self.label(images[share.start : share.stop])]
        labels = [label for part in gathered(self._fabric, mine) for label in part]
        return [Sample(image, *label) for image, label in zip(images, labels, strict=True)]

    def _share(self, count: int) -> range:
        """Which of `count` images are those of this process."""
        rank, ranks = (0, 1) if self._fabric is None else (self._fabric.global_rank, self._fabric.world_size)
        return range(rank * (count // ranks), (rank + 1) * (count // ranks))

    def get(self, step: int) -> Batch:
        """The batch of a step; those of the next steps of its block are begun."""
        end = (step // self._settings.block + 1) * self._settings.block
        for number in range(step, min(step + AHEAD + 1, end)):
            if number not in self._waiting:
                self._waiting[number] = self._thread.submit(self._batch, self._pool, number)
        return self._waiting.pop(step).result()

    def _batch(self, pool: Sequence[Sample], step: int) -> Batch:
        settings = self._settings
        block, place = divmod(step, settings.block)
        chosen = images_of_step(settings, block, place, self._seed)
        numbers = self.numbers(block)
        keys, samples = tuple(self._frames.keys[numbers[n]] for n in chosen), [pool[n] for n in chosen]
        rows = settings.student_rows(self.teacher.settings.rows)
        return student_batch(keys, samples, step, settings, self._seed, rows, self._share(len(chosen)))

    @torch.no_grad()
    def after_step(self, step: int, network: PanopticModel) -> None:
        """The teacher follows the student."""
        follow(self.teacher, network, self._settings.decay)

    def state(self) -> Mapping[str, Tensor]:
        """The teacher, and the labels of the pool where its block may not be over."""
        state = {TEACHER + name: tensor for name, tensor in self.teacher.state_dict().items()}
        if self._settings.block > 1:
            for number, sample in enumerate(self._pool):
                state[f"{CODES}{number}"] = torch.from_numpy(sample.codes.astype(np.int32))
                state[f"{CLASSES}{number}"] = torch.from_numpy(sample.classes)
        return state

    def restore(self, state: Mapping[str, Tensor], network: PanopticModel) -> None:
        """Puts teacher and labels back; the images are read again before the next step. Raises `StoreError`."""
        weights = {name.removeprefix(TEACHER): t for name, t in state.items() if name.startswith(TEACHER)}
        try:
            self.teacher.load_state_dict(weights)
            count = sum(name.startswith(CODES) for name in state)
            self._pool = [_label(state[f"{CODES}{n}"], state[f"{CLASSES}{n}"]) for n in range(count)]
        except (RuntimeError, KeyError) as error:
            reason = str(error).splitlines()[0]
            raise StoreError(
                f"the saved state holds no teacher of this network ({reason}); choose another --out"
            ) from error


def _label(codes: Tensor, classes: Tensor) -> Sample:
    """A label whose image is still to be read."""
    height, width = codes.shape
    return Sample(np.zeros((height, width, 3), np.uint8), codes.numpy().astype(np.uint16), classes.numpy())


def trained_parameters(network: nn.Module, trained: str) -> list[tuple[str, nn.Parameter]]:
    """The parameters of `SelfTrainingSettings.trained`, by name."""
    norms = {id(p) for m in network.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()}
    named = [(name, parameter) for name, parameter in network.named_parameters() if id(parameter) not in norms]
    return named if trained == "all" else [(name, p) for name, p in named if "head" in name and "norm" not in name]


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, decay: float) -> None:
    """teacher := decay * teacher + (1 - decay) * student, for all parameters, in float32 (spec-network 3.1). Buffers
    are those of the student."""
    for weight, toward in zip(teacher.parameters(), student.parameters(), strict=True):
        weight.lerp_(toward, 1 - decay)
    for constant, given in zip(teacher.buffers(), student.buffers(), strict=True):
        constant.copy_(given)


def images_of_step(settings: SelfTrainingSettings, block: int, place: int, seed: int) -> list[int]:
    """Which images of its pool a step learns from, the step at `place` in its block: all of them in a random order,
    then again in another, `uses` times."""
    use, part = divmod(place, settings.batches)
    order = np.random.default_rng([seed, USE, block, use]).permutation(settings.pool)
    return [int(number) for number in order[part * settings.batch : (part + 1) * settings.batch]]


def student_batch(
    keys: tuple[str, ...],
    samples: Sequence[Sample],
    step: int,
    settings: SelfTrainingSettings,
    seed: int,
    predicted_rows: int,
    places: range | None = None,
) -> Batch:
    """What the student learns in a step: labelled images with objects of each other pasted (copies: N7), varied, and
    seen in a crop. A pure function of its arguments. predicted_rows: of the student; places: those of the batch
    that are wanted, by default all."""
    places = range(len(samples)) if places is None else places
    bank = [cutout for sample in samples for cutout in cut_objects(sample, settings.copy_paste.min_side)]
    rows = _between(settings.rows, np.random.default_rng([seed, ROWS, step]))
    varied = []
    for index, sample in zip(places, samples[places.start : places.stop], strict=True):
        rng = np.random.default_rng([seed, VIEW, step, index])
        pasted = paste_objects(sample, bank, settings.copy_paste, rng)
        scale = rows * max(1.0, predicted_rows / sample.size[0])
        zoom = scale / _between(settings.crop, rng)
        height, width = (max(1, round(side * scale)) for side in sample.size)
        varied.append(augment(pasted, (height, width), replace(settings.augment, zoom=(zoom, zoom)), rng))
    images, targets = [to_tensor(sample.image) for sample in varied], [make_target(sample) for sample in varied]
    return Batch(keys[places.start : places.stop], images, targets, places.start)


def _between(limits: tuple[float, float], rng: np.random.Generator) -> float:
    """A number between two, as likely half as large as twice as large."""
    return float(np.exp(rng.uniform(*np.log(limits))))
