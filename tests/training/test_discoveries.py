"""Self-enhanced copy-paste: what is taken, when it is looked for and pasted, and that a stop loses nothing of it."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from training_doubles import labels

from cupola.errors import ConfigError
from cupola.training.data import load_data
from cupola.training.discoveries import DELAY, DiscoveryBank, DiscoverySettings, discovered
from cupola.training.sampler import AHEAD
from cupola.training.targets import FIRST_OBJECT, Sample

CPU = torch.device("cpu")


def box(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros((20, 40), bool)
    mask[y0:y1, x0:x1] = True
    return mask


def scene() -> Sample:
    """One labelled object, columns 0..9 and 14..15 (its box reaches to 16), else stuff."""
    codes = np.ones((20, 40), np.uint16)
    codes[:, :10] = FIRST_OBJECT
    codes[0, 14:16] = FIRST_OBJECT
    return Sample(np.arange(20 * 40 * 3, dtype=np.uint32).astype(np.uint8).reshape(20, 40, 3), codes, np.array([4]))


@pytest.mark.parametrize(
    ("mask", "score", "overlap", "taken"),
    [
        (box(25, 0, 35, 10), 0.9, "mask", True),
        (box(25, 0, 35, 10), 0.75, "mask", False),  # not surer than the threshold
        (box(25, 0, 27, 10), 0.9, "mask", False),  # too narrow
        (box(0, 0, 9, 20), 0.9, "mask", False),  # labelled
        (box(6, 0, 22, 20), 0.9, "mask", True),  # a third of the pixels labelled
        (box(8, 0, 20, 20), 0.9, "box", True),  # box IoU 8/20
        (box(5, 0, 20, 20), 0.9, "box", False),  # box IoU 11/20, though its pixels overlap by 100/300
        (box(5, 0, 20, 20), 0.9, "mask", True),
    ],
)
def test_taken_is_what_is_sure_and_not_labelled(mask, score, overlap, taken):
    settings = DiscoverySettings(start=1, overlap=overlap)
    found = discovered(scene(), mask[None], np.array([score], np.float32), np.array([7]), settings, 4)
    assert len(found) == taken
    for cutout in found:
        ys, xs = np.nonzero(mask)
        assert cutout.class_rank == 7
        assert cutout.mask.all()
        assert np.array_equal(cutout.image, scene().image[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1])


@given(start=st.integers(1, 40), every=st.integers(1, 9))
def test_looks_come_regularly_and_the_first_just_in_time(start, every):
    settings = DiscoverySettings(start=start, every=every)
    looks = [step for step in range(100) if settings.look(step) is not None]
    assert [settings.look(step) for step in looks] == list(range(len(looks)))
    assert looks[0] == max(0, start - DELAY)
    assert set(np.diff(looks)) == {every}
    assert DiscoverySettings(start=0, every=every).look(start) is None


@dataclass
class Finder:
    """Finds one object in the lower right corner of every frame; its class counts the calls."""

    calls: list[int] = field(default_factory=list)

    def predict(self, images, *, score_threshold):
        self.calls.append(len(images))
        found = []
        for image in images:
            mask = torch.zeros(1, *image.shape[1:], dtype=torch.bool)
            mask[:, -12:, -12:] = True
            found.append(
                SimpleNamespace(masks=mask, scores=torch.tensor([0.9]), classes=torch.tensor([len(self.calls)]))
            )
        return found


def alone(items):
    return [items]


def played(bank: DiscoveryBank, data, steps, finder=None) -> dict[int, list[int] | None]:
    """Classes of what may be pasted, for each batch, asked for as the loop does: `AHEAD` steps before."""
    finder, asked = finder or Finder(), {}
    for step in steps:
        bank.before_step(step, finder, data, CPU, 0, alone)
        for ahead in range(step, step + AHEAD + 1):
            if ahead not in asked:
                found = bank.objects(ahead)
                asked[ahead] = found and [cutout.class_rank for cutout in found]
    return asked


@pytest.fixture(scope="module")
def data():
    return load_data(labels(4), skip_empty=False, min_side=8, bank_size=100, seed=0)


def test_what_is_pasted_when(data):
    settings = DiscoverySettings(start=6, every=2, frames=3, keep=2)
    asked = played(DiscoveryBank(settings, 8, 0), data, range(12))
    assert all(asked[step] is None for step in range(6))
    assert asked[6] == asked[7] == [1, 1, 1]  # looked before step 3
    assert asked[8] == [1, 1, 1, 2, 2, 2]
    assert asked[10] == [2, 2, 2, 3, 3, 3]  # the last two looks


def test_labelled_objects_are_pasted_while_nothing_is_found(data):
    bank = DiscoveryBank(DiscoverySettings(start=1, every=1, frames=2), 13, 0)  # 12 px are too short
    assert set(played(bank, data, range(5)).values()) == {None}


@pytest.mark.parametrize("stop", [2, 5, 8])
def test_a_stop_changes_nothing(data, stop):
    settings = DiscoverySettings(start=4, every=2, frames=2, keep=3)
    whole = played(DiscoveryBank(settings, 8, 0), data, range(14))
    first, finder = DiscoveryBank(settings, 8, 0), Finder()
    played(first, data, range(stop), finder)
    second = DiscoveryBank(settings, 8, 0)
    second.restore(first.state())
    rest = played(second, data, range(stop, 14), finder)
    assert rest == {step: found for step, found in whole.items() if step >= stop}
    for name, tensor in first.state().items():
        again = DiscoveryBank(settings, 8, 0)
        again.restore(first.state())
        assert torch.equal(again.state()[name], tensor)


def test_processes_share_a_look(data):
    settings = DiscoverySettings(start=1, every=1, frames=20)
    whole = DiscoveryBank(settings, 8, 0)
    whole.before_step(0, Finder(), data, CPU, 0, alone)
    parts: list[list] = [[], []]
    for rank in (0, 1):
        DiscoveryBank(settings, 8, 0).before_step(
            0, Finder(), data, CPU, rank, lambda mine, rank=rank: [parts.__setitem__(rank, mine) or mine, []]
        )
    images = [cutout.image.tobytes() for cutout in whole.objects(DELAY)]
    assert sorted(images) == sorted(cutout.image.tobytes() for part in parts for cutout in part)
    assert 0 < len(parts[1]) < len(images)


def test_impossible_settings():
    with pytest.raises(ConfigError, match=r"discoveries\.every must be at least 1"):
        DiscoverySettings(every=0)
    with pytest.raises(ConfigError, match="start at a step"):
        DiscoverySettings(start=-1)
