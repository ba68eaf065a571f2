"""Box code, overlap, matching, sampling and ignored shares against obvious twins."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou, nms

from cupola.models.boxes import (
    boxes_of_masks,
    clip_boxes,
    covered_share,
    decode_boxes,
    encode_boxes,
    has_area,
    integral_image,
    match_boxes,
    pairwise_iou,
    sample,
    suppress,
)

WEIGHTS = (10.0, 10.0, 5.0, 5.0)


def random_boxes(count: int, seed: int, size: float = 60) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * size
    return torch.cat((corner, corner + 1 + torch.rand(count, 2, generator=generator) * size / 2), 1)


@given(st.integers(0, 10_000), st.integers(0, 20))
@settings(max_examples=25, deadline=None)
def test_decoding_undoes_encoding(seed, count):
    boxes, references = random_boxes(count, seed), random_boxes(count, seed + 1)
    back = decode_boxes(encode_boxes(boxes, references, WEIGHTS), references, WEIGHTS)
    assert torch.allclose(back, boxes, atol=1e-3)


def test_decoding_limits_growth():
    moved = decode_boxes(torch.tensor([[0.0, 0.0, 1e6, 1e6]]), torch.tensor([[0.0, 0.0, 16.0, 16.0]]), (1.0,) * 4)
    assert moved[0, 2] - moved[0, 0] == pytest.approx(1000, rel=1e-4)


def test_overlap_is_torchvisions_and_zero_for_empty_boxes():
    first, second = random_boxes(7, 1), random_boxes(30, 2)
    assert torch.allclose(pairwise_iou(first, second), box_iou(first, second), atol=1e-6)
    empty = torch.tensor([[3.0, 3.0, 3.0, 3.0]])
    assert pairwise_iou(empty, empty).item() == 0


@given(st.integers(0, 10_000), st.integers(0, 5), st.integers(0, 30))
@settings(max_examples=25, deadline=None)
def test_matching_against_a_loop(seed, objects, count):
    things, boxes = random_boxes(objects, seed), random_boxes(count, seed + 7)
    index, label, best = match_boxes(things, boxes, 0.3, 0.6, 0.2)
    overlap = box_iou(things, boxes)
    for i in range(count):
        own = overlap[:, i].max().item() if objects else 0.0
        assert best[i].item() == pytest.approx(own, abs=1e-6)
        if objects:
            assert overlap[index[i], i] == pytest.approx(own, abs=1e-6)
        expected = 1 if own >= 0.6 else 0 if own < 0.3 else -1
        for thing in range(objects):
            top = overlap[thing].max()
            if top > 0.2 and overlap[thing, i] > top - 1e-6:
                expected = 1
        assert label[i] == expected


def test_best_anchor_needs_overlap():
    """A degenerate object must not make every anchor positive (spec-network N4)."""
    _, label, _ = match_boxes(torch.tensor([[5.0, 5.0, 5.0, 5.0]]), random_boxes(9, 3), 0.3, 0.7, 0.0)
    assert (label == 0).all()


@given(st.integers(0, 10_000), st.integers(0, 40), st.integers(0, 40))
@settings(max_examples=25, deadline=None)
def test_sampling_takes_what_it_should(seed, positives, negatives):
    labels = torch.tensor([1] * positives + [0] * negatives + [-1] * 5, dtype=torch.int8)
    chosen = sample(labels, 20, 0.25, torch.Generator().manual_seed(seed))
    assert len(chosen[0]) == min(positives, 5)
    assert len(chosen[1]) == min(negatives, 20 - len(chosen[0]))
    assert (labels[chosen[0]] == 1).all()
    assert (labels[chosen[1]] == 0).all()
    assert len(torch.cat(chosen).unique()) == len(torch.cat(chosen))
    again = sample(labels, 20, 0.25, torch.Generator().manual_seed(seed))
    assert torch.equal(torch.cat(chosen), torch.cat(again))


@given(st.integers(0, 10_000), st.integers(0, 80), st.integers(1, 90), st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0]))
@settings(max_examples=60, deadline=None)
def test_suppression_is_torchvisions_in_each_group_and_keeps_the_best(seed, count, limit, iou):
    boxes = random_boxes(count, seed).round()  # overlaps that equal the limit occur
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(0, 9, (count,), generator=generator) / 8  # equal scores occur
    groups = torch.randint(0, 3, (count,), generator=generator)
    expected = []
    for group in range(3):
        members = (groups == group).nonzero().flatten()
        expected += members[nms(boxes[members], scores[members], iou)].tolist()
    expected.sort(key=lambda index: -scores[index])  # stable: equal ones stay by group
    assert suppress(boxes, scores, groups, iou, limit).tolist() == expected[:limit]


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_covered_share_against_a_loop(seed):
    rng = np.random.default_rng(seed)
    mask = torch.from_numpy(rng.random((12, 17)) < 0.4)
    boxes = torch.from_numpy(rng.integers(-5, 22, (20, 4))).float()
    shares = covered_share(integral_image(mask), boxes)
    for box, share in zip(boxes, shares, strict=True):
        x0, y0, x1, y1 = clip_boxes(box, (12, 17)).long().tolist()
        inside = mask[y0:y1, x0:x1]
        if x1 > x0 and y1 > y0:
            assert share == pytest.approx(inside.float().mean().item(), abs=1e-6)


def test_boxes_of_masks_are_half_open():
    masks = torch.zeros(3, 10, 12, dtype=torch.bool)
    masks[0, 2:5, 3:9] = True
    masks[1] = True
    assert boxes_of_masks(masks).tolist() == [[3, 2, 9, 5], [0, 0, 12, 10], [0, 0, 0, 0]]
    assert boxes_of_masks(masks[:0]).shape == (0, 4)


def test_area_needs_finite_boxes_with_sides():
    boxes = torch.tensor([[0.0, 0, 2, 2], [0, 0, 0, 2], [0, 0, float("nan"), 2], [0, 0, float("inf"), 2]])
    assert has_area(boxes).tolist() == [True, False, False, False]
    assert has_area(boxes, 2.0).tolist() == [False] * 4
