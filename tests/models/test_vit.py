"""A vision transformer as trunk: its pyramid's strides, freezing, weights, files, and that it learns."""

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from test_network import check, generator, make, scene

from cupola.config import plain
from cupola.errors import CheckpointError, ConfigError
from cupola.models import NetworkSettings, VitSettings, build_network, load_network, save_network, tiny, vit_b
from cupola.models.checkpoint import settings_from
from cupola.models.vit import SimpleFeaturePyramid, VitTrunk
from cupola.semantics.backbones.settings import VitSizes

SIZES = VitSizes(patch=16, width=32, depth=2, heads=4, grid=6)


def trunk(patch: int = 16, **changes) -> VitSettings:
    return VitSettings(f"dino_vits{8 if patch == 8 else 16}", sizes=replace(SIZES, patch=patch), **changes)


def vit_network(**changes) -> NetworkSettings:
    return replace(tiny(), trunk=trunk(**changes))


@settings(max_examples=12, deadline=None)
@given(patch=st.sampled_from([8, 14, 16, 32]), rows=st.integers(1, 3), columns=st.integers(1, 3), p6=st.booleans())
def test_levels_lie_at_strides_4_to_64_whatever_the_cells(patch, rows, columns, p6):
    pyramid = SimpleFeaturePyramid(trunk(patch), 16, with_p6=p6, separable=bool(rows % 2)).eval()
    levels = pyramid(torch.rand(1, 3, 32 * rows, 32 * columns))
    strides = (4, 8, 16, 32)
    assert [level.shape for level in levels[:4]] == [(1, 16, 32 * rows // s, 32 * columns // s) for s in strides]
    assert len(levels) == 4 + p6
    if p6:
        assert levels[4].shape[-2:] == (-(-rows // 2), -(-columns // 2))


@pytest.mark.parametrize("name", ["test_vit", "vit_tiny_patch16_dinov3_qkvb"])
def test_a_name_of_timm_is_a_trunk(name):
    vit = VitTrunk(VitSettings(name)).eval()
    (features,) = vit(torch.rand(2, 3, 64, 96))
    assert features.shape == (2, vit.channels, 64 // vit.cell, 96 // vit.cell)


def test_cells_that_make_no_pyramid_are_refused():
    with pytest.raises(ConfigError, match=r"cells of 8, 14, 16, 32 px, but those of dino_vits16 are 12 px"):
        VitTrunk(VitSettings("dino_vits16", sizes=replace(SIZES, patch=12)))
    with pytest.raises(ConfigError, match="dino_resnet50 is no transformer"):
        VitTrunk(VitSettings("dino_resnet50"))
    with pytest.raises(ConfigError, match="knows a backbone"):
        VitTrunk(VitSettings("vit_of_nobody"))


def test_sides_that_no_cell_divides_are_padded():
    network = make(vit_network())
    image, _ = scene((75, 131))
    (prediction,) = network.predict([image], score_threshold=0.25)
    check(prediction, (75, 131), 3)


def test_what_an_image_is_padded_with_by_hand_changes_nothing():
    """Up to the next multiple of 32 the network pads with the mean colour; an image that comes so padded is equal."""
    network = make(vit_network()).eval()
    image, _ = scene((75, 131))
    padded = network.mean.expand(3, 96, 160).clone()
    padded[:, :75, :131] = image
    (one,), (other,) = (network.predict([i], score_threshold=0.25) for i in (image, padded))
    assert torch.equal(one.semantic, other.semantic[:, :75, :131])


def test_gradients_flow_to_every_parameter():
    network = make(vit_network()).train()
    image, target = scene((128, 160))
    sum(network.losses([image], [target], generator()).values()).backward()
    silent = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


def test_a_frozen_trunk_is_not_touched():
    network = make(vit_network(frozen=True)).train()
    vit = network.backbone.bottom_up
    assert network.training
    assert not any(module.training for module in vit.modules())
    image, target = scene()
    sum(network.losses([image], [target], generator()).values()).backward()
    assert all(p.grad is None for p in vit.parameters())
    others = [name for name, p in network.named_parameters() if "bottom_up" not in name and p.grad is None]
    assert others == []
    (level,) = vit(torch.rand(1, 3, 32, 32))
    assert not level.requires_grad
    network.predict([image])
    assert not any(module.training for module in vit.modules())


@pytest.mark.parametrize("frozen", [False, True])
def test_weights_come_from_a_file(tmp_path, frozen):
    torch.manual_seed(1)
    given_weights = VitTrunk(trunk()).vit.network.state_dict()
    save_file(given_weights, tmp_path / "dino.safetensors")
    vit = VitTrunk(trunk(frozen=frozen))
    vit.load(tmp_path / "dino.safetensors")
    assert all(torch.equal(value, given_weights[name]) for name, value in vit.vit.network.state_dict().items())
    assert {p.requires_grad for p in vit.parameters()} == {not frozen}
    with pytest.raises(CheckpointError, match="another architecture than dino_vits8"):
        VitTrunk(trunk(8)).load(tmp_path / "dino.safetensors")


@pytest.mark.parametrize("preset", [vit_b(), vit_network(frozen=True), replace(tiny(), trunk=VitSettings("test_vit"))])
def test_settings_survive_json(preset):
    assert settings_from(NetworkSettings, json.loads(json.dumps(plain(preset)))) == preset


def test_files_hold_the_trunk(tmp_path):
    network = make(vit_network(frozen=True))
    save_network(tmp_path, network, {})
    again, _ = load_network(tmp_path)
    assert again.settings == network.settings
    assert not any(p.requires_grad for p in again.backbone.bottom_up.parameters())
    image, _ = scene()
    (first,), (second,) = (net.predict([image], score_threshold=0.25) for net in (network, again))
    assert torch.equal(first.semantic, second.semantic)
    assert torch.equal(first.boxes, second.boxes)


def test_learns():
    network = make(vit_network()).train()
    image, target = scene()
    optimiser = torch.optim.AdamW(network.parameters(), 1e-3)
    totals = []
    for _ in range(30):
        optimiser.zero_grad()
        total = sum(network.losses([image], [target], generator()).values())
        total.backward()
        optimiser.step()
        totals.append(float(total.detach()))
    assert sum(totals[-5:]) < 0.6 * sum(totals[:5])


def test_the_preset_is_a_vit_b_with_the_heads_of_the_paper():
    with torch.device("meta"):
        network = build_network(vit_b(), 5, 22)
    assert sum(p.numel() for p in network.backbone.bottom_up.parameters()) == pytest.approx(85.8e6, abs=0.05e6)
    assert len(network.roi_heads.box_head) == 3
