"""Labels to codes to targets, and what becomes of objects of which little is left."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from training_doubles import MemoryLabels, street

from cupola.errors import TrainingError
from cupola.models import IGNORE
from cupola.training.targets import (
    FIRST_OBJECT,
    MIN_AREA,
    UNMARKED,
    Sample,
    box_of_mask,
    encode_label,
    hide_remnants,
    make_target,
    object_areas,
    require_room,
)
from cupola.types import VOID, PanopticMap

THINGS, STUFF = (7, 2), (5, 0)


def encode(classes, instances=None, semantic=None):
    classes = np.array(classes, np.int16)
    instances = np.zeros(classes.shape, np.int32) if instances is None else np.array(instances, np.int32)
    semantic = classes if semantic is None else np.array(semantic, np.int16)
    return encode_label(PanopticMap(classes, instances), semantic, THINGS, STUFF)


def test_codes_of_every_kind_of_pixel():
    #        stuff, stuff, thing object, thing without, void: was a thing, void: was stuff, never known, unused class
    classes = [[5, 0, 2, 7, VOID, VOID, VOID, 3]]
    codes, ranks = encode(classes, [[0, 0, 4, 0, 0, 0, 0, 0]], [[5, 0, 2, 7, 7, 5, VOID, 3]])
    assert codes.tolist() == [[1, 2, FIRST_OBJECT, UNMARKED, UNMARKED, UNMARKED, IGNORE, IGNORE]]
    assert ranks.tolist() == [1]


def test_class_of_an_object_is_the_most_frequent_of_its_pixels():
    codes, ranks = encode([[2, 2, 7, 7, 7, 5]], [[3, 3, 3, 9, 9, 9]])
    assert ranks.tolist() == [1, 0]  # the stuff pixel of object 9 does not count (N12)
    assert codes.tolist() == [[FIRST_OBJECT] * 3 + [FIRST_OBJECT + 1] * 2 + [1]]


def test_target_of_the_small_street():
    labels = MemoryLabels((street(0),))
    codes, classes = encode_label(labels.label("frame0"), labels.semantic("frame0"), labels.things, labels.stuff)
    target = make_target(Sample(labels.image("frame0"), codes, classes))
    assert target.classes.tolist() == [0]
    x0, y0, x1, y1 = (int(v) for v in target.boxes[0])
    assert (x1 - x0, y1 - y0) == (22, 16)
    assert torch.equal(target.masks[0], torch.from_numpy(labels.instance_map("frame0") > 0))
    assert int(target.ignore.sum()) == 22 * 16  # the other car, which does not move
    assert set(target.semantic[target.ignore].tolist()) == {IGNORE}
    assert set(target.semantic[target.masks[0]].tolist()) == {0}
    assert set(target.semantic.unique().tolist()) == {0, 1, 2, IGNORE}


@given(st.integers(0, 2**32 - 1))
def test_target_agrees_with_a_pixelwise_twin(seed):
    rng = np.random.default_rng(seed)
    objects = int(rng.integers(0, 5))
    values = [1, 2, UNMARKED, IGNORE, *(FIRST_OBJECT + i for i in range(objects))]
    codes = rng.choice(values, (9, 7)).astype(np.uint16)
    classes = rng.integers(0, 3, objects)
    target = make_target(Sample(np.zeros((9, 7, 3), np.uint8), codes, classes))
    visible = [i for i in range(objects) if (codes == FIRST_OBJECT + i).any()]
    assert target.classes.tolist() == classes[visible].tolist()
    for row, i in enumerate(visible):
        ys, xs = np.nonzero(codes == FIRST_OBJECT + i)
        assert target.boxes[row].tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
    for (y, x), code in np.ndenumerate(codes):
        wanted = 0 if code >= FIRST_OBJECT else IGNORE if code == UNMARKED else int(code)
        assert target.semantic[y, x] == wanted
        assert bool(target.ignore[y, x]) == (code == UNMARKED)
        assert target.masks[:, y, x].sum() == (code >= FIRST_OBJECT)


@pytest.mark.parametrize(
    ("left", "whole", "stays"),
    [(MIN_AREA, MIN_AREA, True), (MIN_AREA - 1, MIN_AREA - 1, False), (20, 200, True), (20, 201, False)],
)
def test_remnants_are_hidden(left, whole, stays):
    codes = np.full((10, 30), 1, np.uint16)
    codes.ravel()[:left] = FIRST_OBJECT + 1
    hidden = hide_remnants(codes, np.array([500, whole]))
    assert object_areas(hidden, 2).tolist() == [0, left if stays else 0]
    assert (hidden == UNMARKED).sum() == (0 if stays else left)
    assert (hidden == 1).sum() == (codes == 1).sum()


def test_box_is_half_open():
    mask = np.zeros((5, 6), bool)
    mask[2, 3] = True
    assert box_of_mask(mask) == (3, 2, 4, 3)


def test_more_stuff_than_there_are_codes_is_refused():
    require_room(UNMARKED - 1)
    with pytest.raises(TrainingError, match="254 stuff classes, but no more than 253 can be learnt"):
        require_room(UNMARKED)
