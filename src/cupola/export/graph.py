"""The whole network as one ONNX graph: an image in, a panoptic result out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common as passes
from onnxscript import GraphBuilder, OpBuilder

from cupola.export.convolutions import OPSET, add_box_stage, add_dense, add_mask_stage
from cupola.export.painting import Painted, fill_stuff, paint
from cupola.export.regions import (
    FLOAT,
    INT32,
    INT64,
    clip,
    constant,
    decode,
    detections,
    has_area,
    hopeful,
    pool,
    proposals,
)
from cupola.models import PanopticNetwork
from cupola.models.panoptic import DEVIATION, DIVISOR, ENLARGED, MEAN

FORMAT = 10
"""Version of ONNX's file format; runtimes from 2024 on read it."""

NO_STUFF = -1
"""Semantic output of a pixel of some thing."""


@dataclass(frozen=True)
class _Found:
    """Objects of the image: boxes n x 4 [px], scores, classes (0..T-1) [n], mask probabilities n x s x s."""

    boxes: ir.Value
    scores: ir.Value
    classes: ir.Value
    grids: ir.Value


def build_model(
    network: PanopticNetwork, things: tuple[int, ...], stuff: tuple[int, ...], threshold: float, notes: dict[str, str]
) -> ir.Model:
    """The network in evaluation mode as an ONNX model (docs/onnx.md lists its inputs and outputs).

    things, stuff: pseudo class of each thing class and stuff channel; threshold: score from which an object counts
    unless the input says otherwise; notes: the file's metadata.
    """
    builder = GraphBuilder(ir.Graph([], [], nodes=[], name="cupola", opset_imports={"": OPSET}))
    op = builder.op
    image = builder.input("image", ir.DataType.UINT8, ["height", "width", 3])
    least = builder.input("score_threshold", FLOAT, [], const_value=ir.tensor(np.float32(threshold)))
    extent = op.Shape(image, start=0, end=2)
    photo = enlarged(op, image, extent, network.settings.rows)
    size = op.Shape(photo, start=2, end=4)
    dense = add_dense(op, network, _padded(op, photo, size))
    semantic = _channels(op, dense[0], size, extent, rescaled=network.settings.rows > 0)
    found = _find(op, network, dense[1:], size, extent, least) if things else _nothing(op, network)
    _add_outputs(builder, network, found, semantic, extent, things, stuff)
    return finished(builder, notes)


def finished(builder: GraphBuilder, notes: dict[str, str]) -> ir.Model:
    """The graph as a model: nothing unused, every name once, also inside loops."""
    model = ir.Model(builder.graph, ir_version=FORMAT, producer_name="cupola")
    model.metadata_props.update(notes)
    for tidy in (passes.RemoveUnusedNodesPass(), passes.IdentityEliminationPass(), passes.NameFixPass()):
        tidy(model)
    for node in model.graph.all_nodes():
        node.metadata_props.clear()  # places in the source code of torch
    return model


def enlarged(op: OpBuilder, image: ir.Value, extent: ir.Value, rows: int) -> ir.Value:
    """Bytes h x w x 3 to colours in [0, 1], 1 x 3 x h x w, enlarged as `size_to_predict` has it."""
    photo = op.Unsqueeze(op.Transpose(op.Div(op.Cast(image, to=FLOAT), 255.0), perm=[2, 0, 1]), [0])
    if not rows:
        return photo
    exact = op.Cast(extent, to=ir.DataType.DOUBLE)  # as Python computes
    height, width = op.Split(exact, num_outputs=2, _outputs=2)
    to_area = op.Sqrt(op.Div(constant(op, ENLARGED, np.float64), op.Mul(height, width)))
    scale = op.Min(op.Div(constant(op, rows, np.float64), height), to_area)
    larger = op.Cast(op.Round(op.Mul(exact, scale)), to=INT64)
    size = op.Where(op.LessOrEqual(scale, constant(op, 1, np.float64)), extent, larger)
    return _resized(op, photo, size)


def _resized(op: OpBuilder, maps: ir.Value, size: ir.Value) -> ir.Value:
    """1 x k x h x w, bilinear, half-pixel convention."""
    sizes = op.Concat(op.Shape(maps, start=0, end=2), size, axis=0)
    return op.Resize(maps, None, None, sizes, mode="linear", coordinate_transformation_mode="half_pixel")


def _padded(op: OpBuilder, photo: ir.Value, size: ir.Value) -> ir.Value:
    """Normalised, then padded with zeros at right and bottom to multiples of 32."""
    mean, deviation = (np.reshape(values, (3, 1, 1)) for values in (MEAN, DEVIATION))
    normal = op.Div(op.Sub(photo, constant(op, mean)), constant(op, deviation))
    missing = op.Mod(op.Sub(DIVISOR, op.Mod(size, DIVISOR)), DIVISOR)
    return op.Pad(normal, op.Concat(constant(op, [0] * 6, np.int64), missing, axis=0))


def _channels(op: OpBuilder, logits: ir.Value, size: ir.Value, extent: ir.Value, *, rescaled: bool) -> ir.Value:
    """Semantic channel of each pixel of the image, int64 h x w."""
    cut = op.Slice(logits, [0, 0], size, [2, 3])
    return op.Squeeze(op.ArgMax(_resized(op, cut, extent) if rescaled else cut, axis=1, keepdims=0), [0])


def _limits(op: OpBuilder, extent: ir.Value) -> ir.Value:
    """(width, height, width, height) of (height, width), float32."""
    return op.Cast(op.Gather(extent, constant(op, [1, 0, 1, 0], np.int64)), to=FLOAT)


def _find(
    op: OpBuilder, network: PanopticNetwork, dense: list[ir.Value], size: ir.Value, extent: ir.Value, least: ir.Value
) -> _Found:
    """Detections, scaled to the image and cut to it, empty ones dropped, and their small masks."""
    settings, heads = network.settings, network.roi_heads
    levels = len(settings.rpn.sizes)
    features, logits, deltas = dense[:levels], dense[levels : 2 * levels], dense[2 * levels :]
    limits = _limits(op, size)
    boxes = proposals(op, features, logits, deltas, limits, settings.rpn)
    total: ir.Value | None = None
    stages = len(settings.box.code_weights)
    for number, weights in enumerate(settings.box.code_weights):
        if total is not None:
            boxes, total = hopeful(op, clip(op, boxes, limits), total, stages - number, stages, least)
        pooled, rank = pool(op, features, boxes, settings.box.pooled, settings.pooler)
        found, moves = add_box_stage(op, heads, number, pooled)
        found = op.Gather(found, rank)
        total = found if total is None else op.Add(total, found)
        boxes = decode(op, op.Gather(moves, rank), boxes, weights)
    mean = op.Div(total, float(stages))
    boxes, scores, classes = detections(op, boxes, mean, limits, least, settings.box)
    pooled, rank = pool(op, features, boxes, settings.mask.pooled, settings.pooler)
    grids = op.Gather(add_mask_stage(op, heads, pooled), rank)
    if settings.mask.class_agnostic or network.num_things == 1:
        grids = op.Squeeze(grids, [1])
    else:
        grids = op.GatherND(grids, op.Unsqueeze(classes, [1]), batch_dims=1)
    whole = _limits(op, extent)
    scaled = clip(op, op.Mul(boxes, op.Div(whole, limits)), whole) if settings.rows else clip(op, boxes, limits)
    good = has_area(op, scaled)
    return _Found(*(op.Compress(values, good, axis=0) for values in (scaled, scores, classes, grids)))


def _nothing(op: OpBuilder, network: PanopticNetwork) -> _Found:
    """The objects of a network without things."""
    side = 2 * network.settings.mask.pooled
    boxes, scores, grids = (constant(op, np.zeros(shape)) for shape in ((0, 4), 0, (0, side, side)))
    return _Found(boxes, scores, constant(op, np.zeros(0), np.int64), grids)


def _add_outputs(
    builder: GraphBuilder,
    network: PanopticNetwork,
    found: _Found,
    semantic: ir.Value,
    extent: ir.Value,
    things: tuple[int, ...],
    stuff: tuple[int, ...],
) -> None:
    """Paints the objects, fills in stuff, and declares what the graph gives; classes become pseudo classes."""
    op, settings = builder.op, network.settings
    painted: Painted = paint(op, found.boxes, found.grids, extent, 2 * settings.mask.pooled, settings.merge)
    panoptic, channels, areas = fill_stuff(
        op, semantic, painted.panoptic, painted.count, network.num_stuff, settings.merge
    )
    thing_class = op.Gather(constant(op, things or (0,), np.int64), found.classes)
    stuff_class = constant(op, (NO_STUFF, *stuff), np.int64)

    def segments(of_things: ir.Value, of_stuff: ir.Value) -> ir.Value:
        return op.Concat(op.Compress(of_things, painted.accepted, axis=0), of_stuff, axis=0)

    nothing = op.Mul(channels, 0)
    is_stuff = segments(op.Mul(found.classes, 0), op.Add(nothing, 1))
    unknown = op.Div(op.Cast(nothing, to=FLOAT), 0.0)  # not a number: stuff has no score
    pixels, objects, count = ("height", "width"), ("objects",), ("segments",)
    outputs: dict[str, tuple[ir.Value, ir.DataType, tuple[int | str, ...]]] = {
        "panoptic": (panoptic, INT32, pixels),
        "segment_id": (op.CumSum(op.Add(op.Mul(is_stuff, 0), 1), 0), INT64, count),
        "segment_class": (segments(thing_class, op.Gather(stuff_class, channels)), INT64, count),
        "segment_is_thing": (op.Equal(is_stuff, 0), ir.DataType.BOOL, count),
        "segment_score": (segments(found.scores, unknown), FLOAT, count),
        "segment_area": (segments(painted.areas, areas), INT64, count),
        "semantic": (op.Cast(op.Gather(stuff_class, semantic), to=INT32), INT32, pixels),
        "boxes": (found.boxes, FLOAT, (*objects, 4)),
        "scores": (found.scores, FLOAT, objects),
        "classes": (thing_class, INT64, objects),
        "masks": (painted.masks, ir.DataType.BOOL, (*objects, *pixels)),
    }
    for name, (value, kind, shape) in outputs.items():
        result = op.Identity(value)
        result.dtype, result.shape = kind, ir.Shape(shape)
        builder.add_output(result, name)
