from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_align import frames, slow_align

from cupola.errors import ConfigError
from cupola.pseudo_labels import FusionSettings, ThingStuffSplit, fuse
from cupola.types import VOID

SPLIT = ThingStuffSplit(things=(4, 1), stuff=(0, 2, 3, 5))

settings = st.builds(
    FusionSettings,
    align=st.booleans(),
    ignore_thing_without_instance=st.booleans(),
    stuff_instances=st.sampled_from(["drop_and_ignore", "drop_keep_class", "take_thing"]),
    least_thing=st.sampled_from([0.0, 0.1, 0.5]),
)


def slow_take_thing(semantic, instances, aligned, split, least):
    """Masks of stuff with enough thing pixels become the thing that they hold most of."""
    for number in set(instances[instances > 0].tolist()):
        mask = instances == number
        known = [value for value in semantic[mask].tolist() if value != VOID]
        things = Counter(value for value in known if value in split.things)
        if known and aligned[mask][0] not in split.things and things.total() > least * len(known):
            aligned[mask] = min(value for value, count in things.items() if count == max(things.values()))


def slow_fuse(semantic, instances, split, chosen, movable=None):
    """Obvious twin: decide pixel by pixel."""
    aligned = slow_align(semantic, instances)
    if chosen.stuff_instances == "take_thing":
        slow_take_thing(semantic, instances, aligned, split, chosen.least_thing)
    classes, kept = np.full_like(semantic, VOID), np.zeros_like(instances)
    for at in np.ndindex(semantic.shape):
        number, own, of_mask = instances[at], semantic[at], aligned[at]
        value = of_mask if chosen.align else own
        if number and of_mask in split.things and value == of_mask:
            classes[at], kept[at] = value, number
        elif (
            (number and of_mask not in split.things and chosen.stuff_instances != "drop_keep_class")
            or (value in split.things and chosen.ignore_thing_without_instance)
            or (not number and movable is not None and movable[at])
        ):
            continue
        else:
            classes[at] = value
    return classes, kept


@given(frames(), settings, st.none() | st.integers(0, 2**32))
def test_like_the_slow_twin(frame, chosen, seed):
    movable = None if seed is None else np.random.default_rng(seed).random(frame[0].shape) < 0.3
    label = fuse(*frame, SPLIT, chosen, movable)
    classes, kept = slow_fuse(*frame, SPLIT, chosen, movable)
    np.testing.assert_array_equal(label.classes, classes)
    np.testing.assert_array_equal(label.instances, kept)


@given(frames(), settings)
def test_an_instance_is_of_one_thing_class_and_keeps_its_id(frame, chosen):
    label = fuse(*frame, SPLIT, chosen)
    for number in np.unique(label.instances[label.instances > 0]):
        assert set(label.classes[label.instances == number].tolist()) <= set(SPLIT.things)
        assert len(set(label.classes[label.instances == number].tolist())) == 1
        assert (frame[1][label.instances == number] == number).all()


@given(frames())
def test_by_default_a_thing_pixel_has_an_instance_and_no_stuff_pixel_has(frame):
    label = fuse(*frame, SPLIT, FusionSettings())
    np.testing.assert_array_equal(np.isin(label.classes, SPLIT.things), label.instances > 0)


@given(frames())
def test_the_input_is_left_alone(frame):
    semantic, instances = frame[0].copy(), frame[1].copy()
    fuse(*frame, SPLIT, FusionSettings())
    np.testing.assert_array_equal(frame[0], semantic)
    np.testing.assert_array_equal(frame[1], instances)


def test_a_stuff_mask_is_ignored_or_keeps_its_class():
    semantic, instances = np.array([[2, 2, 0]], np.int16), np.array([[1, 1, 0]], np.int32)
    assert fuse(semantic, instances, SPLIT, FusionSettings()).classes.tolist() == [[VOID, VOID, 0]]
    ignore = FusionSettings(stuff_instances="drop_and_ignore")
    assert fuse(semantic, instances, SPLIT, ignore).classes.tolist() == [[VOID, VOID, 0]]
    keep = FusionSettings(stuff_instances="drop_keep_class")
    assert fuse(semantic, instances, SPLIT, keep).classes.tolist() == [[2, 2, 0]]
    assert fuse(semantic, instances, SPLIT, keep).instances.tolist() == [[0, 0, 0]]


def test_a_stuff_mask_with_some_thing_in_it_is_of_that_thing():
    semantic, instances = np.array([[2, 2, 2, 1, 1, 4, 1]], np.int16), np.array([[1, 1, 1, 1, 1, 1, 0]], np.int32)
    label = fuse(semantic, instances, SPLIT, FusionSettings())
    assert label.classes.tolist() == [[1, 1, 1, 1, 1, 1, VOID]]
    assert label.instances.tolist() == [[1, 1, 1, 1, 1, 1, 0]]
    strict = FusionSettings(least_thing=0.5)
    assert not fuse(semantic, instances, SPLIT, strict).instances.any()


def test_movable_pixels_are_ignored_outside_masks():
    semantic, instances = np.array([[2, 2, 4, 0]], np.int16), np.array([[0, 0, 3, 0]], np.int32)
    label = fuse(semantic, instances, SPLIT, FusionSettings(), np.array([[True, False, True, True]]))
    assert label.classes.tolist() == [[VOID, 2, 4, VOID]]


def test_without_things_every_label_is_stuff_or_ignored():
    rng = np.random.default_rng(0)
    semantic, instances = rng.integers(0, 3, (4, 5)).astype(np.int16), rng.integers(0, 2, (4, 5)).astype(np.int32)
    label = fuse(semantic, instances, ThingStuffSplit((), (0, 1, 2)), FusionSettings())
    assert not label.instances.any()
    np.testing.assert_array_equal(label.classes == VOID, instances > 0)


@pytest.mark.parametrize("threshold", [-0.1, 1.0, 8.0])
def test_an_impossible_threshold_is_refused(threshold):
    with pytest.raises(ConfigError, match="threshold must be at least 0 and below 1"):
        FusionSettings(threshold=threshold)
