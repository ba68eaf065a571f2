"""Backbones: grids, positions, keys, and every layout and fault of a file of weights."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from cupola.errors import CheckpointError, ConfigError
from cupola.semantics.backbones import BackboneSettings, load_backbone, normalised, random_backbone
from cupola.semantics.backbones.weights import read_weights

CPU = torch.device("cpu")
SMALL = {"width": 24, "depth": 2, "heads": 3, "grid": 4}
TIMM = "test_vit"
"""A transformer of a few thousand weights that timm keeps for tests."""


@pytest.fixture(scope="module")
def vit():
    return random_backbone("dino_vits8", 0, **SMALL)


def images(*size, seed=0):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 2), st.integers(1, 6), st.integers(1, 6))
def test_features_and_keys_lie_on_the_grid_of_cells(count, rows, columns):
    vit = random_backbone("dino_vits16", 0, **SMALL)
    given_images = images(count, 3, 16 * rows, 16 * columns)
    assert vit(given_images).shape == (count, 24, rows, columns)
    assert vit.keys(given_images).shape == (count, 24, rows, columns)
    assert not vit.training
    assert not any(parameter.requires_grad for parameter in vit.parameters())


def test_images_of_a_batch_do_not_see_each_other(vit):
    both = images(2, 3, 32, 48)
    torch.testing.assert_close(vit(both)[1:], vit(both[1:]), rtol=1e-4, atol=1e-5)


def test_positions_are_the_stored_ones_at_the_stored_size_only(vit):
    assert torch.equal(vit.positions(4, 4), vit.network.pos_embed[0])
    assert vit.positions(2, 8).shape == vit.positions(4, 4).shape
    assert not torch.equal(vit.positions(2, 8), vit.network.pos_embed[0])


def test_the_same_seed_gives_the_same_backbone_and_leaves_torch_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    one, two = random_backbone("dino_vits8", 5, **SMALL), random_backbone("dino_vits8", 5, **SMALL)
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    other = random_backbone("dino_vits8", 6, **SMALL)
    assert not torch.equal(one.network.pos_embed, other.network.pos_embed)


@pytest.mark.parametrize(("level", "patch", "channels"), [(2, 8, 512), (3, 16, 1024), (4, 32, 2048)])
def test_the_level_of_a_resnet_decides_its_cells(level, patch, channels):
    resnet = random_backbone("dino_resnet50", 0, level=level)
    assert (resnet.patch, resnet.channels) == (patch, channels)
    assert resnet(images(1, 3, 32, 64)).shape == (1, channels, 32 // patch, 64 // patch)


@pytest.mark.parametrize("name", [TIMM, "test_convnext", "resnet18"])
def test_a_name_of_timm_gives_its_features(name):
    backbone = random_backbone(name, 0)
    size = (2 * backbone.patch, 3 * backbone.patch)
    features = backbone(images(1, 3, *size))
    assert features.shape == (1, backbone.channels, 2, 3)
    with torch.inference_mode():
        known = backbone.network.forward_features(images(1, 3, *size) * backbone.scale + backbone.shift)
    if known.ndim == 3:  # tokens, the class token first
        known = known[:, backbone.prefix :].transpose(1, 2).reshape(features.shape)
    torch.testing.assert_close(features, known)


def test_images_come_as_the_network_was_trained_with():
    """`vit_base_patch16_224` of timm wants images in [-1, 1]."""
    backbone = random_backbone("vit_tiny_patch16_224", 0)
    grey = torch.from_numpy(normalised(np.full((4, 5, 3), 51, np.uint8)))  # 0.2
    torch.testing.assert_close(grey * backbone.scale + backbone.shift, torch.full((3, 4, 5), -0.6))


def test_normalised_images():
    image = np.zeros((2, 3, 3), np.uint8)
    image[..., 1] = 255
    found = normalised(image)
    assert found.shape == (3, 2, 3)
    np.testing.assert_allclose(found[:, 0, 0], [-0.485 / 0.229, 0.544 / 0.224, -0.406 / 0.225], rtol=1e-6)


@pytest.mark.parametrize("name", ["dino_vits8", "dino_resnet50", TIMM])
@pytest.mark.parametrize("side", [0, 8, 36])
def test_cells_that_do_not_fit_are_refused(name, side):
    backbone = random_backbone(name, 0, **(SMALL if "vits" in name else {}))
    with pytest.raises(ConfigError, match=f"whole cells of {backbone.patch} px"):
        backbone(torch.zeros(1, 3, side + (side == 8) * 3, 32))


def test_unknown_names_are_refused():
    with pytest.raises(ConfigError, match="did you mean dino_vits16"):
        BackboneSettings("dino_vit_s16")
    with pytest.raises(ConfigError, match="knows a backbone `vit_tiny_patch16_225`; did you mean vit_tiny_patch16_224"):
        random_backbone("vit_tiny_patch16_225", 0)
    with pytest.raises(ConfigError, match="2, 3 or 4"):
        BackboneSettings("dino_resnet50", level=5)


LAYOUTS = {
    "published": lambda state: state,
    "training run": lambda state: {
        "student": {},
        "teacher": {f"module.backbone.{name}": value for name, value in state.items()}
        | {"head.mlp.0.weight": torch.zeros(2, 2)},
        "epoch": 3,
    },
    "state_dict": lambda state: {"state_dict": state | {"fc.weight": torch.zeros(4, 2)}},
}


@pytest.fixture(scope="module")
def timm_file(tmp_path_factory):
    """(path, backbone) of a small network, in its own names."""
    backbone = random_backbone(TIMM, 1)
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    save_file({name: value.contiguous() for name, value in backbone.network.state_dict().items()}, path)
    return path, backbone


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("is_zip", [True, False])
def test_every_layout_is_the_same_network(tmp_path, timm_file, layout, is_zip):
    path, backbone = tmp_path / "w.pth", timm_file[1]
    torch.save(LAYOUTS[layout](backbone.network.state_dict()), path, _use_new_zipfile_serialization=is_zip)
    loaded = load_backbone(BackboneSettings(TIMM, path), CPU)
    side = 4 * backbone.patch
    assert torch.equal(loaded(images(1, 3, side, side)), backbone(images(1, 3, side, side)))
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_published_dino_files(tmp_path):
    """The names and sizes of `dino_deitsmall16_pretrain.pth` and of `dino_resnet50_pretrain.pth`."""
    for name, other in (("dino_vits16", "dino_vits8"), ("dino_resnet50", "dino_vits16")):
        backbone = random_backbone(name, 0)
        path = tmp_path / f"{name}.pth"
        torch.save(backbone.network.state_dict(), path)
        loaded = load_backbone(BackboneSettings(name, path), CPU)
        given_images = images(1, 3, 32, 32)
        assert torch.equal(loaded(given_images), backbone(given_images))
        with pytest.raises(CheckpointError, match=f"{name}.pth is of another architecture than {other}"):
            load_backbone(BackboneSettings(other, path), CPU)


def test_a_head_that_belongs_to_the_features_is_kept(tmp_path):
    """ConvNeXt calls its last norm `head.norm`."""
    backbone = random_backbone("test_convnext", 1)
    assert "head.norm.weight" in backbone.network.state_dict()
    torch.save(backbone.network.state_dict() | {"head.fc.weight": torch.zeros(2, 2)}, tmp_path / "w.pth")
    loaded = load_backbone(BackboneSettings("test_convnext", tmp_path / "w.pth"), CPU)
    given_images = images(1, 3, 64, 64)
    assert torch.equal(loaded(given_images), backbone(given_images))


def test_faults_of_a_file(tmp_path, timm_file):
    path, backbone = timm_file
    with pytest.raises(ConfigError, match="never downloaded"):
        load_backbone(BackboneSettings(TIMM), CPU)
    with pytest.raises(CheckpointError, match="does not exist"):
        load_backbone(BackboneSettings(TIMM, tmp_path / "none.pth"), CPU)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="cut off, damaged"):
        load_backbone(BackboneSettings(TIMM, cut), CPU)
    state = dict(backbone.network.state_dict())
    for wrong, message in (
        ({"norm.weight": torch.ones(3)}, "norm.weight has the shape"),
        ({"extra": torch.ones(3)}, "holds extra"),
        ({"norm.weight": torch.full_like(state["norm.weight"], torch.nan)}, "no finite numbers"),
    ):
        torch.save(state | wrong, tmp_path / "wrong.pth")
        with pytest.raises(CheckpointError, match=message):
            load_backbone(BackboneSettings(TIMM, tmp_path / "wrong.pth"), CPU)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="holds no weights of a backbone, but a list"):
        read_weights(tmp_path / "list.pth")


class Malice:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_a_file_that_asks_for_more_than_tensors_is_refused_unrun(tmp_path):
    trace = tmp_path / "trace"
    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"state_dict": Malice(str(trace))}, protocol=2))
    with pytest.raises(CheckpointError, match="open, which is more than arrays"):
        load_backbone(BackboneSettings(TIMM, tmp_path / "evil.pth"), CPU)
    assert not trace.exists()
