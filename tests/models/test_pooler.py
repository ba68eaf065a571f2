"""Pooling by places against torchvision's ROIAlign, and the levels."""

import pytest
import torch

from cupola.models.pooler import box_levels, pool, pool_by_level, pool_by_places
from cupola.models.settings import PoolerSettings


def pyramid(seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = [torch.randn(2, 5, 64 >> level, 96 >> level, generator=generator) for level in range(4)]
    return [f.to(memory_format=torch.channels_last).requires_grad_() for f in features]


def regions(seed: int = 1, count: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes of all sizes, some of them partly or wholly outside the 256 x 384 image, and their images."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * torch.tensor([420.0, 300.0]) - 20
    side = 2 ** (torch.rand(count, 2, generator=generator) * 8)
    boxes = torch.cat((corner, corner + side), 1)
    boxes[0, 2:] = boxes[0, :2]  # empty
    boxes[1] = torch.tensor([0.0, 100, 384, 104])
    return boxes, torch.arange(count) % 2


@pytest.mark.parametrize("samples", [0, 1, 2, 3])
def test_places_give_roi_align_and_its_gradient(samples):
    boxes, image = regions()
    levels = box_levels(boxes, 56.0)
    assert len(levels.unique()) == 4
    results, gradients = [], []
    for function in (pool_by_level, pool_by_places):
        features = pyramid()
        pooled = function(features, boxes, image, levels, 6, samples)
        pooled.backward(torch.randn(pooled.shape, generator=torch.Generator().manual_seed(2)))
        results.append(pooled.detach())
        gradients.append([feature.grad for feature in features])
    assert torch.allclose(*results, atol=1e-4)
    for expected, found in zip(*gradients, strict=True):
        assert torch.allclose(expected, found, atol=1e-3)


@pytest.mark.parametrize("samples", [0, 1])
def test_threads_change_nothing(samples):
    boxes, image = regions()
    levels = box_levels(boxes, 56.0)
    threads = torch.get_num_threads()
    results = []
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            features = pyramid()
            features = [f.detach().repeat(1, 7, 1, 1).requires_grad_() for f in features]  # 35 channels: two shares
            pooled = pool_by_places(features, boxes, image, levels, 6, samples)
            pooled.backward(torch.randn(pooled.shape, generator=torch.Generator().manual_seed(2)))
            results.append([pooled.detach(), *(feature.grad for feature in features)])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, three) for one, three in zip(*results, strict=True))


@pytest.mark.parametrize("samples", [0, 1])
def test_no_boxes(samples):
    features = pyramid()
    pooled = pool(features, [torch.zeros(0, 4), torch.zeros(0, 4)], 7, PoolerSettings(samples))
    assert pooled.shape == (0, 5, 7, 7)


def test_levels_follow_the_side():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 111, 111], [0, 0, 112, 112], [0, 0, 224, 224], [0, 0, 900, 900]])
    assert box_levels(boxes, 224.0).tolist() == [2, 2, 3, 4, 5]
