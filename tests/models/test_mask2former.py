"""Mask2Former: what DropLoss leaves out and what not, ignored pixels, predictions, files, and that it learns."""

import importlib.util
import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_network import check, generator, scene, without_objects

from cupola.config import plain
from cupola.errors import ConfigError
from cupola.models import (
    IGNORE,
    Mask2FormerSettings,
    QueryNegativeSettings,
    Target,
    VitSettings,
    build_network,
    load_network,
    mask2former,
    predict_views,
    save_network,
)
from cupola.models.boxes import one_each
from cupola.models.checkpoint import settings_from
from cupola.models.mask2former.queries import (
    Segments,
    at_points,
    may_be_unmarked,
    overlaps,
    point_losses,
    query_class_losses,
    segments_of,
    uncertain_points,
)
from cupola.models.settings import MergeSettings, TrunkSettings
from cupola.semantics.backbones.settings import VitSizes

pytest.importorskip("transformers", reason="the extra mask2former is not installed")

TRUNK = TrunkSettings("basic", stem=8, blocks=(1, 1, 1, 1), widths=(8, 16, 24, 32))
SMALL = Mask2FormerSettings(
    trunk=TRUNK,
    queries=10,
    channels=32,
    heads=2,
    encoder_layers=1,
    encoder_feedforward=32,
    decoder_layers=2,
    decoder_feedforward=32,
    points=256,
    merge=MergeSettings(stuff_area=0),
)


def make(settings=SMALL, things: int = 2, stuff: int = 2):
    torch.manual_seed(3)
    return build_network(settings, things, stuff)


# ---- which queries are told to be nothing, and of what


def squares(*corners: tuple[int, int], side: int = 8, size: int = 32) -> torch.Tensor:
    masks = torch.zeros(len(corners), size, size, dtype=torch.bool)
    for mask, (y, x) in zip(masks, corners, strict=True):
        mask[y : y + side, x : x + side] = True
    return masks


def test_drop_loss_spares_what_no_label_speaks_of():
    labelled = squares((0, 0))
    unmarked = torch.zeros(32, 32, dtype=torch.bool)
    unmarked[16:] = True
    segments = Segments(labelled, torch.tensor([0]), ~unmarked, unmarked)
    shown = squares((0, 1), (0, 4), (16, 16), (0, 20))  # IoU 7/9, 1/3, 0 and all unmarked, 0 on known pixels
    rules = {
        rule: may_be_unmarked(shown, segments, QueryNegativeSettings(rule)).tolist()
        for rule in ("all", "drop_loss", "ignore_aware")
    }
    assert rules == {
        "all": [False] * 4,
        "drop_loss": [False, True, True, True],
        "ignore_aware": [False, False, True, False],
    }


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 2**31))
def test_drop_loss_spares_less_as_its_threshold_falls(low, high, seed):
    low, high = sorted((low, high))
    source = torch.Generator().manual_seed(seed)
    masks, labels = (torch.rand(n, 6, 6, generator=source) > 0.5 for n in (5, 3))
    nowhere = torch.zeros(6, 6, dtype=torch.bool)
    segments = Segments(labels, torch.arange(3), ~nowhere, nowhere)
    few, many = (may_be_unmarked(masks, segments, QueryNegativeSettings(drop_iou=iou)) for iou in (low, high))
    assert not (few & ~many).any()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(0, 2**31))
def test_a_spared_query_learns_of_stuff_and_not_of_things(things, stuff, seed):
    logits = torch.randn(4, things + stuff + 1, generator=torch.Generator().manual_seed(seed)).requires_grad_()
    nothing = torch.full((4,), things + stuff)
    spared = torch.tensor([True, True, False, False])
    losses = query_class_losses(logits, nothing, spared, things)
    assert (losses[:2] <= -logits.log_softmax(1)[:2, -1]).all()
    torch.testing.assert_close(losses[2:], -logits.log_softmax(1)[2:, -1])
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    assert (gradient[:, things:-1] > 0).all()  # descent makes stuff less likely, whether spared or not
    assert (gradient[2:, :things] > 0).all()
    assert (gradient[:2, :things] < 0).all()
    # The loss does not change as weight moves from a thing to nothing.
    moved = logits.detach().softmax(1)
    moved[:, -1], moved[:, 0] = moved[:, -1] + moved[:, 0] / 2, moved[:, 0] / 2
    torch.testing.assert_close(query_class_losses(moved.log(), nothing, spared, things)[:2], losses[:2])


def test_overlaps_are_intersection_over_union():
    first, second = squares((0, 0), (20, 20)), squares((0, 0), (0, 4), (8, 8))
    torch.testing.assert_close(overlaps(first, second), torch.tensor([[1, 1 / 3, 0], [0, 0, 0]]))
    assert overlaps(torch.zeros(1, 4, 4, dtype=torch.bool), torch.zeros(2, 4, 4, dtype=torch.bool)).sum() == 0


# ---- segments and masks


def test_a_target_becomes_one_segment_an_object_and_a_stuff_class():
    _, target = scene((90, 150))
    segments = segments_of(target, 2, (96, 160))
    assert segments.classes.tolist() == [0, 1, 2, 3]
    assert segments.masks.shape == (4, 96, 160)
    assert torch.equal(segments.masks.sum(0).bool(), segments.known)
    assert not segments.known[90:].any()
    assert not segments.known[:, 150:].any()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 60), st.floats(0, 1))
def test_points_are_within_the_image_and_the_uncertain_ones_first(seed, count, share):
    source = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 9, 7, generator=source)
    points = uncertain_points(logits, count, 3.0, share, source)
    assert points.shape == (3, count, 2)
    assert ((points >= 0) & (points <= 1)).all()
    certain = at_points(logits, points).abs()[:, : int(count * share)]
    assert (certain.diff() >= 0).all()


def test_points_at_pixel_centres_are_the_pixels():
    maps = torch.rand(2, 3, 4)
    y, x = torch.meshgrid((torch.arange(3) + 0.5) / 3, (torch.arange(4) + 0.5) / 4, indexing="ij")
    points = torch.stack((x, y), -1).reshape(1, 12, 2).expand(2, -1, -1)
    torch.testing.assert_close(at_points(maps, points), maps.reshape(2, 12))


def test_unknown_points_do_not_count():
    logits = torch.randn(2, 30).requires_grad_()
    wanted, known = (torch.rand(2, 30) > 0.5).float(), torch.rand(2, 30) > 0.3
    losses = point_losses(logits, wanted, known)
    others = torch.where(known, wanted, 1 - wanted)
    assert all(torch.equal(one, other) for one, other in zip(losses, point_losses(logits, others, known), strict=True))
    (gradient,) = torch.autograd.grad(sum(losses), logits)
    assert (gradient[~known] == 0).all()
    perfect = point_losses(60 * wanted - 30, wanted, known)
    assert all(float(loss) < 1e-4 for loss in perfect)


def test_what_is_ignored_changes_no_mask_loss():
    _, target = scene()
    hidden = target.semantic == target.semantic[-1, 0]
    semantic = target.semantic.masked_fill(hidden, IGNORE)
    ignored = Target(semantic, target.masks, target.boxes, target.classes, target.ignore)
    network = make(replace(SMALL, query_negatives=QueryNegativeSettings("all"))).train()
    segments = segments_of(ignored, 2, (96, 160))
    masks = torch.randn(3, 24, 40).requires_grad_()
    entropy, dice = network._mask_losses(masks, segments, torch.tensor([0, 1, 2]), generator())
    (gradient,) = torch.autograd.grad(entropy + dice, masks)
    inside = torch.nn.functional.max_pool2d((~hidden).float()[None], 4)[0] == 0
    inside = torch.nn.functional.max_pool2d((~inside).float()[None], 3, 1, 1)[0] == 0  # bilinear reaches one cell on
    assert inside.any()
    assert (gradient[:, inside] == 0).all()
    assert gradient.abs().sum() > 0


# ---- the network


@pytest.mark.parametrize(("things", "stuff"), [(2, 2), (1, 0), (0, 3)])
def test_losses_and_predictions_for_any_number_of_classes(things, stuff):
    network = make(things=things, stuff=stuff)
    images, targets = zip(*[scene((96, 160), things, stuff), scene((80, 130), things, stuff)], strict=True)
    losses = network.losses(images, targets, generator())
    assert set(losses) == {"class", "mask", "dice"}
    assert all(torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()
    for prediction, image in zip(network.predict(images, score_threshold=0.1), images, strict=True):
        check(prediction, tuple(image.shape[1:]), stuff + 1)
        if things == 0:
            assert len(prediction.scores) == 0
    (sure,) = network.predict(images[:1], score_threshold=0.999)
    assert len(sure.scores) == 0
    (resized,) = network.predict(images[:1], score_threshold=0.1, output_sizes=[(50, 70)])
    check(resized, (50, 70), stuff + 1)
    assert network.training


def test_gradients_flow_to_every_parameter():
    network = make().train()
    image, target = scene()
    sum(network.losses([image], [target], generator()).values()).backward()
    silent = {name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    # What positions steer in the pixel decoder, the offsets of its attention, starts with weights of zero.
    assert silent == {"net.pixel_level_module.decoder.level_embed"}


def test_images_without_objects_or_labels_give_finite_losses():
    network = make()
    image, target = scene()
    empty = without_objects(target)
    nothing = Target(torch.full_like(empty.semantic, IGNORE), empty.masks, empty.boxes, empty.classes, empty.ignore)
    losses = network.losses([image, image], [nothing, nothing], generator())
    assert losses["mask"] == losses["dice"] == 0
    assert losses["class"] > 0
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


def test_a_seed_fixes_the_losses_and_leaves_torch_alone():
    image, target = scene()
    network = make().train()
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, again, other = (network.losses([image], [target], torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert first["mask"] != other["mask"]


def test_parts_of_a_batch_make_up_its_losses():
    network = make().eval()  # norms see each image alone
    (one, first), (other, second) = scene(), scene(things=1)
    whole = network.loss_parts([one, other], [first, second], generator())
    later = generator()
    one_each(later, 1)
    parts = [network.loss_parts([one], [first], generator()), network.loss_parts([other], [second], later)]
    for name, part in whole.items():
        count = sum(p[name].over for p in parts)
        mean = sum(p[name].mean * p[name].over for p in parts) / count
        torch.testing.assert_close(part.mean, mean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(torch.as_tensor(part.over), torch.as_tensor(count))


def test_learns_one_image():
    network = make().train()
    image, target = scene()
    optimiser = torch.optim.AdamW(network.parameters(), 2e-3)
    totals = []
    for _ in range(30):
        optimiser.zero_grad()
        total = sum(network.losses([image], [target], generator()).values())
        total.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        totals.append(float(total.detach()))
    assert sum(totals[-5:]) < 0.6 * sum(totals[:5])


@pytest.mark.parametrize("trunk", [TRUNK, VitSettings("dino_vits16", sizes=VitSizes(16, 16, 1, 2, 4))])
def test_files_predict_the_same(tmp_path, trunk):
    network = make(replace(SMALL, trunk=trunk))
    save_network(tmp_path, network, {"things": [1, 2], "stuff": [0, 3]})
    content = json.loads((tmp_path / "model.json").read_text())
    assert content["architecture"] == "mask2former"
    again, card = load_network(tmp_path)
    assert card["things"] == [1, 2]
    assert again.settings == network.settings
    image, _ = scene()
    (first,), (second,) = (net.predict([image], score_threshold=0.1) for net in (network, again))
    assert torch.equal(first.semantic, second.semantic)
    assert torch.equal(first.masks, second.masks)
    assert torch.equal(first.panoptic, second.panoptic)


def test_settings():
    assert settings_from(Mask2FormerSettings, json.loads(json.dumps(plain(mask2former())))) == mask2former()
    with pytest.raises(ConfigError, match="multiple of 32, not 40"):
        Mask2FormerSettings(channels=40)
    with pytest.raises(ConfigError, match="3 attention heads do not divide 64"):
        Mask2FormerSettings(channels=64, heads=3)
    with pytest.raises(ConfigError, match="queries of a Mask2Former must be at least 1, not 0"):
        Mask2FormerSettings(queries=0)


def test_the_preset_has_the_published_size():
    with torch.device("meta"):
        network = build_network(mask2former(), 8, 11)
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(44.0e6, abs=0.05e6)


def test_without_transformers_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr("cupola.models.architectures.find_spec", lambda name: None)
    assert importlib.util.find_spec("transformers") is not None
    with pytest.raises(ConfigError, match=r"needs transformers: pip install 'cupola\[mask2former\]'"):
        make()


def test_several_views_are_refused():
    image, _ = scene()
    with pytest.raises(ConfigError, match="which a Mask2Former does not"):
        predict_views(make(), [image])
