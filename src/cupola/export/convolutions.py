"""The parts of the network that torch translates to ONNX by itself: convolutions, norms and linear layers.

What lies between them (choices, suppression, pooling, painting) is written in `regions` and `painting`.
"""

from __future__ import annotations

import warnings
from typing import Any

import onnx_ir as ir
import torch
from onnxscript import OpBuilder
from torch import Tensor, nn

from cupola.models import PanopticNetwork
from cupola.models.cascade import BoxPredictor, RoiHeads
from cupola.models.layers import upsample
from cupola.models.panoptic import DIVISOR
from cupola.models.semantic_head import STRIDE

OPSET = 18
"""Version of ONNX's operators: the first in which a scatter adds; runtimes from 2023 on read it."""

EXAMPLE_SIDE = 4
"""Sides of the example image, in units of `DIVISOR`; any value above 1 does, since sizes stay open."""


class Dense(nn.Module):
    """An image, normalised and padded, to everything that has a place: semantic logits 1 x (S + 1) x h x w at its
    size, features P2 to P5, and of each level anchors n x 4, their logits n and deltas n x 4. Without things only the
    semantic logits."""

    def __init__(self, network: PanopticNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
        features = self.network.backbone(batch)
        semantic = upsample(self.network.sem_seg_head(features), STRIDE)
        if not self.network.num_things:
            return semantic, [], [], [], []
        generator = self.network.proposal_generator
        logits, deltas = generator.rpn_head(features)
        anchors = generator.anchors(features)
        return semantic, features[:4], anchors, [row[0] for row in logits], [row[0] for row in deltas]


class BoxStage(nn.Module):
    """Pooled features n x c x s x s to class probabilities n x (T + 1) and deltas n x 4 of one stage."""

    def __init__(self, heads: RoiHeads, number: int) -> None:
        super().__init__()
        self.head = heads.box_head[number]
        self.predictor = heads.box_predictor[number]

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        assert isinstance(self.predictor, BoxPredictor)
        hidden = self.head(pooled)
        return self.predictor.cls_score(hidden).softmax(1), self.predictor.bbox_pred(hidden)


class MaskStage(nn.Module):
    """Pooled features n x c x s x s to mask probabilities n x k x 2s x 2s."""

    def __init__(self, heads: RoiHeads) -> None:
        super().__init__()
        self.head = heads.mask_head

    def forward(self, pooled: Tensor) -> Tensor:
        return torch.as_tensor(self.head(pooled)).sigmoid()


def add_dense(op: OpBuilder, network: PanopticNetwork, batch: ir.Value) -> list[ir.Value]:
    """The nodes of `Dense` put into a graph; its outputs, one after the other."""
    height, width = torch.export.Dim("rows"), torch.export.Dim("columns")
    side = EXAMPLE_SIDE * DIVISOR
    return _add(
        op, Dense(network), torch.zeros(1, 3, side, 2 * side), {2: DIVISOR * height, 3: DIVISOR * width}, batch
    )


def add_box_stage(op: OpBuilder, heads: RoiHeads, number: int, pooled: ir.Value) -> list[ir.Value]:
    """The nodes of `BoxStage` put into a graph."""
    first = heads.box_head[number].get_submodule("fc1")
    assert isinstance(first, nn.Linear)
    side = heads.settings.box.pooled
    example = torch.zeros(3, first.in_features // side**2, side, side)
    return _add(op, BoxStage(heads, number), example, {0: torch.export.Dim("regions")}, pooled)


def add_mask_stage(op: OpBuilder, heads: RoiHeads, pooled: ir.Value) -> ir.Value:
    """The nodes of `MaskStage` put into a graph."""
    side = heads.settings.mask.pooled
    example = torch.zeros(3, heads.settings.fpn_channels, side, side)
    return _add(op, MaskStage(heads), example, {0: torch.export.Dim("objects")}, pooled)[0]


def _add(op: OpBuilder, module: nn.Module, example: Tensor, sizes: dict[int, Any], argument: ir.Value) -> list[ir.Value]:
    """Translates a module of one argument and appends its nodes; weights become the graph's own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside torch's exporter, nothing that a user could mend
        program = torch.onnx.export(
            module.eval(), (example,), dynamo=True, dynamic_shapes=(sizes,), opset_version=OPSET, verbose=False
        )
    assert program is not None
    graph = program.model.graph
    arguments = [argument]
    for weight in list(graph.initializers.values()):
        assert weight.const_value is not None
        arguments.append(op.initializer(weight.const_value, f"{type(module).__name__}.{len(arguments)}.{weight.name}"))
        graph.inputs.append(weight)
    graph.initializers.clear()
    found = op.call_inline(ir.Function("", type(module).__name__, graph=graph, attributes=[]), *arguments)
    return [found] if isinstance(found, ir.Value) else list(found)
