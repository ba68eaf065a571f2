"""Copy-paste, with the defects N5 to N9 of the published code absent."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupola.errors import ConfigError
from cupola.training.copy_paste import CopyPasteSettings, Cutout, cut_objects, paste_objects
from cupola.training.targets import FIRST_OBJECT, UNMARKED, Sample, object_areas

SIZE = (60, 90)


def background(objects: tuple[tuple[int, int, int, int], ...] = ()) -> Sample:
    codes = np.ones(SIZE, np.uint16)
    for index, (x0, y0, x1, y1) in enumerate(objects):
        codes[y0:y1, x0:x1] = FIRST_OBJECT + index
    image = np.full((*SIZE, 3), 10, np.uint8)
    for index in range(len(objects)):
        image[codes == FIRST_OBJECT + index] = 100 + index
    return Sample(image, codes, np.arange(len(objects)))


def cutout(height: int = 12, width: int = 10, value: int = 200, rank: int = 3, bottom: float = 0.8) -> Cutout:
    return Cutout(np.full((height, width, 3), value, np.uint8), np.ones((height, width), bool), rank, bottom)


def test_cutouts_are_whole_and_of_the_right_class():
    sample = background(((5, 6, 8, 40), (20, 20, 34, 36), (80, 50, 90, 60)))  # the first is too narrow (N6)
    found = cut_objects(sample, 8)
    assert [cut.class_rank for cut in found] == [1, 2]
    assert [cut.mask.shape for cut in found] == [(16, 14), (10, 10)]  # last row and column are there (N8)
    assert all(cut.mask.all() and (cut.image == 100 + cut.class_rank).all() for cut in found)
    assert found[1].bottom == 1.0


def test_cutouts_are_copies():
    sample = background(((20, 20, 34, 36),))
    (cut,) = cut_objects(sample, 8)
    sample.image[:] = 0
    sample.codes[:] = 1
    assert cut.mask.all()
    assert (cut.image == 100).all()


def test_objects_without_a_pixel_or_filling_the_frame_do_no_harm():
    codes = np.full(SIZE, FIRST_OBJECT + 1, np.uint16)  # object 0 has no pixel, object 1 all of them (N5)
    sample = Sample(np.zeros((*SIZE, 3), np.uint8), codes, np.array([0, 1]))
    (cut,) = cut_objects(sample, 8)
    assert cut.mask.shape == SIZE
    pasted = paste_objects(background(), [cut], CopyPasteSettings(pastes=(1, 1)), np.random.default_rng(0))
    assert len(pasted.classes) == 1


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_what_is_pasted_is_labelled(seed):
    sample = background(((5, 30, 25, 50), (40, 40, 60, 58)))
    before = sample.image.copy(), sample.codes.copy()
    bank = [cutout(value=200, rank=3), cutout(20, 30, value=220, rank=4)]
    pasted = paste_objects(sample, bank, CopyPasteSettings(), np.random.default_rng(seed))
    assert np.array_equal(sample.image, before[0])  # the source keeps its pixels (N7)
    assert np.array_equal(sample.codes, before[1])
    for index, rank in enumerate(pasted.classes.tolist()):
        colors = set(pasted.image[pasted.codes == FIRST_OBJECT + index].ravel().tolist())
        assert colors <= {{0: 100, 1: 101, 3: 200, 4: 220}[rank]}
    assert pasted.classes.tolist()[:2] == [0, 1]
    areas = object_areas(pasted.codes, len(pasted.classes))
    assert ((areas == 0) | (areas >= 16)).all()
    stuff = pasted.codes == 1
    assert (pasted.image[stuff] == 10).all()


@given(st.integers(0, 2**32 - 1))
def test_number_size_and_place(seed):
    settings = CopyPasteSettings(pastes=(1, 3), scale=(0.5, 1.5), bottom_shift=0.1)
    pasted = paste_objects(background(), [cutout(20, 16)], settings, np.random.default_rng(seed))
    assert len(pasted.classes) <= 3
    if len(pasted.classes) == 1:
        rows = np.flatnonzero((pasted.codes == FIRST_OBJECT).any(1))
        assert 10 <= rows[-1] + 1 - rows[0] <= 30
        assert 0.7 * SIZE[0] - 1 <= rows[-1] + 1 <= 0.9 * SIZE[0] + 1


def test_paper_places_anywhere_inside():
    settings = CopyPasteSettings(pastes=(1, 1), scale=(1.0, 1.0), bottom_shift=1.0)
    bottoms = set()
    for seed in range(100):
        pasted = paste_objects(background(), [cutout()], settings, np.random.default_rng(seed))
        rows = np.flatnonzero((pasted.codes == FIRST_OBJECT).any(1))
        assert object_areas(pasted.codes, 1) == [120]
        bottoms.add(int(rows[-1]))
    assert min(bottoms) < 20
    assert max(bottoms) > 50


def test_lower_objects_cover_higher_ones():
    far, near = cutout(20, 60, value=1, rank=0, bottom=0.6), cutout(30, 60, value=2, rank=1, bottom=0.8)
    settings = CopyPasteSettings(pastes=(8, 8), scale=(1.0, 1.0), bottom_shift=0.0)
    pasted = paste_objects(background(), [far, near], settings, np.random.default_rng(0))
    assert set(pasted.classes.tolist()) == {0, 1}
    assert pasted.classes.tolist() == sorted(pasted.classes.tolist())


def test_covered_objects_are_hidden():
    sample = background(((30, 30, 40, 40),))
    cover = cutout(40, 200, bottom=0.65)  # rows 0..39, all columns: one row of the object would stay
    settings = CopyPasteSettings(pastes=(1, 1), scale=(1.0, 1.0), bottom_shift=0.0)
    pasted = paste_objects(sample, [cover], settings, np.random.default_rng(0))
    assert not (pasted.codes == FIRST_OBJECT).any()
    assert (pasted.codes == UNMARKED).sum() <= 10


def test_nothing_to_paste():
    sample = background()
    assert paste_objects(sample, [], CopyPasteSettings(), np.random.default_rng(0)) is sample
    assert paste_objects(sample, [cutout()], CopyPasteSettings(pastes=(0, 0)), np.random.default_rng(0)) is sample


@pytest.mark.parametrize("wrong", [{"pastes": (3, 1)}, {"scale": (0.0, 1.0)}, {"bottom_shift": -0.1}])
def test_impossible_paste_settings(wrong):
    with pytest.raises(ConfigError):
        CopyPasteSettings(**wrong)
