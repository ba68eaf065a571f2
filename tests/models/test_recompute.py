"""What is computed again in the backward pass gives the gradients, and the statistics, of what is kept."""

from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from cupola.models import cascade, recompute
from cupola.models.cascade import RoiHeads
from cupola.models.layers import NormedConv, freeze_norms
from cupola.models.recompute import Recipe, buffers_kept, recomputed
from cupola.models.resnet import ResNet
from cupola.models.settings import TrunkSettings, tiny


def layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(NormedConv(3, 8, 3, relu=True), NormedConv(8, 4, 1, relu=True))


def of_everything(module: nn.Module, inputs: Tensor) -> list[Tensor]:
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    return [inputs.grad, *gradients, *module.buffers()]


@pytest.mark.parametrize("frozen", [False, True])
def test_gradients_and_statistics_are_those_of_what_is_kept(frozen):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(2, 3, 6, 5, generator=generator)
    results = []
    for again in (False, True):
        module, inputs = layers(), values.clone().requires_grad_()
        if frozen:
            freeze_norms(module)
        calls = []

        def function(x: Tensor, module=module, calls=calls) -> Tensor:
            calls.append(x)
            return module(x)

        output = recomputed(function, inputs, module=module) if again else function(inputs)
        output.square().sum().backward()
        assert len(calls) == (2 if again else 1)
        results.append([output.detach(), *of_everything(module, inputs)])
    assert all(torch.equal(kept, new) for kept, new in zip(*results, strict=True))
    assert frozen or int(module[0].norm.num_batches_tracked) == 1


def test_without_a_gradient_nothing_is_computed_again():
    module = layers()
    with torch.no_grad():
        assert not recomputed(module, torch.rand(1, 3, 4, 4), module=module).requires_grad


def test_buffers_come_back_after_an_error():
    module = layers()
    before = deepcopy(list(module.buffers()))

    def fails() -> None:
        with buffers_kept(module):
            module(torch.rand(1, 3, 4, 4))
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fails()
    assert all(torch.equal(now, then) for now, then in zip(module.buffers(), before, strict=True))


@given(rows=st.integers(0, 5), half=st.booleans(), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=20)
def test_a_linear_layer_of_a_recipe_is_a_linear_layer(rows, half, seed):
    generator = torch.Generator().manual_seed(seed)
    source, weight, bias = (torch.randn(*size, generator=generator) for size in ((rows, 6), (3, 6), (3,)))
    results = []
    for again in (False, True):
        leaves = [tensor.clone().requires_grad_() for tensor in (source, weight, bias)]
        inputs = leaves[0].sin()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            if again:
                output = recompute.linear(inputs, leaves[1], leaves[2], Recipe(torch.sin, (leaves[0],)))
            else:
                output = functional.linear(inputs, leaves[1], leaves[2])
        output.float().square().sum().backward()
        results.append([output.detach(), *[leaf.grad for leaf in leaves]])
    for kept, new in zip(*results, strict=True):
        assert torch.allclose(kept.float(), new.float(), rtol=2e-2 if half else 1e-5, atol=1e-2 if half else 1e-6)


def test_a_frozen_linear_layer_asks_for_no_recipe():
    def never(*_: Tensor) -> Tensor:
        raise AssertionError("computed again for nothing")

    inputs = torch.rand(2, 4, requires_grad=True)
    recompute.linear(inputs, torch.rand(3, 4), torch.rand(3), Recipe(never, ())).sum().backward()
    assert inputs.grad is not None


def test_a_trunk_of_bottlenecks_learns_as_if_all_were_kept():
    results = []
    for stages in ((), (2,)):
        torch.manual_seed(0)
        trunk = ResNet(TrunkSettings(stem=8, blocks=(2, 1, 1, 1), widths=(4, 4, 4, 4)))
        assert trunk.recomputed == (2,)
        trunk.recomputed = stages
        images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)).requires_grad_()
        torch.stack([level.square().mean() for level in trunk(images)]).sum().backward()
        results.append(of_everything(trunk, images))
    assert all(torch.equal(kept, new) for kept, new in zip(*results, strict=True))


def test_masks_in_parts_are_those_of_all_at_once(monkeypatch):
    torch.manual_seed(0)
    heads = RoiHeads(8, 2, tiny()).eval()
    generator = torch.Generator().manual_seed(0)
    features = [torch.rand(2, 8, 32 >> level, 32 >> level, generator=generator) for level in range(4)]
    boxes = [torch.tensor([[4.0, 4, 60, 40]]).repeat(count, 1) + torch.arange(count)[:, None] for count in (3, 4)]
    classes = [torch.zeros(len(box), dtype=torch.int64) for box in boxes]
    with torch.no_grad():
        whole = heads.mask_probabilities(features, boxes, classes)
        monkeypatch.setattr(cascade, "MASKS_AT_ONCE", 2)
        parts = heads.mask_probabilities(features, boxes, classes)
    assert [len(part) for part in parts] == [3, 4]
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(whole, parts, strict=True))
