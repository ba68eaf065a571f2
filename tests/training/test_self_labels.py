"""What the network finds becomes a label only where no label speaks against it."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from training_doubles import HEIGHT, WIDTH, labels

from cupola.errors import ConfigError, StoreError
from cupola.models import NetworkPrediction
from cupola.training.data import load_data
from cupola.training.self_labels import (
    SelfLabelSettings,
    add_objects,
    count_new,
    discover,
    extended_data,
    read_self_labels,
    write_self_labels,
)
from cupola.training.targets import FIRST_OBJECT, UNMARKED, Sample, object_areas

CPU = torch.device("cpu")


def box(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros((20, 40), bool)
    mask[y0:y1, x0:x1] = True
    return mask


def scene() -> Sample:
    """Stuff, one object (columns 0..9), and ignored pixels (columns 20..39)."""
    codes = np.ones((20, 40), np.uint16)
    codes[:, :10] = FIRST_OBJECT
    codes[:, 20:] = UNMARKED
    return Sample(np.zeros((20, 40, 3), np.uint8), codes, np.array([4]))


@pytest.mark.parametrize(
    ("mask", "score", "taken"),
    [
        (box(25, 0, 35, 10), 0.9, True),
        (box(25, 0, 35, 10), 0.69, False),  # not sure enough
        (box(15, 0, 25, 10), 0.9, True),  # half of it stuff
        (box(14, 0, 25, 10), 0.9, False),  # more than half
        (box(0, 0, 10, 10), 0.9, False),  # labelled already
        (box(4, 0, 28, 10), 0.9, False),  # a quarter labelled
        (box(25, 0, 28, 5), 0.9, False),  # 15 px
    ],
)
def test_what_is_taken(mask, score, taken):
    found = add_objects(scene(), mask[None], np.array([score], np.float32), np.array([2]), SelfLabelSettings())
    assert found.classes.tolist() == ([4, 2] if taken else [4])
    if taken:
        assert np.array_equal(found.codes == FIRST_OBJECT + 1, mask)
    else:
        assert np.array_equal(found.codes, scene().codes)


def test_the_best_detection_comes_first_and_objects_keep_their_pixels():
    masks = np.stack([box(24, 0, 34, 10), box(25, 0, 35, 10), box(20, 10, 30, 20)])
    found = add_objects(
        scene(), masks, np.array([0.8, 0.9, 0.85], np.float32), np.array([0, 1, 2]), SelfLabelSettings()
    )
    assert found.classes.tolist() == [4, 1, 2]
    assert object_areas(found.codes, 3).tolist() == [200, 100, 100]


@dataclass
class Finder:
    """Finds every red block, as a trained network would."""

    def predict(self, images, *, score_threshold):
        return [self._one(image) for image in images]

    def _one(self, image):
        red = (image[0] - image[2] > 0.3) & (image[0] < 0.94)
        count = int(red.any())
        return NetworkPrediction(
            semantic=torch.zeros(3, *red.shape),
            boxes=torch.zeros(count, 4),
            scores=torch.ones(count),
            classes=torch.zeros(count, dtype=torch.int64),
            masks=red[None][:count],
            panoptic=torch.zeros(red.shape, dtype=torch.int32),
            segments=(),
        )


def test_the_standing_car_is_found_stored_and_pasted(tmp_path):
    data = load_data(labels(10), skip_empty=False, min_side=8, bank_size=100, seed=0)
    found = discover(Finder(), data, SelfLabelSettings(), CPU)
    assert sorted(found) == list(range(10))
    assert count_new(data, found) == 10
    write_self_labels(tmp_path, data, found, 1)
    again = read_self_labels(tmp_path, data, 1)
    assert again.keys() == found.keys()
    for number, (codes, classes) in found.items():
        assert np.array_equal(again[number][0], codes)
        assert np.array_equal(again[number][1], classes)
        assert codes.shape == (HEIGHT, WIDTH)
        assert not (codes == UNMARKED).any()  # the car that stood was all that was unmarked
    learnt = extended_data(data, again, 8)
    assert len(learnt.bank) == 20
    assert {cut.mask.shape for cut in learnt.bank} == {(16, 22)}
    assert len(learnt.sample(3).classes) == 2
    assert len(data.sample(3).classes) == 1


def test_damaged_self_labels_are_named(tmp_path):
    data = load_data(labels(2), skip_empty=False, min_side=8, bank_size=100, seed=0)
    with pytest.raises(StoreError, match=r"self_labels/1/index\.json"):
        read_self_labels(tmp_path, data, 1)


@pytest.mark.parametrize("at", [(0.0,), (1.0,), (0.6, 0.4), (0.5, 0.5)])
def test_impossible_times(at):
    with pytest.raises(ConfigError, match="rising shares"):
        SelfLabelSettings(at=at)
