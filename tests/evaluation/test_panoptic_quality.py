import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupola.evaluation import PanopticQuality, contingency
from cupola.evaluation.contingency import without_small_things
from cupola.types import VOID

IS_THING = np.array([False, True, False, True])
CLASSES = len(IS_THING)


seeds = st.integers(0, 2**32 - 1)


def random_map(rng):
    """Blocky, so that segments overlap by more than half now and then."""
    coarse = rng.integers(0, 3, (4, 5, 2), dtype=np.int32)
    coarse[..., 0] = rng.integers(VOID, CLASSES, (4, 5))
    return np.repeat(np.repeat(coarse, 2, 0), 3, 1)


def random_pair(seed):
    """A prediction that is right in places, and its target."""
    rng = np.random.default_rng(seed)
    target, other = random_map(rng), random_map(rng)
    keep = rng.random(target.shape[:2]) < rng.uniform(0, 1)
    return np.where(keep[..., None], target, other), target


def masks_of(image):
    """(class, instance) -> mask, instances of stuff joined."""
    segments = {}
    for y, x in np.ndindex(image.shape[:2]):
        c, i = image[y, x]
        if 0 <= c < CLASSES:
            key = (int(c), int(i) if IS_THING[c] else 0)
            segments.setdefault(key, np.zeros(image.shape[:2], bool))[y, x] = True
    return segments


def slow_scores(prediction, target, published, crowds=()):
    """The slow obvious twin: masks against masks, by the table of spec-network 5.3."""
    predicted, true = masks_of(prediction), masks_of(target)
    crowds = () if published else crowds
    known = np.isin(target[..., 0], range(CLASSES))
    seen = np.isin(prediction[..., 0], range(CLASSES))
    iou_sum, counts = np.zeros(CLASSES), np.zeros((3, CLASSES), int)
    matched_p, matched_t = set(), set()
    for t, g in true.items():
        for p, m in predicted.items():
            if p[0] != t[0] or t in crowds or not (m & g).any():
                continue
            union = (m | g) & (known | ~m | g)
            if published:
                union &= seen | m
            if (m & g).sum() / union.sum() > 0.5:
                iou_sum[t[0]] += (m & g).sum() / union.sum()
                counts[0, t[0]] += 1
                matched_p.add(p)
                matched_t.add(t)
    for p, m in predicted.items():
        excused = (m & ~known).sum() + sum((m & g).sum() for t, g in true.items() if t in crowds and t[0] == p[0])
        if p not in matched_p and excused <= 0.5 * m.sum():
            counts[1, p[0]] += 1
    for t, g in true.items():
        if t not in matched_t and t not in crowds and not (published and (g & ~seen).sum() > 0.5 * g.sum()):
            counts[2, t[0]] += 1
    return iou_sum, counts


@given(st.lists(seeds, min_size=1, max_size=3), st.sampled_from(["standard", "published"]), st.booleans())
@settings(deadline=None)
def test_equals_masks_against_masks(chosen, protocol, with_crowds):
    images = [random_pair(seed) for seed in chosen]
    crowds = [(1, 0), (3, 1)] if with_crowds else []
    quality = PanopticQuality(IS_THING)
    iou_sum, counts = np.zeros(CLASSES), np.zeros((3, CLASSES), int)
    for prediction, target in images:
        quality.update(prediction, target, crowds)
        ious, numbers = slow_scores(prediction, target, protocol == "published", crowds)
        iou_sum, counts = iou_sum + ious, counts + numbers
    scores = quality.compute(protocol)
    np.testing.assert_allclose(scores.iou_sum, iou_sum)
    np.testing.assert_array_equal([scores.true_positives, scores.false_positives, scores.false_negatives], counts)
    denominator = counts[0] + counts[1] / 2 + counts[2] / 2
    counted = denominator > 0
    np.testing.assert_array_equal(scores.counted, counted)
    np.testing.assert_allclose(scores.pq[counted], iou_sum[counted] / denominator[counted])
    np.testing.assert_allclose(scores.pq[counted], (scores.sq * scores.rq)[counted])
    if counted.any():
        np.testing.assert_allclose(scores.all.pq, (iou_sum[counted] / denominator[counted]).mean())


@given(seeds)
@settings(deadline=None, max_examples=50)
def test_the_truth_itself_is_perfect(seed):
    target = random_map(np.random.default_rng(seed))
    quality = PanopticQuality(IS_THING)
    quality.update(target, target)
    for protocol in ("standard", "published"):
        scores = quality.compute(protocol)
        assert (scores.pq[scores.counted] == 1).all()
        assert scores.all.classes == len(set(target[..., 0][target[..., 0] >= 0].tolist()))


@given(seeds, st.permutations(range(CLASSES)))
@settings(deadline=None, max_examples=50)
def test_an_assignment_scores_as_a_mapped_prediction(seed, order):
    prediction, target = random_pair(seed)
    assignment = np.array([*order, VOID], np.int64)
    later, before = PanopticQuality(IS_THING), PanopticQuality(IS_THING)
    later.update(prediction, target)
    mapped = prediction.copy()
    mapped[..., 0] = np.where(prediction[..., 0] >= 0, assignment[prediction[..., 0]], VOID)
    before.update(mapped, target)
    for protocol in ("standard", "published"):
        ours, mapped_scores = later.compute(protocol, assignment), before.compute(protocol)
        np.testing.assert_allclose(ours.iou_sum, mapped_scores.iou_sum, rtol=1e-12)


@given(seeds, st.permutations(range(3)), st.sampled_from([-1, -7, 255, 4]))
@settings(deadline=None, max_examples=50)
def test_names_of_instances_and_the_kind_of_void_do_not_matter(seed, names, void):
    pair = random_pair(seed)
    renamed = [image.copy() for image in pair]
    for image in renamed:
        image[..., 0][image[..., 0] == VOID] = void
    renamed[0][..., 1] = np.array(names)[renamed[0][..., 1]] + 1000
    ours, theirs = PanopticQuality(IS_THING), PanopticQuality(IS_THING)
    ours.update(*pair)
    theirs.update(*renamed)
    np.testing.assert_allclose(ours.compute().iou_sum, theirs.compute().iou_sum, rtol=1e-12)
    np.testing.assert_array_equal(ours.compute().false_negatives, theirs.compute().false_negatives)


def test_predicting_void_is_rewarded_by_the_published_form_only():
    """The example of spec-network 5.3: 50 px of object, 20 found, 30 predicted void."""
    target = np.full((5, 20, 2), VOID, np.int32)
    target[:, :10] = (1, 1)
    prediction = target.copy()
    prediction[:, 4:10] = (VOID, 0)
    quality = PanopticQuality(IS_THING)
    quality.update(prediction, target)
    assert quality.compute("published").all.pq == 1.0
    standard = quality.compute("standard")
    assert (standard.all.pq, standard.false_positives[1], standard.false_negatives[1]) == (0, 1, 1)


def test_only_chosen_classes_enter_the_means():
    target = np.zeros((4, 4, 2), np.int32)
    target[2:] = (1, 5)
    prediction = np.zeros((4, 4, 2), np.int32)
    quality = PanopticQuality(IS_THING)
    quality.update(prediction, target)
    both, one = quality.compute(), quality.compute(classes=np.array([False, True, True, True]))
    assert both.all.classes == 2
    assert (one.all.classes, one.all.pq) == (1, 0.0)
    assert np.isnan(one.stuff.pq)


def test_nothing_to_score_is_not_a_number_and_no_error():
    empty = PanopticQuality(IS_THING)
    assert np.isnan(empty.compute().all.pq)
    empty.update(np.full((3, 3, 2), VOID, np.int32), np.full((3, 3, 2), 255, np.int32))
    assert np.isnan(empty.compute().all.pq)
    empty.update(np.zeros((0, 3, 2), np.int32), np.zeros((0, 3, 2), np.int32))
    assert empty.compute().all.classes == 0


@given(seeds)
@settings(deadline=None, max_examples=50)
def test_the_table_of_an_image_holds_every_pixel_once(seed):
    prediction, target = (np.where(image[..., :1] == VOID, [VOID, 0], image) for image in random_pair(seed))
    table = contingency(prediction, target)
    assert len(np.unique(np.concatenate([table.predicted, table.true], 1), axis=0)) == len(table.areas)
    for p, t, area in zip(table.predicted, table.true, table.areas, strict=True):
        assert ((prediction == p).all(-1) & (target == t).all(-1)).sum() == area > 0
    assert table.areas.sum() == target[..., 0].size


def test_small_true_things_become_void_and_stuff_stays():
    target = np.zeros((4, 8, 2), np.int32)
    target[0, :3], target[1] = (1, 1), (1, 2)
    target[2, 0] = (1, 0)  # no instance: a crowd, not a small thing
    table = without_small_things(contingency(target, target, [(1, 0)]), IS_THING, 4)
    areas = {(c, i): a for (c, i), a in zip(table.true.tolist(), table.areas.tolist(), strict=True)}
    assert areas == {(VOID, 0): 3, (1, 2): 8, (1, 0): 1, (0, 0): 20}


def test_maps_of_unequal_size_or_without_instances_are_refused():
    quality = PanopticQuality(IS_THING)
    with pytest.raises(Exception, match="target"):
        quality.update(np.zeros((3, 3, 2), np.int32), np.zeros((3, 4, 2), np.int32))
    with pytest.raises(Exception, match="prediction"):
        quality.update(np.zeros((3, 3), np.int32), np.zeros((3, 3), np.int32))
