"""Published networks: small files in each layout, with the published names, become networks with the same weights."""

import pickle
from pathlib import Path

import pytest
import torch
from published_files import (
    behind,
    filled,
    foreign_class,
    network_shapes,
    trunk_shapes,
    write_detectron2,
    write_lightning,
)

from cupola.errors import CheckpointError, ConfigError
from cupola.models import PanopticNetwork, paper, read_published
from cupola.models.assignments import CITYSCAPES19
from cupola.models.published_shapes import network_shape


def holds(network, state):
    """Every weight of the file is in the network, and the network has nothing besides but counters."""
    mine = network.state_dict()
    assert all(torch.equal(mine[name], value) for name, value in state.items())
    assert all(name.endswith("num_batches_tracked") for name in mine.keys() - state.keys())


def test_the_real_sizes_are_the_paper_s():
    """73.4 million parameters for 22 stuff and 5 thing classes (spec-network 1.13)."""
    with torch.device("meta"):
        network = PanopticNetwork(paper(), 5, 22)
    shape = network_shape(network.state_dict(), Path("cups.ckpt"))
    assert (shape.settings, shape.num_things, shape.num_stuff) == (paper(), 5, 22)
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(73.4e6, rel=1e-3)


def test_cups(tmp_path):
    path = tmp_path / "cups.ckpt"
    student = write_lightning(path, 5, 22)
    published = read_published(path)
    holds(published.network, student)
    assert not published.network.training
    card = published.card
    assert (card["stuff"], card["things"]) == (list(range(22)), [22, 23, 24, 25, 26])
    assert card["source"]["training"] == {"epoch": 3, "global_step": 4000}
    assert (card["source"]["container"], card["source"]["which"]) == ("lightning", "student")
    assert len(card["source"]["sha256"]) == 64
    assert all(name.startswith("teacher_model.model.") for name in published.ignored)
    assert len(published.ignored) == len(student)


def test_its_teacher(tmp_path):
    path = tmp_path / "cups.ckpt"
    write_lightning(path, 5, 22)
    published = read_published(path, which="teacher")
    holds(published.network, filled(network_shapes(5, 22, counter=False), seed=2))
    assert published.card["source"]["which"] == "teacher"


def test_stage_2_has_no_teacher(tmp_path):
    path = tmp_path / "ups_checkpoint_step=004000.ckpt"
    student = write_lightning(path, 2, 3, teacher=False)
    holds(read_published(path).network, student)
    with pytest.raises(CheckpointError, match="holds no teacher, only a student"):
        read_published(path, which="teacher")


def test_u2seg(tmp_path):
    path = tmp_path / "cocotrain_800.pth"
    state = write_detectron2(path, 800, 27)
    published = read_published(path)
    holds(published.network, state)
    assert (published.network.num_things, published.network.num_stuff) == (800, 27)
    assert published.card["things"][0] == 27
    assert published.card["source"]["training"] == {"iteration": 89999}
    assert published.ignored == ("pixel_mean", "proposal_generator.anchor_generator.cell_anchors.0")


def test_cutler_s_detector_has_things_alone(tmp_path):
    path = tmp_path / "cutler_cascade_final.pth"
    state = write_detectron2(path, 1, 0, semantic=False)
    published = read_published(path)
    mine = published.network.state_dict()
    assert all(torch.equal(mine[name], value) for name, value in state.items())
    assert (published.card["things"], published.card["stuff"]) == ([0], [])
    assert "no semantic head" in published.card["note"]
    (found,) = published.network.predict([torch.rand(3, 64, 96)], score_threshold=0.0, merge_threshold=0.0)
    assert all(segment.is_thing for segment in found.segments)
    (found,) = published.network.predict([torch.rand(3, 64, 96)], score_threshold=1.0)
    assert not found.panoptic.any()


def test_bare_weights_and_half_precision(tmp_path):
    state = filled(network_shapes(2, 3))
    path = tmp_path / "weights.pth"
    torch.save({name: value.half() if value.is_floating_point() else value for name, value in state.items()}, path)
    published = read_published(path)
    assert published.network.sem_seg_head.predictor.bias.dtype == torch.float32
    holds(published.network, {name: v.half().float() if v.is_floating_point() else v for name, v in state.items()})


def test_a_loaded_network_is_laid_out_as_a_new_one_and_trains(tmp_path):
    path = tmp_path / "x.ckpt"
    write_lightning(path, 2, 3)
    network = read_published(path).network
    assert network.backbone.bottom_up.stem.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert torch.isfinite(network.batch([torch.rand(3, 40, 40)])).all()


def test_torch_s_own_random_numbers_are_left_alone(tmp_path):
    path = tmp_path / "x.ckpt"
    write_lightning(path, 2, 3)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    read_published(path)
    assert torch.equal(torch.rand(3), expected)


def test_the_published_assignment(tmp_path):
    """spec-network 4.3: 27 train ids, four clusters that never occur."""
    assert (CITYSCAPES19.stuff, CITYSCAPES19.things) == (22, 5)
    path = tmp_path / "cups.ckpt"
    write_lightning(path, 5, 22)
    card = read_published(path).card
    names = card["class_names"]
    assert [names[str(c)] for c in range(22, 27)] == ["person", "car", "bicycle", "bus", "truck"]
    assert (names["0"], names["1"], names["7"], names["12"]) == ("traffic sign", "fence", "road", "terrain")
    assert set(names) == {str(c) for c in range(27)} - {"18", "19", "20", "21"}
    assert card["assignment"]["name"] == "cityscapes19"
    assert "never for training" in card["assignment"]["note"]


@pytest.mark.parametrize(("name", "assignment", "named"), [
    ("cups.ckpt", "auto", True), ("cups.ckpt", "none", False),
    ("other.ckpt", "auto", False), ("other.ckpt", "cityscapes19", True),
])  # fmt: skip
def test_when_classes_get_names(tmp_path, name, assignment, named):
    write_lightning(tmp_path / name, 5, 22)
    card = read_published(tmp_path / name, assignment=assignment).card
    assert ("class_names" in card) == ("assignment" in card) == named


def test_an_assignment_of_other_class_numbers(tmp_path):
    path = tmp_path / "cups.ckpt"
    write_lightning(path, 2, 3)
    assert "class_names" not in read_published(path).card
    with pytest.raises(ConfigError, match=r"of 22 stuff and 5 thing classes, but .*cups\.ckpt has 3 and 2"):
        read_published(path, assignment="cityscapes19")
    with pytest.raises(ConfigError, match="no assignment `coco`"):
        read_published(path, assignment="coco")


def without(name):
    return lambda state: state.pop(name)


def replaced(name, *shape):
    return lambda state: state.update({name: torch.zeros(shape)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("sem_seg_head.p4.2.weight"), r"lacks sem_seg_head\.p4\.2\.weight"),
        (without("roi_heads.mask_head.predictor.bias"), r"lacks roi_heads\.mask_head\.predictor\.bias"),
        (without("backbone.fpn_output2.weight"), r"lacks backbone\.fpn_output2\.weight"),
        (replaced("sem_seg_head.p9.0.weight", 1), r"holds sem_seg_head\.p9\.0\.weight"),
        (replaced("roi_heads.box_predictor.1.cls_score.bias", 9), r"cls_score\.bias has the shape \(9,\) where \(3,\)"),
        (replaced("sem_seg_head.predictor.weight", 9, 32, 1, 1), r"predictor\.weight has the shape \(9, 32, 1, 1\)"),
        (replaced("sem_seg_head.predictor.bias"), r"predictor\.bias has the shape \(\), where 1 axes are expected"),
        (replaced("roi_heads.box_head.fc1.weight", 2, 2), "Mask R-CNN with one box head"),
        (lambda state: state["backbone.fpn_lateral2.weight"].fill_(float("nan")), "fpn_lateral2.weight holds values"),
    ],
)
def test_another_network_is_refused_with_the_name_of_a_key(tmp_path, change, message):
    state = filled(network_shapes(2, 3))
    change(state)
    path = tmp_path / "x.pth"
    torch.save({"model": state}, path)
    with pytest.raises(CheckpointError, match=message) as raised:
        read_published(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": filled(trunk_shapes())}, "cupola train --backbone"),
        (
            {"state_dict": {"encoder.weight": torch.zeros(1)}},
            r"there is no backbone\.bottom_up\.stem\.conv1\.weight, but enc",
        ),
        ({"epoch": 3, "args": None}, "holds no weights of a network, but epoch, args"),
        ([1, 2], "holds no weights of a network, but a list"),
        ({}, "but nothing"),
    ],
)
def test_what_is_no_network(tmp_path, content, message):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=message):
        read_published(tmp_path / "x.pth")


def test_a_file_that_asks_for_code_is_refused_by_name(tmp_path):
    path = tmp_path / "cups.ckpt"
    with foreign_class("wandb.sdk", "Run", base=object) as run:
        torch.save({"state_dict": behind("model.", filled(network_shapes(2, 3))), "logger": run()}, path)
    with pytest.raises(CheckpointError, match=r"wandb\.sdk\.Run"):
        read_published(path)
    path.write_bytes(pickle.dumps({"model": print}))
    with pytest.raises(CheckpointError, match=r"builtins\.print"):
        read_published(path)


def test_a_damaged_file_is_one_sentence(tmp_path):
    path = tmp_path / "cups.ckpt"
    write_lightning(path, 2, 3)
    content = path.read_bytes()
    for cut in (0, 10, len(content) // 2, len(content) - 30):
        path.write_bytes(content[:cut])
        with pytest.raises(CheckpointError) as raised:
            read_published(path)
        assert "\n" not in str(raised.value)
    with pytest.raises(CheckpointError, match="does not exist"):
        read_published(tmp_path / "nowhere.ckpt")
