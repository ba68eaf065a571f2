"""Masks pasted into the image and the panoptic merge as ONNX operators (spec-network 1.8, 1.11)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnxscript import OpBuilder

from cupola.export.regions import FLOAT, INT32, INT64, columns, constant, length
from cupola.models.mask_head import THRESHOLD
from cupola.models.records import SOME_THING
from cupola.models.settings import MergeSettings


@dataclass(frozen=True)
class Painted:
    """Objects in the map: panoptic int32 h x w (ids 1.. of the accepted, else 0), masks bool n x h x w, accepted
    bool [n], areas int64 [n] of the free pixels of each, count int32 [] of the accepted."""

    panoptic: ir.Value
    masks: ir.Value
    accepted: ir.Value
    areas: ir.Value
    count: ir.Value


def _interpolation(
    op: OpBuilder, start: ir.Value, end: ir.Value, first: ir.Value, last: ir.Value, size: int
) -> ir.Value:
    """Weights, pixels x size, of a row of `size` mask cells spread from `start` to `end` at the pixel centres
    first..last-1."""
    centres = op.Add(op.Cast(op.Range(first, last, 1), to=FLOAT), 0.5)
    place = op.Sub(op.Mul(op.Div(op.Sub(centres, start), op.Sub(end, start)), float(size)), 0.5)
    distance = op.Abs(op.Sub(op.Unsqueeze(place, [1]), constant(op, np.arange(size))))
    return op.Max(op.Sub(1.0, distance), 0.0)


def _crop_and_border(op: OpBuilder, box: ir.Value, extent: ir.Value) -> tuple[list[ir.Value], ir.Value]:
    """The whole pixels (x0, y0, x1, y1) around a box, int64 each, and the padding that leads from them to the image."""
    x0, y0, x1, y1 = (op.Squeeze(side, [0]) for side in columns(op, box))
    height, width = op.Split(extent, num_outputs=2, _outputs=2)
    corners = [op.Cast(op.Floor(side), to=INT64) for side in (x0, y0)]
    corners += [op.Cast(op.Ceil(side), to=INT64) for side in (x1, y1)]
    left, top, right, bottom = (op.Unsqueeze(corner, [0]) for corner in corners)
    return corners, op.Concat(top, left, op.Sub(height, bottom), op.Sub(width, right), axis=0)


def paint(
    op: OpBuilder, boxes: ir.Value, grids: ir.Value, extent: ir.Value, resolution: int, settings: MergeSettings
) -> Painted:
    """Objects, best first, take their free pixels; each is looked at inside its box alone.

    boxes: n x 4, within the image; grids: n x s x s mask probabilities over them; extent: (height, width), int64.
    """
    empty = op.ConstantOfShape(extent, value=ir.tensor(np.zeros(1, np.int32)))

    def body(op: OpBuilder, index: ir.Value, go_on: ir.Value, panoptic: ir.Value, count: ir.Value) -> list[ir.Value]:
        box = op.Gather(boxes, index)
        (x0, y0, x1, y1), border = _crop_and_border(op, box, extent)
        left, top, right, bottom = (op.Squeeze(side, [0]) for side in columns(op, box))
        rows = _interpolation(op, top, bottom, y0, y1, resolution)
        across = _interpolation(op, left, right, x0, x1, resolution)
        values = op.MatMul(op.MatMul(rows, op.Gather(grids, index)), op.Transpose(across, perm=[1, 0]))
        mask = op.GreaterOrEqual(values, THRESHOLD)
        corner = op.Concat(op.Unsqueeze(y0, [0]), op.Unsqueeze(x0, [0]), axis=0)
        end = op.Concat(op.Unsqueeze(y1, [0]), op.Unsqueeze(x1, [0]), axis=0)
        free = op.And(mask, op.Equal(op.Slice(panoptic, corner, end), constant(op, 0, np.int32)))
        area, free_area = _count(op, mask), _count(op, free)
        taken = op.Div(
            op.Cast(op.Sub(area, free_area), to=ir.DataType.DOUBLE),
            op.Cast(op.Max(area, constant(op, 1, np.int64)), to=ir.DataType.DOUBLE),
        )
        fits = op.LessOrEqual(taken, constant(op, settings.overlap, np.float64))
        accepted = op.And(op.Greater(area, constant(op, 0, np.int64)), fits)
        count = op.Add(count, op.Cast(accepted, to=INT32))
        number = op.Where(accepted, count, constant(op, 0, np.int32))
        added = op.Pad(op.Mul(op.Cast(free, to=INT32), number), border)
        whole = op.Cast(op.Pad(op.Cast(mask, to=ir.DataType.UINT8), border), to=ir.DataType.BOOL)
        return [op.Identity(go_on), op.Add(panoptic, added), count, whole, accepted, free_area]

    whole, scalar = ["height", "width"], list[int]()
    graph = op.builder.subgraph(
        body,
        [
            ir.val("object_index", INT64, scalar),
            ir.val("object_wanted", ir.DataType.BOOL, scalar),
            ir.val("painted_before", INT32, whole),
            ir.val("accepted_before", INT32, scalar),
        ],
        [
            ir.val("object_go_on", ir.DataType.BOOL, scalar),
            ir.val("painted_after", INT32, whole),
            ir.val("accepted_after", INT32, scalar),
            ir.val("object_mask", ir.DataType.BOOL, whole),
            ir.val("object_accepted", ir.DataType.BOOL, scalar),
            ir.val("object_area", INT64, scalar),
        ],
        name="paint_object",
    )
    found = op.Loop(op.Squeeze(length(op, boxes), [0]), None, empty, constant(op, 0, np.int32), body=graph, _outputs=5)
    shape = op.Concat(length(op, boxes), extent, axis=0)  # of no objects too
    return Painted(found[0], op.Reshape(found[2], shape, allowzero=1), found[3], found[4], found[1])


def _count(op: OpBuilder, mask: ir.Value) -> ir.Value:
    """Number of True, int64 []."""
    return op.ReduceSum(op.Cast(mask, to=INT64), keepdims=0)


def fill_stuff(
    op: OpBuilder, semantic: ir.Value, panoptic: ir.Value, count: ir.Value, num_stuff: int, settings: MergeSettings
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Stuff takes what the objects leave: the map, and the channels (1..S) and areas of the new segments, int64 each.

    semantic: channel of each pixel, int64 h x w.
    """
    free = op.Where(op.Equal(panoptic, constant(op, 0, np.int32)), semantic, constant(op, SOME_THING, np.int64))
    flat = op.Reshape(free, [-1])
    one = op.Expand(constant(op, [1], np.int64), op.Shape(flat))
    areas = op.ScatterElements(constant(op, np.zeros(num_stuff + 1), np.int64), flat, one, axis=0, reduction="add")
    share = op.Mul(op.Cast(op.Size(panoptic), to=ir.DataType.DOUBLE), constant(op, settings.stuff_share, np.float64))
    least = op.Max(share, constant(op, max(settings.stuff_area, 1), np.float64))
    large = op.GreaterOrEqual(op.Cast(areas, to=ir.DataType.DOUBLE), least)
    kept = op.And(large, constant(op, np.arange(num_stuff + 1) != SOME_THING, np.bool_))
    number = op.Add(op.CumSum(op.Cast(kept, to=INT32), constant(op, 0, np.int64)), count)
    ids = op.Where(kept, number, constant(op, 0, np.int32))
    channels = op.Squeeze(op.NonZero(kept), [0])
    return op.Add(panoptic, op.Gather(ids, free)), channels, op.Gather(areas, channels)
