"""The network against the published code's numbers (../shared/parity/README.md, part 2).

Each part is compared on the given input of that part, tightly; rounding grows in the deep random network, so that the
end-to-end comparison has the bounds stated there.
"""

import pytest
import torch
from cascade_numbers import Numbers, parity_settings, published_network, worst

from cupola.models.cascade import select_detections
from cupola.models.layers import upsample
from cupola.models.mask_head import paste_masks
from cupola.models.merge import merge_panoptic
from cupola.models.pooler import pool

LEVELS = ("p2", "p3", "p4", "p5", "p6")
FEATURE_BOUND = 1e-3
"""Largest difference of features and logits: 2.5 times the published code's own float32 rounding (4e-4)."""
SCORE_BOUND = 1e-5
"""Largest difference of a score after three stages: a fortieth of the published code's own rounding (4e-4)."""

IMAGES = pytest.mark.parametrize("image", ["a", "b"])


@pytest.fixture(scope="module")
def numbers(shared):
    return Numbers(shared / "parity" / "panoptic_cascade.npz")


@pytest.fixture(scope="module")
def network(shared):
    return published_network(shared, parity_settings())


def photo(numbers, image: str) -> torch.Tensor:
    return numbers[f"{image}/image"].float() / 255


def features(numbers, image: str) -> list[torch.Tensor]:
    return [numbers[f"{image}/{level}"][None] for level in LEVELS]


@IMAGES
@torch.no_grad()
def test_input_trunk_and_pyramid(numbers, network, image):
    batch = network.batch([photo(numbers, image)])
    part = batch[0, :, ::16, ::16] if image == "a" else batch[0, :, 120:, 220:]
    assert worst(part, numbers[f"{image}/normalised"]) < 1e-6
    trunk = network.backbone.bottom_up(batch)
    for level, found in enumerate(trunk, 2):
        assert worst(found[0], numbers[f"{image}/res{level}"]) < FEATURE_BOUND
    given = [numbers[f"{image}/res{level}"][None] for level in range(2, 6)]
    for level, found in zip(LEVELS, network.backbone.pyramid(given), strict=True):
        assert worst(found[0], numbers[f"{image}/{level}"]) < FEATURE_BOUND


@IMAGES
@torch.no_grad()
def test_anchors_and_rpn(numbers, network, image):
    levels = features(numbers, image)
    rpn = network.proposal_generator
    anchors = rpn.anchors(levels)
    logits, deltas = rpn.rpn_head(levels)
    for number, level in enumerate(LEVELS):
        step = 97 if level in ("p2", "p3") else 1
        assert worst(anchors[number][::step], numbers[f"{image}/anchors_{level}"]) < 1e-4
        logit, delta = numbers[f"{image}/rpn_logits_{level}"], numbers[f"{image}/rpn_deltas_{level}"]
        assert worst(logits[number][0], logit.permute(1, 2, 0).flatten()) < 1e-4
        assert worst(deltas[number][0], delta.permute(1, 2, 0).reshape(-1, 4)) < 1e-5
    size = tuple(numbers[f"{image}/image"].shape[1:])
    ((boxes, scores),) = rpn.proposals(anchors, logits, deltas, [size])
    expected = numbers[f"{image}/proposal_boxes"]
    assert abs(len(boxes) - len(expected)) <= 1
    apart = (boxes[:, None] - expected).abs().amax(-1).min(1).values
    assert (apart < 0.01).sum() >= len(boxes) - 2
    assert (scores.diff() <= 0).all()


@IMAGES
@torch.no_grad()
def test_cascade_stage_by_stage(numbers, network, image):
    levels, heads = features(numbers, image), network.roi_heads
    for stage in range(3):
        given = numbers[f"{image}/proposal_boxes" if stage == 0 else f"{image}/stage{stage}_input_boxes"]
        pooled = pool(levels, [given[:4]], 7, network.settings.pooler)
        assert worst(pooled, numbers[f"{image}/stage{stage}_pooled_first4"]) < 1e-5
        logits, deltas = heads.stage(stage, levels, [given])
        assert worst(logits, numbers[f"{image}/stage{stage}_logits"]) < 1e-4
        assert worst(deltas, numbers[f"{image}/stage{stage}_deltas"]) < 1e-5
    size = tuple(numbers[f"{image}/image"].shape[1:])
    ((boxes, scores),) = heads.cascade(levels, [numbers[f"{image}/proposal_boxes"]], [size])
    assert worst(boxes, numbers[f"{image}/final_stage_boxes"]) < 1e-3
    assert worst(scores, numbers[f"{image}/mean_scores"]) < SCORE_BOUND


@IMAGES
@pytest.mark.parametrize(("case", "threshold"), [("low", 0.05), ("half", 0.5)])
def test_detections(numbers, image, case, threshold):
    size = tuple(numbers[f"{image}/image"].shape[1:])
    given = numbers[f"{image}/final_stage_boxes"], numbers[f"{image}/mean_scores"]
    found = select_detections(*given, size, threshold, 0.5, 100)
    assert worst(found.scores, numbers[f"{image}/{case}_scores"]) < 1e-5
    assert torch.equal(found.classes, numbers[f"{image}/{case}_classes"])
    assert worst(found.boxes, numbers[f"{image}/{case}_boxes"]) < 1e-3


@IMAGES
@torch.no_grad()
def test_masks(numbers, network, image):
    levels = features(numbers, image)
    boxes, classes = numbers[f"{image}/low_boxes"], numbers[f"{image}/low_classes"]
    pooled = pool(levels, [boxes[:4]], 14, network.settings.pooler)
    assert worst(pooled, numbers[f"{image}/mask_pooled_first4"]) < 1e-5
    assert worst(network.roi_heads.mask_head(pooled), numbers[f"{image}/mask_logits_first4"]) < 1e-4
    (small,) = network.roi_heads.mask_probabilities(levels, [boxes], [classes])
    assert worst(small, numbers[f"{image}/low_mask_probabilities"]) < 1e-4
    height, width = numbers[f"{image}/image"].shape[1:]
    kept = numbers[f"{image}/low_final_boxes"]
    pasted = paste_masks(numbers[f"{image}/low_mask_probabilities"], kept, (height, width))
    assert (pasted != numbers.masks(f"{image}/low_final_masks_packed", width)).sum() <= 3


@IMAGES
@torch.no_grad()
def test_semantic_head(numbers, network, image):
    logits = network.sem_seg_head(features(numbers, image))
    assert worst(logits[0], numbers[f"{image}/sem_stride4"]) < FEATURE_BOUND
    height, width = numbers[f"{image}/image"].shape[1:]
    full = upsample(numbers[f"{image}/sem_stride4"][None], 4)[0, :, :height, :width]
    assert worst(full[:, ::8, ::8], numbers[f"{image}/sem_every_8th"]) < 1e-4
    assert (full.argmax(0) != numbers[f"{image}/sem_argmax"]).sum() <= 3


def without_empty_segments(numbers, prefix: str) -> tuple[torch.Tensor, list[tuple]]:
    """The published map and (is thing, category, score or area) of its segments, numbered from 1.

    With a stuff area of 0 the published merge lists classes of which no pixel is left; ours does not.
    """
    names = ("isthing", "category", "score", "area")
    table = zip(*(numbers[f"{prefix}_seg_{name}"].tolist() for name in names), strict=True)
    segments = [(thing, kind, score if thing else area) for thing, kind, score, area in table]
    kept = torch.tensor([True] + [thing or value > 0 for thing, _, value in segments])
    renumbered = (kept.cumsum(0) - 1)[numbers[f"{prefix}_panoptic"]]
    return renumbered, [segment for segment, keep in zip(segments, kept[1:], strict=True) if keep]


@IMAGES
@pytest.mark.parametrize("number", [0, 1, 2, 3, 4, None])
def test_merge(numbers, image, number):
    prefix = f"{image}/low" if number is None else f"{image}/combine{number}"
    overlap, area, score = (0.5, 4096.0, 0.05) if number is None else numbers["combine_settings"][number].tolist()
    width = numbers[f"{image}/image"].shape[2]
    panoptic, segments = merge_panoptic(
        numbers[f"{image}/sem_argmax"],
        numbers.masks(f"{image}/low_final_masks_packed", width),
        numbers[f"{image}/low_final_scores"],
        numbers[f"{image}/low_final_classes"],
        score_threshold=score,
        overlap=overlap,
        stuff_area=area,
    )
    expected, published = without_empty_segments(numbers, prefix)
    assert torch.equal(panoptic.long(), expected)
    assert [(s.is_thing, s.category, s.score if s.is_thing else s.area) for s in segments] == published


def same_objects(found_boxes, found_classes, boxes, classes) -> int:
    """How many of `boxes` have a partner of their class within 0.05 pixels."""
    near = (found_boxes[:, None] - boxes).abs().amax(-1) < 0.05
    return int((near & (found_classes[:, None] == classes)).any(0).sum())


@pytest.mark.parametrize("case", ["single", "batch", "resized"])
def test_end_to_end(numbers, network, case):
    """Whole predictions as sets: a few proposals swap places, a few pixels flip (README, "How close to ask")."""
    images, names = ["a", "b"], ["a/half", "b/half"]
    sizes = None
    if case == "batch":
        names = ["batch_a", "batch_b"]
    if case == "resized":
        images, names, sizes = ["b"], ["b_resized"], [(300, 501)]
    photos = [photo(numbers, image) for image in images]
    found = (
        [network.predict([p])[0] for p in photos] if case == "single" else network.predict(photos, output_sizes=sizes)
    )
    for prediction, name, image in zip(found, names, images, strict=True):
        separator = "_" if case == "single" else "/"
        boxes, classes = numbers[f"{name}{separator}boxes"], numbers[f"{name}{separator}classes"]
        assert same_objects(prediction.boxes, prediction.classes, boxes, classes) >= len(boxes) - 2
        semantic = numbers[f"{image}/sem_argmax" if case == "single" else f"{name}/sem_argmax"]
        assert (prediction.semantic.argmax(0) != semantic).float().mean() < 1e-3
        expected = numbers[f"{name}{separator}panoptic"]
        assert (prediction.panoptic != expected).float().mean() < 2e-3
