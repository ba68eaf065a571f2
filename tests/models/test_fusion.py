"""Networks made faster for prediction give the same."""

import pytest
import torch
from torch import nn

from cupola.models import PanopticNetwork, tiny
from cupola.models.cascade import RoiHeads
from cupola.models.fusion import fused
from cupola.models.settings import NetworkSettings, TrunkSettings

SIZE = (64, 96)


def taught(settings) -> PanopticNetwork:
    """A network whose norms and heads have something to say."""
    torch.manual_seed(0)
    network = PanopticNetwork(settings, 3, 4)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    for predictor in network.roi_heads.box_predictor:
        nn.init.normal_(predictor.cls_score.weight, std=0.5)
    return network


def narrow_paper() -> NetworkSettings:
    """Bottlenecks, P6, three stages, full convolutions, but few channels."""
    return NetworkSettings(trunk=TrunkSettings(stem=8, blocks=(1, 1, 1, 1), widths=(4, 6, 8, 8)), fpn_channels=16)


@pytest.mark.parametrize("settings", [tiny(), narrow_paper()], ids=["tiny", "paper"])
@torch.no_grad()
def test_a_fused_network_is_the_network(settings):
    network = taught(settings)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    fast = fused(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fast.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    image = torch.rand(3, *SIZE)
    (expected,), (found,) = (net.predict([image], score_threshold=0.3) for net in (network, fast))
    assert len(expected.scores) > 0
    assert torch.allclose(found.semantic, expected.semantic, atol=1e-3)
    assert torch.allclose(found.scores, expected.scores, atol=1e-3)
    assert (found.panoptic != expected.panoptic).float().mean() < 0.01


@torch.no_grad()
def test_weights_that_stay_are_shared():
    network = taught(tiny())
    fast = fused(network)
    assert fast.sem_seg_head.predictor.weight.data_ptr() == network.sem_seg_head.predictor.weight.data_ptr()


@torch.no_grad()
def test_half_precision_is_near():
    network = taught(tiny())
    fast = fused(network, torch.bfloat16)
    image = torch.rand(3, *SIZE)
    (expected,) = network.predict([image], score_threshold=0.3)
    with torch.autocast("cpu", torch.bfloat16):
        (found,) = fast.predict([image], score_threshold=0.3)
    assert found.boxes.dtype == found.scores.dtype == found.semantic.dtype == torch.float32
    spread = expected.semantic.std()
    assert (found.semantic - expected.semantic).abs().mean() < 0.1 * spread


@pytest.mark.parametrize("threshold", [0.4, 0.5, 0.8])
@torch.no_grad()
def test_hopeless_regions_may_be_left_out(threshold):
    network = taught(narrow_paper()).eval()
    features = network.backbone(network.batch([torch.rand(3, *SIZE), torch.rand(3, *SIZE)]))
    corners = torch.rand(2, 60, 2) * 40
    proposals = list(torch.cat((corners, corners + 5 + torch.rand(2, 60, 2) * 40), 2))
    heads = network.roi_heads
    assert isinstance(heads, RoiHeads)
    everything = heads.cascade(features, proposals, [SIZE, SIZE])
    chosen = heads.cascade(features, proposals, [SIZE, SIZE], threshold)
    for (all_boxes, all_scores), (boxes, scores) in zip(everything, chosen, strict=True):
        above, still = ((s[:, :-1] > threshold).any(1) for s in (all_scores, scores))
        assert len(boxes) < len(all_boxes)
        assert torch.allclose(all_boxes[above], boxes[still], atol=1e-3)
        assert torch.allclose(all_scores[above], scores[still], atol=1e-4)
