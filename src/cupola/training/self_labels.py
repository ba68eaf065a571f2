"""Self-labels: what the half-trained network finds on its own training frames becomes labels (findings-demo, "Recipe").

Stage 1 marks only what moves. A confident detection that no label speaks against is most likely a standing object, and
learning it as an object does more than merely not punishing it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64, UInt16

from cupola.errors import ConfigError, StoreError
from cupola.io import read_ids, write_ids, write_json
from cupola.models import IGNORE
from cupola.progress import progress
from cupola.training.copy_paste import Cutout, cut_objects
from cupola.training.data import TrainingData
from cupola.training.detecting import AT_ONCE, Detector, detected
from cupola.training.targets import FIRST_OBJECT, MIN_AREA, UNMARKED, Sample

DIRECTORY, INDEX = "self_labels", "index.json"


@dataclass(frozen=True)
class SelfLabelSettings:
    """When and what the network labels itself.

    Attributes:
        at: shares of the training after which it happens; each time replaces the self-labels before; none = never.
        score: least score of a detection.
        max_labelled: a detection is skipped if more than this share of it is labelled as another object.
        max_stuff: or more than this share as stuff.
    """

    at: tuple[float, ...] = (0.4, 0.7)
    score: float = 0.7
    max_labelled: float = 0.2
    max_stuff: float = 0.5

    def __post_init__(self) -> None:
        if not all(0 < share < 1 for share in self.at) or list(self.at) != sorted(set(self.at)):
            raise ConfigError(f"self-labels happen at rising shares of the training between 0 and 1, not at {self.at}")

    def rounds_due(self, share: float) -> int:
        """Rounds that should have been made when `share` of the training is over."""
        return sum(share >= at for at in self.at)


NewLabels = dict[int, tuple[UInt16[np.ndarray, "h w"], Int64[np.ndarray, "n"]]]
"""New codes and classes of frames, by number."""


def add_objects(
    sample: Sample,
    masks: Bool[np.ndarray, "n h w"],
    scores: Float32[np.ndarray, "n"],
    classes: Int64[np.ndarray, "n"],
    settings: SelfLabelSettings,
) -> Sample:
    """The sample with detections added as objects, the best first; they take stuff and void, never another object."""
    codes, known = sample.codes.copy(), sample.classes.tolist()
    for index in np.argsort(-scores, kind="stable"):
        under = codes[masks[index]]
        if scores[index] < settings.score or len(under) < MIN_AREA:
            continue
        labelled = (under >= FIRST_OBJECT).mean()
        stuff = ((under < UNMARKED) & (under > 0)).mean()
        if labelled > settings.max_labelled or stuff > settings.max_stuff:
            continue
        codes[masks[index] & (codes < FIRST_OBJECT)] = FIRST_OBJECT + len(known)
        known.append(int(classes[index]))
    return Sample(sample.image, codes, np.array(known, np.int64))


def discover(network: Detector, data: TrainingData, settings: SelfLabelSettings, device: torch.device) -> NewLabels:
    """New labels of all frames in which the network finds an object that no label marks. Draws nothing at random."""
    found: NewLabels = {}
    for start in progress(range(0, len(data), AT_ONCE), "labelling itself"):
        numbers = range(start, min(start + AT_ONCE, len(data)))
        samples = [data.sample(number) for number in numbers]
        detections = detected(network, samples, settings.score, device)
        for number, sample, (masks, scores, classes) in zip(numbers, samples, detections, strict=True):
            extended = add_objects(sample, masks, scores, classes, settings)
            if len(extended.classes) > len(sample.classes):
                found[number] = extended.codes, extended.classes
    return found


def extended_data(data: TrainingData, labels: NewLabels, min_side: int) -> TrainingData:
    """`data` with self-labels, their objects added to the bank."""
    bank: list[Cutout] = []
    for number in sorted(labels):
        sample = data.sample(number)
        new = range(len(sample.classes), len(labels[number][1]))
        bank += cut_objects(Sample(sample.image, *labels[number]), min_side, new)
    return data.with_labels(labels, bank)


def count_new(data: TrainingData, labels: NewLabels) -> int:
    """Number of objects that the self-labels add."""
    return sum(len(classes) - len(data.sample(number).classes) for number, (_, classes) in labels.items())


def write_self_labels(out: Path, data: TrainingData, labels: NewLabels, round_number: int) -> None:
    """Writes the codes as out/self_labels/ROUND/KEY.png (16 bit), the classes as index.json beside them, last. Raises
    `DiskError`."""
    directory = out / DIRECTORY / str(round_number)
    for number, (codes, _) in labels.items():
        write_ids(directory / f"{data.keys[number]}.png", codes, bits=16)
    codes_mean = {"unmarked": UNMARKED, "ignore": IGNORE, "first_object": FIRST_OBJECT}
    classes = {data.keys[number]: classes.tolist() for number, (_, classes) in labels.items()}
    write_json(directory / INDEX, {"codes": codes_mean, "classes": classes})


def read_self_labels(out: Path, data: TrainingData, round_number: int) -> NewLabels:
    """Reads them back, to go on after a stop. Raises `StoreError` where they are missing or damaged."""
    directory = out / DIRECTORY / str(round_number)
    try:
        content = json.loads((directory / INDEX).read_text(encoding="utf-8"))
        classes = {str(key): np.array(value, np.int64) for key, value in content["classes"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{directory / INDEX} is damaged ({error}); delete {out} and train again") from error
    labels: NewLabels = {}
    for number, key in enumerate(data.keys):
        if key in classes:
            labels[number] = read_ids(directory / f"{key}.png").astype(np.uint16), classes[key]
    return labels
