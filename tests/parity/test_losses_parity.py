"""Losses and gradients against the published code's numbers (../shared/parity/README.md, part 3).

Every case has its random choices recorded; they are handed to ours, with the recorded proposals, of which some change
places by rounding. Labels are as given: boxes a pixel short (spec-network N4).
"""

from dataclasses import replace

import pytest
import torch
from cascade_numbers import Numbers, parity_settings, published_network, worst

from cupola.models import PanopticNetwork, Target
from cupola.models.boxes import pairwise_iou
from cupola.models.cascade import Regions
from cupola.models.layers import freeze_norms
from cupola.models.losses import class_loss
from cupola.models.mask_head import mask_targets
from cupola.models.settings import NegativeSettings

CASES = ("bn_drop", "bn_nodrop", "frozen_drop", "frozen_nodrop", "all_drop", "all_nodrop", "empty_drop", "empty_nodrop")
DROPPING = tuple(case for case in CASES if case.endswith("_drop"))
WITHOUT_DROP_LOSS = ("empty_drop", 0)
"""An image without objects turns it off in the first stage."""

NAMES = {"semantic": "sem_seg", "rpn_objectness": "rpn_cls", "rpn_box": "rpn_loc", "mask": "mask"} | {
    f"stage{stage}_{ours}": f"{theirs}_stage{stage}"
    for stage in range(3)
    for ours, theirs in (("class", "cls"), ("box", "box_reg"))
}
"""Our names of the losses and the published ones."""

LOSS_BOUND = 1e-4
"""Largest relative difference of a loss."""

NORM_BOUND = 1e-3
"""Largest relative difference of a parameter's gradient."""

every_case = pytest.mark.parametrize("case", CASES)
dropping_cases = pytest.mark.parametrize("case", DROPPING)
stages = pytest.mark.parametrize("stage", [0, 1, 2])


@pytest.fixture(scope="module")
def numbers(shared):
    return Numbers(shared / "parity" / "panoptic_cascade_losses.npz")


def settings_of(case: str):
    settings = parity_settings()
    if case.startswith("all"):
        settings = replace(settings, rpn=replace(settings.rpn, samples=65536), box=replace(settings.box, samples=16384))
    rule = "drop_loss_published" if case in DROPPING else "all"
    return replace(settings, negatives=NegativeSettings(rule, drop_iou=0.4))


def pseudo_labels(numbers, case: str) -> tuple[list[torch.Tensor], list[Target]]:
    """Photos and targets; boxes as given (inclusive ends), nothing to ignore beyond the semantic 255."""
    images, targets = [], []
    for image in range(2):
        name = f"image{image}"
        images.append(numbers[f"{name}/image"].float() / 255)
        boxes, classes = numbers[f"{name}/boxes"].float(), numbers[f"{name}/classes"]
        semantic = numbers[f"{name}/semantic"]
        if image == 1 and case.startswith("empty"):
            boxes, classes, semantic = boxes[:0], classes[:0], numbers["image1_empty/semantic"]
        masks = numbers[f"{name}/instances"] == torch.arange(1, len(classes) + 1)[:, None, None]
        targets.append(Target(semantic, masks, boxes, classes, torch.zeros(semantic.shape, dtype=torch.bool)))
    return images, targets


def replay(monkeypatch, network, numbers, case: str) -> None:
    """The recorded proposals and random choices instead of the network's own."""
    proposals = [(numbers[f"{case}/proposals_{i}"], numbers[f"{case}/proposal_logits_{i}"]) for i in range(2)]
    monkeypatch.setattr(network.proposal_generator, "proposals", lambda *_: proposals)
    anchors = iter([(numbers[f"{case}/rpn_positive_{i}"], numbers[f"{case}/rpn_negative_{i}"]) for i in range(2)])
    regions = iter([numbers[f"{case}/sampled_{i}"] for i in range(2)])

    def recorded_anchors(label, *_):
        positive, negative = next(anchors)
        assert (label[positive] == 1).all()
        assert (label[negative] == 0).all()
        return positive, negative

    def recorded_regions(label, *_):
        chosen = next(regions)
        foreground = label[chosen] == 1
        count = int(foreground.sum())
        assert foreground[:count].all()
        return chosen[:count], chosen[count:]

    monkeypatch.setattr("cupola.models.rpn.sample", recorded_anchors)
    monkeypatch.setattr("cupola.models.cascade.sample", recorded_regions)


def recorded_regions(numbers, case: str, stage: int, targets: list[Target], network) -> list[Regions]:
    """The recorded regions of a stage, matched by us."""
    boxes = torch.split(numbers[f"{case}/stage{stage}_boxes"], numbers[f"{case}/stage{stage}_counts"].tolist())
    return [network.roi_heads.matched(box, target, None, stage) for box, target in zip(boxes, targets, strict=True)]


@pytest.fixture(scope="module")
def heads(shared):
    return published_network(shared, settings_of("frozen_drop"))


def trained_network(shared, case: str) -> PanopticNetwork:
    """The network in training mode. Where it takes statistics of the batch, tensors are laid out as the published code
    has them: in our faster layout torch sums them less exactly (`test_batch_statistics_in_our_layout`)."""
    network = published_network(shared, settings_of(case)).train()
    if case.startswith("bn"):
        network.to(memory_format=torch.contiguous_format)
        network.backbone.register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(),))
    else:
        freeze_norms(network)
    return network


@every_case
def test_whole_step(case, numbers, shared, monkeypatch):
    """Every loss, the gradient of every parameter, and what the norms have learnt."""
    network = trained_network(shared, case)
    replay(monkeypatch, network, numbers, case)
    losses = network.losses(*pseudo_labels(numbers, case), torch.Generator())
    for ours, theirs in NAMES.items():
        expected = numbers.file[f"{case}/losses/loss_{theirs}"].item()
        assert losses[ours].item() == pytest.approx(expected, rel=LOSS_BOUND), ours
    total = torch.stack(list(losses.values())).sum()
    assert total.item() == pytest.approx(numbers.file[f"{case}/losses/total"].item(), rel=LOSS_BOUND)
    total.backward()
    parameters = dict(network.named_parameters())
    trained = {name for name, parameter in parameters.items() if parameter.grad is not None}
    names, norms = numbers.file[f"{case}/gradient_names"].tolist(), numbers.file[f"{case}/gradient_norms"].tolist()
    assert trained == set(names)
    for name, norm in zip(names, norms, strict=True):
        assert parameters[name].grad.norm().item() == pytest.approx(norm, rel=NORM_BOUND, abs=1e-6), name
    whole = torch.stack([parameters[name].grad.norm() for name in names]).norm().item()
    assert whole == pytest.approx(numbers.file[f"{case}/gradient_total_norm"].item(), rel=NORM_BOUND)
    prefix = f"{case}/gradient/"
    given = [name[len(prefix) :] for name in numbers.file.files if name.startswith(prefix)]
    assert len(given) == 7
    for name in given:
        expected = numbers[prefix + name]
        difference = (parameters[name].grad - expected).norm() / expected.norm().clamp(min=1e-6)
        assert difference < NORM_BOUND, name
    buffers, prefix = dict(network.named_buffers()), f"{case}/after_step/"
    for name in (name for name in numbers.file.files if name.startswith(prefix)):
        assert worst(buffers[name[len(prefix) :]], numbers[name]) < 1e-4


def test_batch_statistics_in_our_layout(numbers, shared, monkeypatch):
    network = published_network(shared, settings_of("bn_nodrop")).train()
    replay(monkeypatch, network, numbers, "bn_nodrop")
    losses = network.losses(*pseudo_labels(numbers, "bn_nodrop"), torch.Generator())
    for ours, theirs in NAMES.items():
        expected = numbers.file[f"bn_nodrop/losses/loss_{theirs}"].item()
        assert losses[ours].item() == pytest.approx(expected, rel=2e-3), ours


def test_gradients_without_recorded_choices(numbers, shared):
    """Case `all_nodrop` from our own proposals and sampling: every anchor and region is taken."""
    network = trained_network(shared, "all_nodrop")
    losses = network.losses(*pseudo_labels(numbers, "all_nodrop"), torch.Generator().manual_seed(0))
    for ours, theirs in NAMES.items():
        expected = numbers.file[f"all_nodrop/losses/loss_{theirs}"].item()
        assert losses[ours].item() == pytest.approx(expected, rel=LOSS_BOUND)
    sum(losses.values()).backward()
    parameters = dict(network.named_parameters())
    names, norms = numbers.file["all_nodrop/gradient_names"], numbers.file["all_nodrop/gradient_norms"]
    for name, norm in zip(names, norms, strict=True):
        assert parameters[name].grad.norm().item() == pytest.approx(norm, rel=NORM_BOUND)


@every_case
@stages
def test_stage_on_recorded_regions(case, stage, numbers, heads):
    """Classes, wanted boxes and both losses of a stage, from the recorded regions and outputs."""
    prefix = f"{case}/stage{stage}"
    _, targets = pseudo_labels(numbers, case)
    regions = recorded_regions(numbers, case, stage, targets, heads)
    classes = torch.cat([region.classes(target, 12) for region, target in zip(regions, targets, strict=True)])
    assert torch.equal(classes, numbers[f"{prefix}_gt_classes"])
    foreground = torch.cat([region.foreground for region in regions])
    wanted = torch.cat([region.wanted_boxes(target) for region, target in zip(regions, targets, strict=True)])
    assert torch.equal(wanted, numbers[f"{prefix}_gt_boxes"][foreground])
    if case in DROPPING and (case, stage) != WITHOUT_DROP_LOSS:
        weights = torch.split(numbers[f"{prefix}_droploss_weights"], [len(region) for region in regions])
    else:
        weights = [torch.ones(len(region)) for region in regions]
    weighted = [replace(region, weights=weight) for region, weight in zip(regions, weights, strict=True)]
    logits, deltas = numbers[f"{prefix}_logits"], numbers[f"{prefix}_deltas"]
    losses = heads.roi_heads.stage_losses(stage, logits, deltas, weighted, targets)
    for ours in (f"stage{stage}_class", f"stage{stage}_box"):
        expected = numbers.file[f"{case}/losses/loss_{NAMES[ours]}"].item()
        assert losses[ours].mean.item() == pytest.approx(expected, rel=1e-5)


@dropping_cases
@stages
def test_published_drop_loss(case, stage, numbers, heads):
    """The boxes a stage predicts, and which regions the published DropLoss keeps, objects among them."""
    prefix = f"{case}/stage{stage}"
    _, targets = pseudo_labels(numbers, case)
    regions = recorded_regions(numbers, case, stage, targets, heads)
    moved = heads.roi_heads.decoded(stage, [region.boxes for region in regions], numbers[f"{prefix}_deltas"])
    found = torch.cat([r.weights for r in heads.roi_heads.reweighted(stage, regions, moved, targets)])
    if f"{prefix}_predicted_boxes" not in numbers.file.files:
        assert (case, stage) == WITHOUT_DROP_LOSS
        assert numbers[f"{prefix}_droploss_weights"].isnan().all()
        assert (found == 1).all()
        return
    assert worst(torch.cat(moved), numbers[f"{prefix}_predicted_boxes"]) < 1e-3
    assert torch.equal(found, numbers[f"{prefix}_droploss_weights"])
    foreground = torch.cat([region.foreground for region in regions])
    if case == "frozen_drop" and stage == 0:
        assert (found[foreground] == 0).any()


@pytest.mark.parametrize(
    ("case", "stage"),
    [(case, stage) for case in DROPPING for stage in range(3) if (case, stage) != WITHOUT_DROP_LOSS],
)
def test_class_loss_with_every_label(case, stage, numbers, heads):
    """The derived numbers: every label compared, divided by all regions and by those kept."""
    prefix = f"{case}/stage{stage}"
    _, targets = pseudo_labels(numbers, case)
    predicted = torch.split(numbers[f"{prefix}_predicted_boxes"], numbers[f"{prefix}_counts"].tolist())
    best = torch.cat(
        [
            pairwise_iou(target.boxes, boxes).amax(0) if len(target.boxes) else torch.zeros(len(boxes))
            for boxes, target in zip(predicted, targets, strict=True)
        ]
    )
    assert worst(best, numbers[f"{prefix}_iou_max_every_label"]) < 1e-5
    kept = (best > heads.settings.negatives.drop_iou).float()
    logits, classes = numbers[f"{prefix}_logits"], numbers[f"{prefix}_gt_classes"]
    for over_kept, name in ((False, "loss_cls_every_label"), (True, "loss_cls_every_label_kept_mean")):
        loss = class_loss(logits, classes, kept, mean_over_kept=over_kept).item()
        assert loss == pytest.approx(numbers.file[f"{prefix}_{name}"].item(), rel=1e-5)


@every_case
def test_mask_targets(case, numbers, heads):
    _, targets = pseudo_labels(numbers, case)
    chosen = [
        region.select(region.foreground.nonzero().flatten())
        for region in recorded_regions(numbers, case, 0, targets, heads)
    ]
    pairs = list(zip(chosen, targets, strict=True))
    found = [mask_targets(target.masks, region.boxes, region.matched, 28) for region, target in pairs]
    assert torch.equal(torch.cat(found), numbers.masks(f"{case}/mask_targets_packed", 28))
    classes = torch.cat([target.classes[region.matched] for region, target in pairs])
    assert torch.equal(classes, numbers[f"{case}/mask_classes"])
