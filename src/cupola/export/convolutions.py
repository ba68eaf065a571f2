"""The parts of the network that torch translates to ONNX by itself: convolutions, norms and linear layers.

What lies between them (choices, suppression, pooling, painting) is written in `regions` and `painting`.
"""

from __future__ import annotations

import warnings
from io import BytesIO

import onnx
import onnx_ir as ir
import torch
from onnxscript import OpBuilder
from torch import Tensor, nn
from torch.nn import functional

from cupola.models import PanopticNetwork
from cupola.models.cascade import BoxHead, BoxPredictor, RoiHeads
from cupola.models.layers import upsample
from cupola.models.panoptic import DIVISOR
from cupola.models.semantic_head import STRIDE

OPSET = 18
"""Version of ONNX's operators: the first that splits into a number of parts; runtimes from 2023 on read it."""

EXAMPLE_SIDE, EXAMPLE_COUNT = 4, 3
"""Height of the example image in units of `DIVISOR`, and number of regions; any above 1 do, since sizes stay open."""


class Dense(nn.Module):
    """An image, normalised and padded, to everything that has a place: semantic logits 1 x (S + 1) x h x w at its size
    and, with things, of each level first the features, then objectness logits n, then deltas n x 4."""

    def __init__(self, network: PanopticNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: Tensor) -> list[Tensor]:
        features = self.network.backbone(batch)
        semantic = upsample(self.network.sem_seg_head(features), STRIDE)
        if not self.network.num_things:
            return [semantic]
        logits, deltas = self.network.proposal_generator.rpn_head(features)
        return [semantic, *features, *(row[0] for row in logits), *(row[0] for row in deltas)]


class BoxStage(nn.Module):
    """Pooled features n x c x s x s to class probabilities n x (T + 1) and deltas n x 4 of one stage."""

    def __init__(self, heads: RoiHeads, number: int) -> None:
        super().__init__()
        self.head: nn.Module = heads.box_head[number]
        self.predictor = heads.box_predictor[number]

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        assert isinstance(self.head, BoxHead)
        assert isinstance(self.predictor, BoxPredictor)
        hidden = functional.relu(self.head.fc1(pooled.flatten(1)))  # not as the convolution that suits torch
        hidden = functional.relu(self.head.fc2(hidden))
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
    side = EXAMPLE_SIDE * DIVISOR
    return _add(op, "dense", Dense(network), torch.zeros(1, 3, side, 2 * side), {2: "rows", 3: "columns"}, batch)


def add_box_stage(op: OpBuilder, heads: RoiHeads, number: int, pooled: ir.Value) -> list[ir.Value]:
    """The nodes of `BoxStage` put into a graph; probabilities and deltas."""
    side = heads.settings.box.pooled
    example = torch.zeros(EXAMPLE_COUNT, heads.settings.fpn_channels, side, side)
    return _add(op, f"box_stage_{number}", BoxStage(heads, number), example, {0: "regions"}, pooled)


def add_mask_stage(op: OpBuilder, heads: RoiHeads, pooled: ir.Value) -> ir.Value:
    """The nodes of `MaskStage` put into a graph."""
    side = heads.settings.mask.pooled
    example = torch.zeros(EXAMPLE_COUNT, heads.settings.fpn_channels, side, side)
    return _add(op, "mask_stage", MaskStage(heads), example, {0: "objects"}, pooled)[0]


def _add(
    op: OpBuilder, name: str, module: nn.Module, example: Tensor, open_axes: dict[int, str], argument: ir.Value
) -> list[ir.Value]:
    """Translates a module of one argument and appends its nodes; its weights become the graph's own.

    By torch's tracing exporter: its other one (`dynamo=True`) gives the same results, but took 16 times as long for the
    network `tiny`, most of it for symbolic sizes.
    """
    file = BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is another exporter, and that sizes of the example are constants
        torch.onnx.export(
            module.eval(),
            (example,),
            file,  # type: ignore[arg-type]  # this exporter also takes a file in memory
            dynamo=False,
            opset_version=OPSET,
            input_names=["input"],
            dynamic_axes={"input": open_axes},
        )
    graph = ir.from_proto(onnx.load_model_from_string(file.getvalue())).graph
    for node in graph:
        for value in node.outputs:
            value.shape = None  # that of the example
    arguments = [argument]
    for weight in list(graph.initializers.values()):
        assert weight.const_value is not None
        arguments.append(op.initializer(weight.const_value, f"{name}.{weight.name}"))
        graph.inputs.append(weight)
    graph.initializers.clear()
    found = op.call_inline(ir.Function("", name, graph=graph, attributes=[]), *arguments, _prefix=name)
    return [found] if isinstance(found, ir.Value) else list(found)
