"""The choices between convolutions as ONNX operators: proposals, pooling, the cascade and its detections.

Each function does what its namesake in `cupola.models` does, on one image; what it appends to the graph is checked
against that one in tests/export. Boxes are n x 4 float32 [px], as there.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import torch
from onnxscript import OpBuilder

from cupola.models.boxes import MAX_LOG_SCALE, CodeWeights
from cupola.models.cascade import SLACK
from cupola.models.fpn import LEVELS
from cupola.models.pooler import CANONICAL_LEVEL
from cupola.models.rpn import ANCHOR_CODE, level_anchors
from cupola.models.semantic_head import STRIDE
from cupola.models.settings import BoxHeadSettings, PoolerSettings, RpnSettings

FLOAT, INT32, INT64 = ir.DataType.FLOAT, ir.DataType.INT32, ir.DataType.INT64

LOWEST = float(np.finfo(np.float32).min)
"""Below every finite score: what is set to minus infinity is never chosen."""


def constant(op: OpBuilder, values: object, kind: type = np.float32) -> ir.Value:
    """An array as part of the graph."""
    return op.Constant(value=ir.tensor(np.asarray(values, kind)))


def length(op: OpBuilder, rows: ir.Value) -> ir.Value:
    """Number of rows, int64 [1]."""
    return op.Shape(rows, start=0, end=1)


def columns(op: OpBuilder, boxes: ir.Value) -> list[ir.Value]:
    """x0, y0, x1, y1, n x 1 each."""
    return list(op.Split(boxes, axis=-1, num_outputs=4, _outputs=4))


def decode(op: OpBuilder, deltas: ir.Value, references: ir.Value, weights: CodeWeights) -> ir.Value:
    """`references` moved by `deltas`; not clipped."""
    dx, dy, dw, dh = columns(op, op.Div(deltas, constant(op, weights)))
    x0, y0, x1, y1 = columns(op, references)
    width, height = op.Sub(x1, x0), op.Sub(y1, y0)
    x = op.Add(op.Div(op.Add(x0, x1), 2.0), op.Mul(dx, width))
    y = op.Add(op.Div(op.Add(y0, y1), 2.0), op.Mul(dy, height))
    half_width = op.Div(op.Mul(width, op.Exp(op.Min(dw, constant(op, MAX_LOG_SCALE)))), 2.0)
    half_height = op.Div(op.Mul(height, op.Exp(op.Min(dh, constant(op, MAX_LOG_SCALE)))), 2.0)
    sides = (op.Sub(x, half_width), op.Sub(y, half_height), op.Add(x, half_width), op.Add(y, half_height))
    return op.Concat(*sides, axis=-1)


def clip(op: OpBuilder, boxes: ir.Value, limits: ir.Value) -> ir.Value:
    """Boxes cut to the image; limits: (width, height, width, height), float32."""
    return op.Min(op.Max(boxes, 0.0), limits)


def finite(op: OpBuilder, values: ir.Value) -> ir.Value:
    """Which rows of n x k are finite throughout, bool [n]."""
    bad = op.Or(op.IsNaN(values), op.IsInf(values))
    return op.Equal(op.ReduceMax(op.Cast(bad, to=INT32), constant(op, [1], np.int64), keepdims=0), 0)


def has_area(op: OpBuilder, boxes: ir.Value) -> ir.Value:
    """Which boxes are finite and have both sides longer than 0, bool [n]."""
    x0, y0, x1, y1 = columns(op, boxes)
    longer = op.And(op.Greater(op.Sub(x1, x0), 0.0), op.Greater(op.Sub(y1, y0), 0.0))
    return op.And(op.Squeeze(longer, constant(op, [1], np.int64)), finite(op, boxes))


def suppress(
    op: OpBuilder, boxes: ir.Value, scores: ir.Value, least: ir.Value, iou: float, limit: int
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Non-maximum suppression inside each group, then the `limit` best of all.

    scores: groups x n, minus infinity where a box is not of the group; least: scores above it count. Returns boxes,
    scores and groups of what stays, by descending score.
    """
    chosen = op.NonMaxSuppression(
        op.Unsqueeze(boxes, [0]),
        op.Unsqueeze(scores, [0]),
        constant(op, limit, np.int64),  # of each group; no more of one can be among the best of all
        constant(op, iou),
        least,
    )
    places = op.Slice(chosen, [1], [3], [1])  # (group, box)
    score = op.GatherND(scores, places)
    count = op.Min(length(op, score), constant(op, [limit], np.int64))
    best, order = op.TopK(score, count, axis=0, _outputs=2)
    group, box = op.Split(op.Gather(places, order), axis=1, num_outputs=2, _outputs=2)
    squeezed = op.Squeeze(box, constant(op, [1], np.int64))
    return op.Gather(boxes, squeezed), best, op.Squeeze(group, constant(op, [1], np.int64))


def anchors(op: OpBuilder, feature: ir.Value, level: int, settings: RpnSettings) -> ir.Value:
    """Anchors of a feature map of the level (0 = P2), flattened as (y, x, size, ratio): the first place's, moved."""
    stride = STRIDE << level
    shapes = level_anchors(1, 1, stride, settings.sizes[level], settings.ratios, torch.device("cpu"))
    y, x = (op.Mul(op.Range(0, op.Gather(op.Shape(feature), axis), 1), stride) for axis in (2, 3))
    y, x = op.Reshape(y, [-1, 1, 1, 1]), op.Reshape(x, [1, -1, 1, 1])
    zero = op.Mul(op.Add(x, y), 0)
    centres = op.Cast(op.Concat(op.Add(x, zero), op.Add(y, zero), op.Add(x, zero), op.Add(y, zero), axis=3), to=FLOAT)
    return op.Reshape(op.Add(centres, constant(op, shapes.numpy())), [-1, 4])


def proposals(
    op: OpBuilder,
    features: list[ir.Value],
    logits: list[ir.Value],
    deltas: list[ir.Value],
    limits: ir.Value,
    settings: RpnSettings,
) -> ir.Value:
    """The best boxes of all levels, best first (spec-network 1.5)."""
    boxes, scores, levels = [], [], []
    for number, (feature, logit, delta) in enumerate(zip(features, logits, deltas, strict=True)):
        anchor = anchors(op, feature, number, settings)
        count = op.Min(length(op, logit), constant(op, [settings.before_nms], np.int64))
        score, index = op.TopK(logit, count, axis=0, _outputs=2)
        boxes.append(decode(op, op.Gather(delta, index), op.Gather(anchor, index), ANCHOR_CODE))
        scores.append(score)
        levels.append(op.Expand(constant(op, [number], np.int64), count))
    box = clip(op, op.Concat(*boxes, axis=0), limits)
    score, level = op.Concat(*scores, axis=0), op.Concat(*levels, axis=0)
    usable = op.And(has_area(op, box), finite(op, op.Unsqueeze(score, [1])))
    own = op.Equal(op.Unsqueeze(level, [0]), constant(op, [[number] for number in range(len(levels))], np.int64))
    table = op.Where(op.And(own, usable), score, constant(op, -np.inf))
    return suppress(op, box, table, constant(op, LOWEST), settings.nms, settings.after_nms)[0]


def pool(
    op: OpBuilder, features: list[ir.Value], boxes: ir.Value, output_size: int, settings: PoolerSettings
) -> tuple[ir.Value, ir.Value]:
    """Features of the boxes, level after level, and where in that order each box stands (spec-network 1.6).

    features: P2 to P5 (further levels are not read). The floor of the logarithm of a side is found by comparing it with
    powers of two.
    """
    x0, y0, x1, y1 = columns(op, boxes)
    area = op.Max(op.Mul(op.Sub(x1, x0), op.Sub(y1, y0)), 0.0)
    side = op.Add(op.Div(op.Squeeze(op.Sqrt(area), [1]), float(settings.canonical_size)), 1e-8)
    level = op.Add(op.Mul(op.Cast(side, to=INT64), 0), LEVELS[0])
    for upper in LEVELS[1:]:
        reached = op.GreaterOrEqual(side, 2.0 ** (upper - CANONICAL_LEVEL))
        level = op.Add(level, op.Cast(reached, to=INT64))
    parts, places = [], []
    for number, feature in zip(LEVELS, features, strict=False):
        place = op.Squeeze(op.NonZero(op.Equal(level, number)), [0])
        parts.append(
            op.RoiAlign(
                feature,
                op.Gather(boxes, place),
                op.Mul(place, 0),  # all of them in the one image
                coordinate_transformation_mode="half_pixel",
                output_height=output_size,
                output_width=output_size,
                sampling_ratio=settings.sampling_ratio,
                spatial_scale=1 / 2**number,
            )
        )
        places.append(place)
    order = op.Concat(*places, axis=0)
    rank = op.ScatterElements(order, order, op.Range(0, op.Squeeze(length(op, order), [0]), 1), axis=0)
    return op.Concat(*parts, axis=0), rank


def hopeful(
    op: OpBuilder, boxes: ir.Value, total: ir.Value, left: int, stages: int, score_threshold: ir.Value
) -> tuple[ir.Value, ir.Value]:
    """Boxes and sums of their class probabilities, without those that the stages left cannot lift above the threshold.

    total: n x (T + 1), the last column is background.
    """
    best = op.ReduceMax(op.Slice(total, [0], [-1], [1]), constant(op, [1], np.int64), keepdims=0)
    good = op.Greater(op.Div(op.Add(best, float(left)), float(stages)), op.Sub(score_threshold, SLACK))
    return op.Compress(boxes, good, axis=0), op.Compress(total, good, axis=0)


def detections(
    op: OpBuilder,
    boxes: ir.Value,
    probabilities: ir.Value,
    limits: ir.Value,
    score_threshold: ir.Value,
    settings: BoxHeadSettings,
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Boxes, scores and classes of what is found, best first (spec-network 1.7).

    probabilities: n x (T + 1), the last column is background.
    """
    usable = op.And(finite(op, boxes), finite(op, probabilities))
    scores = op.Transpose(op.Slice(probabilities, [0], [-1], [1]), perm=[1, 0])
    table = op.Where(usable, scores, constant(op, -np.inf))
    return suppress(op, clip(op, boxes, limits), table, score_threshold, settings.nms, settings.detections)
