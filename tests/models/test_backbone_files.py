"""A pretrained ResNet as the trunk of a network, from every layout in which it is published."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from published_files import (
    BLOCKS,
    FPN,
    STEM,
    WIDTHS,
    behind,
    filled,
    network_shapes,
    torchvision_name,
    torchvision_state,
    trunk_shapes,
    write_lightning,
    write_pickle,
)
from torchvision.models import resnet50

from cupola.errors import CheckpointError
from cupola.models import PanopticNetwork, VitSettings, load_backbone_weights, paper, tiny
from cupola.models.backbone_files import to_published, to_torchvision
from cupola.models.resnet import ResNet
from cupola.semantics.backbones.settings import VitSizes


def fresh():
    settings = paper()
    small = replace(
        settings,
        trunk=replace(settings.trunk, stem=STEM, widths=WIDTHS, blocks=BLOCKS),
        fpn_channels=FPN,
        rpn=replace(settings.rpn, channels=8),
        box=replace(settings.box, channels=8),
        mask=replace(settings.mask, channels=8),
        semantic=replace(settings.semantic, channels=32),
    )
    torch.manual_seed(0)
    return PanopticNetwork(small, 2, 3)


def require_loaded(path, state, naming, ignored=()):
    network = fresh()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    report = load_backbone_weights(network, path)
    after = network.state_dict()
    prefix = "backbone.bottom_up."
    for name, value in state.items():
        assert torch.equal(after[prefix + name], value), name
    assert all(torch.equal(after[name], before[name]) for name in before if not name.startswith(prefix))
    assert network.backbone.bottom_up.stem.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert (report.file, report.naming, report.ignored) == (path.name, naming, ignored)
    assert len(report.sha256) == 64
    assert report.card() == {"file": path.name, "sha256": report.sha256}


def test_cutler_s_pickle(tmp_path):
    state = write_pickle(tmp_path / "dino_RN50_pretrain_d2_format.pkl")
    require_loaded(tmp_path / "dino_RN50_pretrain_d2_format.pkl", state, "published")


def test_a_pickle_with_a_classifier(tmp_path):
    extra = {"stem.fc.weight": torch.zeros(4, 32), "stem.fc.bias": torch.zeros(4)}
    state = write_pickle(tmp_path / "x.pkl", **extra)
    require_loaded(tmp_path / "x.pkl", state, "published", ("stem.fc.bias", "stem.fc.weight"))


def test_dino_s_file(tmp_path):
    state, named = torchvision_state()
    torch.save(named, tmp_path / "dino_resnet50_pretrain.pth")
    require_loaded(tmp_path / "dino_resnet50_pretrain.pth", state, "torchvision")


def test_dino_s_full_checkpoint_gives_the_teacher(tmp_path):
    _, student = torchvision_state(seed=6)
    state, teacher = torchvision_state(seed=7)
    head = {"head.mlp.0.weight": torch.zeros(2, 2)}
    content = {
        "student": behind("module.backbone.", student) | behind("module.", head),
        "teacher": behind("backbone.", teacher) | head,
        "epoch": 800,
    }
    torch.save(content, tmp_path / "full.pth")
    require_loaded(tmp_path / "full.pth", state, "torchvision", ("head.mlp.0.weight",))


def test_torchvision_s_file_has_a_classifier(tmp_path):
    state, named = torchvision_state(classifier=True)
    torch.save(named, tmp_path / "resnet50.pth")
    require_loaded(tmp_path / "resnet50.pth", state, "torchvision", ("fc.bias", "fc.weight"))


def test_a_whole_published_network_gives_the_student_s_trunk(tmp_path):
    path = tmp_path / "cups.ckpt"
    student = write_lightning(path, 2, 3)
    network = fresh()
    load_backbone_weights(network, path)
    for name, value in network.backbone.bottom_up.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(value, student[f"backbone.bottom_up.{name}"])


def test_every_parameter_of_torchvision_s_resnet_has_its_place():
    """The real names of 320 tensors, there and back, against a table made by hand."""
    names = {name for name in resnet50(weights=None).state_dict() if not name.startswith("fc.")}
    with torch.device("meta"):
        trunk = ResNet(paper().trunk)
    assert {to_published(name) for name in names} == trunk.state_dict().keys()
    assert {to_torchvision(name) for name in trunk.state_dict()} == names
    for name in trunk.state_dict():
        assert to_torchvision(name) == torchvision_name(name)
    for name, tensor in resnet50(weights=None).state_dict().items():
        if name in names:
            assert trunk.state_dict()[to_published(name)].shape == tensor.shape


@given(st.text(st.sampled_from("abcfnv0123456789._lyer"), max_size=30))
def test_names_of_anything_else_come_through(name):
    strange = f"x{name}"
    assert to_published(strange) == to_torchvision(strange) == strange


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": {"stem.conv1.weight": torch.zeros(8, 3, 7, 7)}}, "lacks res2"),
        (
            filled(trunk_shapes()) | {"stem.conv1.weight": torch.zeros(9, 3, 7, 7)},
            r"stem\.conv1\.weight has the shape \(9, 3",
        ),
        (filled(trunk_shapes()) | {"res5.1.conv1.weight": torch.zeros(1)}, r"holds res5\.1\.conv1\.weight"),
        ({"blocks.0.attn.qkv.weight": torch.zeros(3)}, "holds no ResNet: there is neither"),
        ({"conv1_w": torch.zeros(1)}, "but conv1_w"),
        ([], "but a list"),
    ],
)
def test_another_backbone_is_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "x.pth")
    network = fresh()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(CheckpointError, match=message) as raised:
        load_backbone_weights(network, tmp_path / "x.pth")
    assert "\n" not in str(raised.value)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_network_of_another_size_or_kind(tmp_path):
    write_pickle(tmp_path / "x.pkl")
    with pytest.raises(CheckpointError, match=r"--network paper"):
        load_backbone_weights(PanopticNetwork(tiny(), 2, 3), tmp_path / "x.pkl")
    vit = VitSettings("dino_vits16", sizes=VitSizes(patch=16, width=16, depth=1, heads=2, grid=4))
    torch.save(torchvision_state()[1], tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="another architecture than dino_vits16"):
        load_backbone_weights(PanopticNetwork(replace(tiny(), trunk=vit), 2, 3), tmp_path / "x.pth")


def test_a_network_s_shapes_hold_the_trunk_s():
    assert {f"backbone.bottom_up.{name}" for name in trunk_shapes()} <= network_shapes(2, 3).keys()
