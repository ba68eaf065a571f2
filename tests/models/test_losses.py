"""Losses: empty cases, and what DropLoss and the ignore-aware rule must obey."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cupola.models.boxes import integral_image
from cupola.models.losses import (
    box_loss,
    class_loss,
    drop_loss_weights,
    ignore_aware_weights,
    mask_loss,
    published_drop_loss_weights,
    region_weights,
    semantic_loss,
)
from cupola.models.settings import NegativeSettings

unit = st.floats(0, 1, width=32)
regions = st.lists(st.tuples(unit, unit, st.booleans()), max_size=30)


def columns(rows) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Best IoU, ignored share, foreground."""
    table = torch.tensor([row[:2] for row in rows], dtype=torch.float32).reshape(-1, 2)
    return table[:, 0], table[:, 1], torch.tensor([row[2] for row in rows], dtype=torch.bool)


@given(regions, unit, unit)
@settings(deadline=None)
def test_drop_loss_counts_objects_and_fewer_regions_the_higher_the_threshold(rows, first, second):
    iou, _, foreground = columns(rows)
    low = drop_loss_weights(iou, foreground, min(first, second), any_object=True)
    high = drop_loss_weights(iou, foreground, max(first, second), any_object=True)
    assert (high <= low).all()
    assert (high[foreground] == 1).all()
    assert set(high.tolist()) <= {0.0, 1.0}
    assert not drop_loss_weights(iou, foreground, 0.0, any_object=False).any()


@given(regions, unit, unit)
@settings(deadline=None)
def test_ignore_aware_rule_counts_objects_known_ground_and_near_misses(rows, share, near):
    iou, ignored, foreground = columns(rows)
    weights = ignore_aware_weights(iou, foreground, ignored, share, near)
    for i in range(len(rows)):
        assert weights[i] == float(foreground[i] or ignored[i] <= share or iou[i] >= near)


def test_rules():
    boxes = torch.tensor([[0.0, 0, 10, 10], [10, 0, 20, 10], [0, 0, 10, 10]])
    iou, foreground = torch.tensor([0.0, 0.0, 0.5]), torch.tensor([False, False, False])
    ignore = torch.zeros(10, 20, dtype=torch.bool)
    ignore[:, :8] = True
    integral = integral_image(ignore)

    def weights(rule, integral=integral):
        return region_weights(boxes, iou, foreground, integral, NegativeSettings(rule), any_object=True).tolist()

    assert weights("all") == [1, 1, 1]
    assert weights("ignore_aware") == [0, 1, 1]
    assert weights("ignore_aware", None) == [1, 1, 1]
    assert weights("drop_loss") == [0, 0, 1]
    assert weights("drop_loss_published") == [1, 1, 1]  # needs what the network predicts


def test_published_drop_loss_compares_with_the_first_regions_objects():
    near, far = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[50.0, 50, 60, 60]])
    objects = torch.cat((near, far))
    predicted = torch.cat((near, far, far))

    def weights(matched, *, empty=False, first_stage=True):
        boxes, index, labels = [predicted], [torch.tensor(matched)], [objects]
        if empty:
            boxes, index, labels = boxes * 2, index * 2, [objects, objects[:0]]
        found = published_drop_loss_weights(boxes, index, labels, 0.4, first_stage=first_stage)
        return [weight.tolist() for weight in found]

    assert weights([0, 1, 1]) == [[1, 1, 1]]
    assert weights([0, 0, 1]) == [[1, 0, 0]]  # two distinct objects, but the first two regions hold one
    assert weights([0, 0, 1], empty=True) == [[1, 1, 1], [1, 1, 1]]
    assert weights([0, 0, 1], empty=True, first_stage=False) == [[1, 0, 0], [0, 0, 0]]


def test_dropped_regions_have_no_influence_but_the_count_is_chosen():
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    classes = torch.tensor([0, 1, 2, 3, 3, 3])
    weights = torch.tensor([1.0, 1, 1, 1, 0, 0])
    other = logits.clone()
    other[4:] += torch.randn(2, 4)
    over_all = class_loss(logits, classes, weights)
    assert over_all == class_loss(other, classes, weights)
    over_kept = class_loss(logits, classes, weights, mean_over_kept=True)
    assert over_kept == pytest.approx(6 / 4 * over_all.item())
    assert over_kept == pytest.approx(torch.nn.functional.cross_entropy(logits[:4], classes[:4]).item())


def test_nothing_gives_zero_with_a_graph():
    def leaf(*shape):
        return torch.randn(shape, requires_grad=True)

    none = torch.zeros(0, dtype=torch.int64)
    cases = [
        class_loss(leaf(0, 4), none, torch.zeros(0)),
        class_loss(leaf(3, 4), torch.zeros(3, dtype=torch.int64), torch.zeros(3), mean_over_kept=True),
        box_loss(leaf(0, 4), torch.zeros(0, 4), 0),
        mask_loss(leaf(0, 3, 5, 5), none, torch.zeros(0, 5, 5, dtype=torch.bool)),
        semantic_loss(leaf(1, 3, 4, 4), torch.full((1, 4, 4), 255)),
    ]
    for loss in cases:
        loss.backward()
        assert loss == 0


def test_mask_loss_reads_the_channel_of_the_class():
    logits = torch.full((2, 3, 4, 4), -20.0)
    logits[0, 2] = logits[1, 0] = 20.0
    wanted = torch.ones(2, 4, 4, dtype=torch.bool)
    assert mask_loss(logits, torch.tensor([2, 0]), wanted) == pytest.approx(0, abs=1e-6)
    assert mask_loss(logits, torch.tensor([2, 1]), wanted) == pytest.approx(10, abs=1e-3)
    assert mask_loss(logits[:, 2:], torch.tensor([1, 0]), wanted) == pytest.approx(10, abs=1e-3)  # class-agnostic
