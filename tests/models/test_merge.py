"""The merge against a slow twin, and pasting against torch's own sampling."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from cupola.models.boxes import boxes_of_masks
from cupola.models.mask_head import MaskHead, mask_targets, paste_masks
from cupola.models.merge import merge_panoptic
from cupola.models.settings import MaskHeadSettings


def slow_merge(semantic, masks, scores, classes, score_threshold, overlap, stuff_area):
    """Pixel by pixel, as the specification says it (1.11)."""
    height, width = semantic.shape
    ids = np.zeros((height, width), int)
    records = []
    for index in sorted(range(len(scores)), key=lambda i: -scores[i]):
        if scores[index] < score_threshold:
            continue
        own = [(y, x) for y in range(height) for x in range(width) if masks[index][y][x]]
        taken = [place for place in own if ids[place]]
        if not own or len(taken) / len(own) > overlap:
            continue
        free = [place for place in own if not ids[place]]
        records.append((len(records) + 1, int(classes[index]), True, len(free)))
        for place in free:
            ids[place] = len(records)
    for channel in range(1, int(semantic.max(initial=0)) + 1):
        free = [(y, x) for y in range(height) for x in range(width) if semantic[y, x] == channel and not ids[y, x]]
        if free and len(free) >= stuff_area:
            records.append((len(records) + 1, channel, False, len(free)))
            for place in free:
                ids[place] = len(records)
    return ids, records


@given(
    st.integers(0, 10_000), st.integers(0, 7), st.sampled_from([0.0, 0.3, 0.5, 1.0]), st.sampled_from([0.0, 5.0, 30.0])
)
@settings(max_examples=60, deadline=None)
def test_merge_is_the_slow_merge(seed, count, overlap, stuff_area):
    rng = np.random.default_rng(seed)
    semantic = np.kron(rng.integers(0, 4, (3, 4)), np.ones((4, 3), int))
    masks = np.zeros((count, *semantic.shape), bool)
    for mask in masks:
        y, x, h, w = rng.integers(0, 9, 4)
        mask[y : y + h, x : x + w] = True
    scores = rng.random(count).astype(np.float32)
    classes = rng.integers(0, 3, count)
    ids, segments = merge_panoptic(
        torch.from_numpy(semantic),
        torch.from_numpy(masks),
        torch.from_numpy(scores),
        torch.from_numpy(classes),
        score_threshold=0.4,
        overlap=overlap,
        stuff_area=stuff_area,
    )
    expected, records = slow_merge(semantic, masks, scores, classes, 0.4, overlap, stuff_area)
    boxes = boxes_of_masks(torch.from_numpy(masks)) + torch.tensor([-0.3, -1.5, 0.3, 2.5])
    boxed = merge_panoptic(
        torch.from_numpy(semantic),
        torch.from_numpy(masks),
        torch.from_numpy(scores),
        torch.from_numpy(classes),
        boxes,
        score_threshold=0.4,
        overlap=overlap,
        stuff_area=stuff_area,
    )
    assert torch.equal(boxed[0], ids)
    assert boxed[1] == segments
    assert np.array_equal(ids.numpy(), expected)
    assert [(s.id, s.category, s.is_thing, s.area) for s in segments] == records
    assert sum(s.area for s in segments) == (expected > 0).sum()
    for segment in segments:
        assert (segment.score is not None) == segment.is_thing


def test_thing_pixels_without_an_object_are_void():
    semantic = torch.zeros(4, 6, dtype=torch.int64)
    semantic[:, 3:] = 2
    none = torch.zeros(0)
    ids, segments = merge_panoptic(semantic, torch.zeros(0, 4, 6, dtype=torch.bool), none, none.long(), stuff_area=1.0)
    assert (ids[:, :3] == 0).all()
    assert (ids[:, 3:] == 1).all()
    assert [(s.category, s.area, s.score) for s in segments] == [(2, 12, None)]


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_pasting_is_bilinear_sampling_of_the_whole_image(seed):
    generator = torch.Generator().manual_seed(seed)
    height, width = 23, 31
    corner = torch.rand(4, 2, generator=generator) * 20
    boxes = torch.cat((corner, corner + 0.5 + torch.rand(4, 2, generator=generator) * 20), 1)
    boxes[:, 0::2].clamp_(0, width)
    boxes[:, 1::2].clamp_(0, height)
    small = torch.rand(4, 28, 28, generator=generator)
    pasted = paste_masks(small, boxes, (height, width))
    y = torch.arange(height) + 0.5
    x = torch.arange(width) + 0.5
    for mask, box, probabilities in zip(pasted, boxes, small, strict=True):
        grid_y = (y - box[1]) / (box[3] - box[1]) * 2 - 1
        grid_x = (x - box[0]) / (box[2] - box[0]) * 2 - 1
        grid = torch.stack((grid_x.expand(height, width), grid_y[:, None].expand(height, width)), -1)
        seen = functional.grid_sample(probabilities[None, None], grid[None], align_corners=False)[0, 0]
        inside = (grid.abs() <= 1).all(-1)  # outside the box nothing reaches 0.5
        clear = (seen - 0.5).abs() > 1e-5
        assert torch.equal(mask[inside & clear], (seen >= 0.5)[inside & clear])
        assert not mask[~inside & clear & (seen < 0.5)].any()


def test_mask_targets_undo_pasting():
    masks = torch.zeros(2, 40, 50, dtype=torch.bool)
    masks[0, 5:30, 10:20] = True
    masks[1, 10:20, 5:45] = True
    boxes = torch.tensor([[10.0, 5, 20, 30], [0, 0, 50, 40]])
    targets = mask_targets(masks, boxes, torch.tensor([0, 1]), 28)
    assert targets[0].all()
    pasted = paste_masks(targets.float(), boxes, (40, 50))
    for mask, back in zip(masks, pasted, strict=True):
        assert (mask & back).sum() / (mask | back).sum() > 0.85
    assert mask_targets(masks, boxes[:0], torch.zeros(0, dtype=torch.int64), 28).shape == (0, 28, 28)


@pytest.mark.parametrize("class_agnostic", [False, True])
def test_enlarging_is_the_convolutions(class_agnostic):
    torch.manual_seed(0)
    head = MaskHead(6, 3, MaskHeadSettings(1, 8, 5, class_agnostic), separable=False)
    torch.nn.init.normal_(head.predictor.weight)
    torch.nn.init.normal_(head.deconv.bias)
    hidden = torch.randn(4, 8, 5, 5)
    expected = head.predictor(functional.relu(head.deconv(hidden)))
    assert torch.allclose(head.enlarged(hidden), expected, atol=1e-4)
    assert head(torch.randn(0, 6, 5, 5)).shape == (0, 1 if class_agnostic else 3, 10, 10)
