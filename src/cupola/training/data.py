"""The label store as training samples: read once, kept in memory where they fit, and a bank of objects to paste."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int16, Int64, UInt8, UInt16

from cupola.errors import StoreError, TrainingError
from cupola.progress import progress
from cupola.training.copy_paste import Cutout, cut_objects
from cupola.training.targets import Sample, encode_label, require_room
from cupola.types import PanopticMap

CACHE_BYTES = 2_000_000_000
"""Samples are kept in memory up to this size [bytes]; larger sets are read from disk for every batch."""


@runtime_checkable
class Labels(Protocol):
    """What training asks of a label store (`cupola.pseudo_labels.LabelStore` is one)."""

    @property
    def keys(self) -> tuple[str, ...]: ...
    @property
    def things(self) -> tuple[int, ...]: ...
    @property
    def stuff(self) -> tuple[int, ...]: ...
    def image(self, key: str) -> UInt8[np.ndarray, "h w 3"]: ...
    def label(self, key: str) -> PanopticMap: ...
    def semantic(self, key: str) -> Int16[np.ndarray, "h w"]: ...
    def instances(self, key: str) -> int: ...


@dataclass(frozen=True)
class TrainingData:
    """Frames to learn from. keys: of the frames; sizes: (height, width) of each [px]; bank: objects to paste;
    fingerprint: of all images and labels; objects: labelled ones; sample: of a frame, by number, not to be written
    to."""

    keys: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]
    bank: tuple[Cutout, ...]
    fingerprint: str
    objects: int
    sample: Callable[[int], Sample]

    def __len__(self) -> int:
        return len(self.keys)

    def canvas(self, largest: tuple[int, int]) -> tuple[int, int]:
        """(height, width) [px] of training images: the largest frame, but at most `largest`."""
        heights, widths = zip(*self.sizes, strict=True)
        return min(max(heights), largest[0]), min(max(widths), largest[1])

    def with_labels(
        self, labels: Mapping[int, tuple[UInt16[np.ndarray, "h w"], Int64[np.ndarray, "n"]]], bank: Sequence[Cutout]
    ) -> TrainingData:
        """The same frames with other codes and classes for some of them, and with `bank` added to the bank."""

        def sample(number: int) -> Sample:
            before = self.sample(number)
            return Sample(before.image, *labels[number]) if number in labels else before

        return replace(self, sample=sample, bank=(*self.bank, *bank))


def read_sample(labels: Labels, key: str, left_over: Literal["ignore", "thing"] = "ignore") -> Sample:
    """The sample of one frame; left_over: see `encode_label`. Raises what reading its files raises, and `TrainingError`
    where sizes differ."""
    image = labels.image(key)
    label = labels.label(key)
    if image.shape[:2] != label.classes.shape:
        height, width = label.classes.shape
        raise TrainingError(
            f"the image of frame {key} is {image.shape[1]} x {image.shape[0]}, but its label {width} x {height}; "
            "the data set has changed since it was labelled: label it again"
        )
    codes, classes = encode_label(label, labels.semantic(key), labels.things, labels.stuff, left_over)
    return Sample(image, codes, classes)


def load_data(
    labels: Labels,
    *,
    skip_empty: bool,
    min_side: int,
    bank_size: int,
    seed: int,
    left_over: Literal["ignore", "thing"] = "ignore",
    cache_bytes: int = CACHE_BYTES,
) -> TrainingData:
    """Reads every frame once: for the cache (up to `cache_bytes`), the bank of at most `bank_size` objects with sides
    of `min_side` px, and the fingerprint. skip_empty: leave out frames without an object; those in which nothing moves,
    by the store's index, are not opened at all (N57). left_over: see `encode_label`.

    Raises `TrainingError` where there is nothing to learn things from.
    """
    cache: dict[str, Sample] = {}
    kept: list[tuple[str, tuple[int, int]]] = []
    bank: list[tuple[float, int, Cutout]] = []
    rng = np.random.default_rng([seed, zlib.crc32(b"bank")])
    digest = hashlib.sha256(repr((labels.things, labels.stuff)).encode())
    objects = used = 0
    for key in progress(labels.keys, "reading labels"):
        if skip_empty and not labels.instances(key):
            digest.update(f"{key} left out".encode())
            continue
        sample = read_sample(labels, key, left_over)
        digest.update(
            f"{key} {zlib.crc32(sample.image.tobytes())} {zlib.crc32(sample.codes.tobytes())} {sample.classes}".encode()
        )
        objects += len(sample.classes)
        if skip_empty and not len(sample.classes):
            continue
        kept.append((key, sample.size))
        bank += [(float(rng.random()), len(bank) + i, c) for i, c in enumerate(cut_objects(sample, min_side))]
        if len(bank) > 2 * bank_size:
            bank = sorted(bank)[:bank_size]
        used += sample.image.nbytes + sample.codes.nbytes
        if used <= cache_bytes:
            cache[key] = sample
    _require_learnable(labels, objects)
    cutouts = tuple(entry[2] for entry in sorted(bank, key=lambda entry: entry[:2])[:bank_size])
    keys, sizes = zip(*kept, strict=True)

    def read(number: int) -> Sample:
        key = keys[number]
        return cache[key] if key in cache else read_sample(labels, key, left_over)

    return TrainingData(keys, sizes, cutouts, digest.hexdigest(), objects, read)


def require_same_data(out: Path, before: str, now: str) -> None:
    """Raises `StoreError` unless the run in `out` learnt from the images and labels that are there now, by their
    fingerprints."""
    if before != now:
        raise StoreError(
            f"{out} holds a run on other images or labels; choose another --out, or delete it to begin anew"
        )


def _require_learnable(labels: Labels, objects: int) -> None:
    if not labels.keys:
        raise TrainingError("the label store holds no frame, so there is nothing to learn from")
    require_room(len(labels.stuff))
    if not labels.things:
        raise TrainingError(
            "the label store has no thing class, so there are no objects to learn; label frames in which something "
            "moves, or fuse it again with a smaller --fusion.threshold"
        )
    if not objects:
        raise TrainingError(
            f"none of the {len(labels.keys)} labelled frames holds an object, so there is nothing to learn things "
            "from; label frames in which something moves"
        )
