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
    stuff_instances=st.sampled_from(["drop_and_ignore", "drop_keep_class"]),
)


def slow_fuse(semantic, instances, split, chosen):
    """Obvious twin: decide pixel by pixel."""
    aligned = slow_align(semantic, instances)
    classes, kept = np.full_like(semantic, VOID), np.zeros_like(instances)
    for at in np.ndindex(semantic.shape):
        number, own, of_mask = instances[at], semantic[at], aligned[at]
        value = of_mask if chosen.align else own
        if number and of_mask in split.things and value == of_mask:
            classes[at], kept[at] = value, number
        elif (number and of_mask not in split.things and chosen.stuff_instances == "drop_and_ignore") or (
            value in split.things and chosen.ignore_thing_without_instance
        ):
            continue
        else:
            classes[at] = value
    return classes, kept


@given(frames(), settings)
def test_like_the_slow_twin(frame, chosen):
    label = fuse(*frame, SPLIT, chosen)
    classes, kept = slow_fuse(*frame, SPLIT, chosen)
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
    keep = FusionSettings(stuff_instances="drop_keep_class")
    assert fuse(semantic, instances, SPLIT, keep).classes.tolist() == [[2, 2, 0]]
    assert fuse(semantic, instances, SPLIT, keep).instances.tolist() == [[0, 0, 0]]


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
