"""A small street of coloured blocks with labels; a label store of it on disk, a data set with truth, and a network."""

from __future__ import annotations

from dataclasses import dataclass
from inspect import signature
from pathlib import Path

import cv2
import numpy as np
import torch
import yaml

from cupola.models import PanopticNetwork, tiny
from cupola.pseudo_labels import LabelStore, Parts, label_with, pseudo_label
from cupola.types import VOID, Correspondence, Instances, PanopticMap, SemanticMap

HEIGHT, WIDTH = 64, 96
SKY, ROAD, CAR = 23, 7, 26
"""Cityscapes label ids."""
COLORS = {"sky": (90, 140, 200), "road": (100, 100, 100), "car": (220, 30, 30)}


def street(number: int, cars: int = 2, seed: int = 0) -> np.ndarray:
    """An image with sky above, road below and red blocks on it; the first block is bright, hence it moves."""
    rng = np.random.default_rng([seed, number])
    image = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    image[:] = COLORS["road"]
    image[: HEIGHT // 2] = COLORS["sky"]
    image += rng.integers(0, 8, image.shape, np.uint8)
    for car in range(cars):
        x, y = 8 + 44 * car + int(rng.integers(12)), 26 + int(rng.integers(8))
        image[y : y + 16, x : x + 22] = COLORS["car"] if car else (250, 40, 40)
    return image


def classes_of(image: np.ndarray) -> np.ndarray:
    """0 sky, 1 road, 2 car."""
    red = image[..., 0].astype(int) - image[..., 2]
    return np.where(red > 80, 2, np.where(red < -60, 0, 1)).astype(np.int16)


def moving(image: np.ndarray) -> np.ndarray:
    return image[..., 0] >= 245


@dataclass(frozen=True)
class MemoryLabels:
    """What training asks of a label store, in memory: class 2 is a thing, 0 and 1 are stuff."""

    images: tuple[np.ndarray, ...]
    things: tuple[int, ...] = (2,)
    stuff: tuple[int, ...] = (1, 0)

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(f"frame{number}" for number in range(len(self.images)))

    def image(self, key: str) -> np.ndarray:
        return self.images[self.keys.index(key)]

    def semantic(self, key: str) -> np.ndarray:
        return classes_of(self.image(key))

    def instances(self, key: str) -> int:
        return int(self.instance_map(key).max())

    def instance_map(self, key: str) -> np.ndarray:
        return moving(self.image(key)).astype(np.int32)

    def label(self, key: str) -> PanopticMap:
        classes, instances = self.semantic(key), self.instance_map(key)
        unseen = np.isin(classes, self.things) & (instances == 0)
        return PanopticMap(np.where(unseen, np.int16(VOID), classes), instances)


def labels(frames: int = 4, cars: int = 2) -> MemoryLabels:
    return MemoryLabels(tuple(street(number, cars) for number in range(frames)))


@dataclass(frozen=True)
class Still:
    def __call__(self, clip):
        height, width = clip.first.size
        flow, known = np.zeros((2, height, width), np.float32), np.ones((height, width), bool)
        disparity = np.full((height, width), 4, np.float32)
        return Correspondence(flow, flow, disparity, disparity, known, known, known)

    def disparity(self, frame):
        return np.full(frame.size, 4, np.float32), np.ones(frame.size, bool)


@dataclass(frozen=True)
class BrightMoves:
    def __call__(self, clip, correspondence, seed):
        mask = moving(clip.first.left)
        return Instances(mask[None], np.ones(1, np.float32)) if mask.any() else Instances.empty(*clip.first.size)


@dataclass(frozen=True)
class ColorSemantics:
    classes: int = 3

    def choose(self, count):
        return [0]

    def describe(self, frame, disparity, valid, seed):
        return 0

    def fit_described(self, frames, seed):
        return ColorModel()

    def load(self, path):
        return ColorModel.load(path)


@dataclass(frozen=True)
class ColorModel:
    num_classes: int = 3

    def __call__(self, frame, disparity, valid):
        return SemanticMap(classes_of(frame.left))

    def save(self, path):
        np.savez(path, classes=3)

    @staticmethod
    def load(path):
        return ColorModel()


def write_store(root: Path, frames: int = 4, cars: int = 2, seed: int = 0) -> Path:
    """A real label store of the small street, made by stage 1 with stand-ins for its parts."""
    for side in ("left", "right"):
        (root / "data" / side).mkdir(parents=True)
        for number in range(frames + 1):
            image = street(number, cars, seed)
            cv2.imwrite(str(root / "data" / side / f"{number:06d}.png"), image[..., ::-1])
    calibration = {"fx": 40.0, "fy": 40.0, "cx": 47.5, "cy": 31.5, "baseline": 0.5}
    (root / "data" / "calibration.yaml").write_text(yaml.safe_dump(calibration))
    defaults = {name: parameter.default for name, parameter in signature(pseudo_label).parameters.items()}
    arguments = defaults | {"data": root / "data", "out": root / "labels", "workers": 1}
    store: LabelStore = label_with(Parts(Still(), BrightMoves(), ColorSemantics()), arguments)
    return store.path


def write_truth(root: Path, images: int, start: int = 0) -> Path:
    """Single stereo frames of `street` with Cityscapes ids, the right half of the second car a crowd."""
    for part in ("left", "right", "truth"):
        (root / part).mkdir(parents=True)
    calibration = {"fx": 80.0, "fy": 80.0, "cx": 60.0, "cy": 30.0, "baseline": 0.3}
    (root / "calibration.yaml").write_text(yaml.safe_dump(calibration))
    for number in range(start, start + images):
        image = street(number)
        kinds = classes_of(image)
        ids = np.array([SKY, ROAD, CAR], np.uint16)[kinds]
        ids[kinds == 2] = np.where(np.nonzero(kinds == 2)[1] < 46, CAR * 1000 + 1, CAR * 1000 + 2)
        ids[(ids > 1000) & (np.arange(WIDTH) > 70)] = CAR
        cv2.imwrite(str(root / f"left/{number:04d}.png"), image[..., ::-1])
        cv2.imwrite(str(root / f"right/{number:04d}.png"), image[..., ::-1])
        cv2.imwrite(str(root / f"truth/{number:04d}_instanceIds.png"), ids)
    return root


def decided() -> PanopticNetwork:
    """An untrained network of two things and two stuff classes whose heads have opinions."""
    torch.manual_seed(0)
    network = PanopticNetwork(tiny(), 2, 2)
    with torch.no_grad():
        network.roi_heads.box_predictor[0].cls_score.weight.mul_(100)
    return network.eval()
