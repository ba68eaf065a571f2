"""Reading labels, the bank, and batches as functions of (seed, step)."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from training_doubles import HEIGHT, WIDTH, MemoryLabels, classes_of, labels, moving, street

from cupola.errors import StoreError, TrainingError
from cupola.models import SOME_THING
from cupola.models.boxes import one_each
from cupola.training.augment import AugmentSettings
from cupola.training.copy_paste import CopyPasteSettings
from cupola.training.data import TrainingData, load_data, require_same_data
from cupola.training.sampler import (
    Batch,
    Batches,
    BatchSettings,
    frames_of_step,
    make_batch,
    network_generator,
    size_of_step,
    to_tensor,
)
from cupola.training.targets import UNMARKED, make_target
from cupola.types import PanopticMap

BATCH = BatchSettings(3, (HEIGHT, WIDTH), 7, AugmentSettings(), CopyPasteSettings())


def load(source: MemoryLabels, **changed) -> TrainingData:
    arguments = {"skip_empty": False, "min_side": 8, "bank_size": 100, "seed": 0} | changed
    return load_data(source, **arguments)


def same(first: Batch, second: Batch) -> bool:
    pairs = zip(first.targets, second.targets, strict=True)
    return (
        first.keys == second.keys
        and all(map(torch.equal, first.images, second.images))
        and all(torch.equal(a.semantic, b.semantic) and torch.equal(a.masks, b.masks) for a, b in pairs)
    )


def test_data_of_the_small_street():
    data = load(labels(4))
    assert data.keys == ("frame0", "frame1", "frame2", "frame3")
    assert data.objects == len(data.bank) == 4
    assert all(cut.mask.shape == (16, 22) and cut.class_rank == 0 for cut in data.bank)
    assert data.canvas((256, 512)) == (HEIGHT, WIDTH)
    assert data.canvas((32, 80)) == (32, 80)


def test_samples_read_from_disk_are_those_of_the_cache():
    cached, read = load(labels(4)), load(labels(4), cache_bytes=0)
    assert cached.fingerprint == read.fingerprint
    for number in range(4):
        assert np.array_equal(cached.sample(number).codes, read.sample(number).codes)
        assert np.array_equal(cached.sample(number).image, read.sample(number).image)
    assert cached.sample(0) is cached.sample(0)
    assert read.sample(0) is not read.sample(0)


def test_frames_without_an_object_are_kept_or_left_out():
    mixed = MemoryLabels((street(0), street(1, cars=0), street(2)))
    assert len(load(mixed)) == 3
    assert load(mixed, skip_empty=True).keys == ("frame0", "frame2")


@dataclass(frozen=True)
class Closed(MemoryLabels):
    """Frames without a moving object cannot be opened."""

    def image(self, key: str) -> np.ndarray:
        found = super().image(key)
        assert self.open or moving(found).any(), f"{key} was opened"
        return found

    open: bool = False

    def instances(self, key: str) -> int:
        return int(moving(super().image(key)).any())


def test_empty_frames_are_left_out_by_the_index_alone():
    images = (street(0), street(1, cars=0), street(2))
    assert load(Closed(images), skip_empty=True).keys == ("frame0", "frame2")
    with pytest.raises(AssertionError, match="frame1 was opened"):
        load(Closed(images))


def test_things_without_object_are_ignored_or_some_thing():
    ignored, learnt = (load(labels(1), left_over=rule).sample(0) for rule in ("ignore", "thing"))
    standing = (classes_of(street(0)) == 2) & ~moving(street(0))
    assert standing.any()
    assert (ignored.codes[standing] == UNMARKED).all()
    assert (make_target(learnt).semantic.numpy()[standing] == SOME_THING).all()
    assert np.array_equal(make_target(learnt).ignore.numpy(), standing)  # no evidence against objects either
    assert np.array_equal(ignored.codes[~standing], learnt.codes[~standing])


def test_sizes_of_steps_are_multiples_for_the_whole_batch():
    settings = replace(BATCH, canvas=(640, 1280), augment=AugmentSettings(resolution=(0.6, 1.1)))
    sizes = {size_of_step(settings, step)[1] for step in range(200)}
    assert sizes == {(height, 2 * height) for height in range(384, 705, 32)}
    assert size_of_step(BATCH, 3) == (1.0, BATCH.canvas)
    small = replace(BATCH, augment=AugmentSettings(zoom=(1.0, 1.0), resolution=(0.5, 1.0)))
    batches = [make_batch(load(labels(3)), step, small) for step in range(8)]
    assert {batch.images[0].shape for batch in batches} > {(3, 64, 64), (3, 64, 96)}
    assert not any(side % 32 for batch in batches for side in batch.images[0].shape[1:])
    assert all(len({image.shape for image in batch.images}) == 1 for batch in batches)


def test_pastes_come_from_the_bank_that_is_handed_in_or_from_the_batch():
    data = load(labels(6))
    from_batch = replace(BATCH, size=1, copy_paste=CopyPasteSettings(source="batch", bottom_shift=1.0))
    number = make_batch(data, 0, from_batch).keys
    alone = load(MemoryLabels((labels(6).image(number[0]),)))
    assert torch.equal(make_batch(data, 0, from_batch).images[0], make_batch(alone, 0, from_batch).images[0])
    given = make_batch(data, 0, BATCH, data.bank[:1])
    assert same(given, make_batch(replace(data, bank=data.bank[:1]), 0, BATCH))
    assert not same(given, make_batch(data, 0, BATCH))


@pytest.mark.parametrize("ranks", [2, 3])
def test_shares_of_processes_make_up_the_batch(ranks):
    data, whole = load(labels(5)), replace(BATCH, size=6)
    together = make_batch(data, 4, whole)
    shares = [make_batch(data, 4, replace(whole, rank=rank, ranks=ranks)) for rank in range(ranks)]
    pieces = together.pieces(ranks)
    assert [share.first for share in shares] == [piece.first for piece in pieces] == list(range(0, 6, 6 // ranks))
    assert all(map(same, shares, pieces))


@given(st.integers(0, 2**40), st.integers(0, 1000), st.integers(0, 20), st.integers(1, 5))
def test_draws_of_an_image_depend_on_its_place_alone(seed, step, first, count):
    whole = one_each(network_generator(seed, step), first + count)[first:]
    part = one_each(network_generator(seed, step, first), count)
    assert [source.initial_seed() for source in whole] == [source.initial_seed() for source in part]


def test_the_bank_is_limited_by_a_seeded_draw():
    all_of_it, some = load(labels(9)), load(labels(9), bank_size=3)
    assert len(some.bank) == 3
    assert {cut.bottom for cut in some.bank} <= {cut.bottom for cut in all_of_it.bank}
    again, other = load(labels(9), bank_size=3), load(labels(9), bank_size=3, seed=1)
    assert [cut.bottom for cut in again.bank] == [cut.bottom for cut in some.bank]
    assert [cut.bottom for cut in other.bank] != [cut.bottom for cut in some.bank]


def test_fingerprint_follows_images_and_labels():
    base = load(labels(2)).fingerprint
    assert load(labels(2)).fingerprint == base
    assert load(labels(3)).fingerprint != base
    assert load(replace(labels(2), stuff=(0, 1))).fingerprint != base
    with pytest.raises(StoreError, match="other images or labels"):
        require_same_data(Path("out"), base, load(labels(3)).fingerprint)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (MemoryLabels(()), "holds no frame"),
        (replace(labels(2), things=(), stuff=(0, 1, 2)), "no thing class"),
        (labels(2, cars=0), "none of the 2 labelled frames holds an object"),
    ],
)
def test_nothing_to_learn_from_is_said(source, message):
    with pytest.raises(TrainingError, match=message):
        load(source)


def test_an_image_that_changed_its_size_is_named():
    class Grown(MemoryLabels):
        def image(self, key):
            return np.zeros((HEIGHT, WIDTH + 1, 3), np.uint8)

        def semantic(self, key):
            return np.zeros((HEIGHT, WIDTH), np.int16)

        def label(self, key):
            return PanopticMap(np.zeros((HEIGHT, WIDTH), np.int16), np.zeros((HEIGHT, WIDTH), np.int32))

    with pytest.raises(TrainingError, match="frame0 is 97 x 64, but its label 96 x 64"):
        load(Grown((street(0),)))


@given(st.integers(1, 20), st.integers(1, 9), st.integers(0, 1000))
def test_every_epoch_shows_every_frame_once(frames, size, seed):
    epochs = 3
    steps = -(-frames * epochs // size)
    numbers = [number for step in range(steps) for number in frames_of_step(frames, size, step, seed)]
    for epoch in range(epochs):
        assert sorted(numbers[epoch * frames : (epoch + 1) * frames]) == list(range(frames))


def test_a_batch_is_a_function_of_seed_and_step():
    data = load(labels(4))
    first = make_batch(data, 5, BATCH)
    assert same(first, make_batch(data, 5, BATCH))
    assert not same(first, make_batch(data, 6, BATCH))
    assert not same(first, make_batch(data, 5, replace(BATCH, seed=8)))
    assert len(first.images) == 3
    assert all(image.shape == (3, HEIGHT, WIDTH) and image.min() >= 0 and image.max() <= 1 for image in first.images)


def test_batches_made_ahead_are_the_same_and_follow_new_data():
    data = load(labels(4))
    plain = data.with_labels({}, [])
    codes = {number: (np.ones((HEIGHT, WIDTH), np.uint16), np.zeros(0, np.int64)) for number in range(4)}
    unlabelled = replace(data.with_labels(codes, []), bank=())
    with Batches(data, BATCH) as batches:
        for step in (0, 1, 2):
            assert same(batches.get(step), make_batch(plain, step, BATCH))
        batches.use(unlabelled)
        for step in (3, 4):
            assert same(batches.get(step), make_batch(unlabelled, step, BATCH))


def test_an_error_while_reading_ahead_reaches_the_caller():
    def broken(number):
        raise StoreError("gone")

    with Batches(replace(load(labels(2)), sample=broken), BATCH) as batches, pytest.raises(StoreError, match="gone"):
        batches.get(0)


def test_generators_differ_by_step_and_seed():
    draws = {torch.rand(1, generator=network_generator(seed, step)).item() for seed in range(3) for step in range(3)}
    assert len(draws) == 9
    assert torch.rand(1, generator=network_generator(1, 2)).item() in draws


def test_to_tensor():
    image = street(0)
    assert torch.equal(to_tensor(image)[:, 3, 5], torch.from_numpy(image[3, 5]) / 255)
