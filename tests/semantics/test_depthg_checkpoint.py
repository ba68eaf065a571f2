"""DepthG files: the published layout and our own give the same network; nothing in them is run."""

import json

import pytest
import torch
from depthg_files import published_state, random_parts, save_published
from safetensors.torch import load_file, save_file

from cupola.errors import CheckpointError, ConfigError
from cupola.semantics.backbones import random_backbone
from cupola.semantics.depthg.checkpoint import read_depthg, save_depthg
from cupola.semantics.depthg.head import ClusterProbe, DepthgHead


def code_of(backbone, head, probe):
    with torch.inference_mode():
        image = torch.randn(1, 3, 32, 64, generator=torch.Generator().manual_seed(0))
        return probe.log_probabilities(head(backbone(image)))


@pytest.mark.parametrize("sizes", [{}, {"width": 128, "depth": 2, "heads": 2, "grid": 3}])
def test_both_layouts_give_the_network_back(tmp_path, sizes):
    parts = random_parts(**sizes)
    published = read_depthg(save_published(tmp_path / "depthg.ckpt", *parts))
    save_depthg(tmp_path / "ours.safetensors", *parts, {"steps": 7000})
    ours = read_depthg(tmp_path / "ours.safetensors")
    for read in (published, ours):
        assert read.backbone.sizes == parts[0].sizes
        assert read.probe.classes == 5
        assert torch.equal(code_of(read.backbone, read.head, read.probe), code_of(*parts))
        for part in (read.backbone, read.head, read.probe):
            assert not any(parameter.requires_grad for parameter in part.parameters())
    assert published.card == {"n_classes": 27, "cfg": {"model_type": "vit_base"}}
    assert ours.card == {"steps": 7000}


def test_heads_of_any_number_are_kept_in_our_own_file(tmp_path):
    parts = random_parts(width=48, heads=3)
    save_depthg(tmp_path / "ours.safetensors", *parts, {})
    read = read_depthg(tmp_path / "ours.safetensors")
    assert torch.equal(code_of(read.backbone, read.head, read.probe), code_of(*parts))


@pytest.mark.parametrize("name", ["dino_resnet50", "test_vit"])
def test_other_backbones_are_kept_too(tmp_path, name):
    backbone = random_backbone(name, 0)
    head, probe = DepthgHead(backbone.channels, 6), ClusterProbe(5, 6)
    save_depthg(tmp_path / "ours.safetensors", backbone, head, probe, {})
    read = read_depthg(tmp_path / "ours.safetensors")
    assert torch.equal(code_of(read.backbone, read.head, read.probe), code_of(backbone, head, probe))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"net.cluster1.0.weight": None}, "lacks cluster1.0.weight"),
        ({"net.cluster2.2.bias": None}, "another architecture than a DepthG head: it lacks cluster2.2.bias"),
        ({"cluster_probe.clusters": torch.zeros(5, 7)}, r"clusters has the shape \(5, 7\) where \(5, 6\)"),
        ({"cluster_probe.clusters": torch.zeros(1, 6)}, "1 pseudo classes"),
        ({"net.model.pos_embed": torch.zeros(1, 16, 64)}, "15 positions"),
        ({"net.model.blocks.0.norm1.weight": None}, "lacks blocks.0.norm1.weight"),
        ({"net.model.blocks.7000000.norm1.weight": torch.zeros(64)}, "another architecture"),
        ({"net.model.patch_embed.proj.weight": torch.zeros(3)}, "proj.weight has the shape"),
    ],
)
def test_files_of_another_network_are_refused(tmp_path, changed, message):
    parts = random_parts()
    state = published_state(*parts) | changed
    path = save_published(
        tmp_path / "depthg.ckpt", *parts, state_dict={k: v for k, v in state.items() if v is not None}
    )
    with pytest.raises(CheckpointError, match=message):
        read_depthg(path)


def test_damaged_and_foreign_files_are_refused(tmp_path):
    parts = random_parts()
    path = save_published(tmp_path / "depthg.ckpt", *parts)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(CheckpointError, match="cut off, damaged"):
        read_depthg(path)
    torch.save({"weights": 1}, path)
    with pytest.raises(CheckpointError, match="no state_dict, but weights"):
        read_depthg(path)
    with pytest.raises(CheckpointError, match="does not exist"):
        read_depthg(tmp_path / "none.safetensors")
    ours = tmp_path / "ours.safetensors"
    with pytest.raises(ConfigError, match=r"must end in \.safetensors"):
        save_depthg(path, *parts, {})
    save_depthg(ours, *parts, {})
    state = load_file(ours)
    ours.write_bytes(ours.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match="cut off or damaged"):
        read_depthg(ours)
    save_file(state, ours)
    with pytest.raises(CheckpointError, match="no DepthG network that cupola has written"):
        read_depthg(ours)
    for backbone in ({"kind": "dino_vit", "heads": 5}, {"kind": "dino_vit", "heads": "9"}, {"kind": "x"}, {}):
        about = {"format": "cupola depthg 1", "backbone": json.dumps(backbone), "card": "{}"}
        save_file(state, ours, metadata=about)
        with pytest.raises(CheckpointError, match=r"ours\.safetensors"):
            read_depthg(ours)


class Malice:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_a_file_that_wants_something_run_is_refused_unrun(tmp_path):
    trace = tmp_path / "trace"
    parts = random_parts()
    for changed in ({"hyper_parameters": Malice(str(trace))}, {"callbacks": {"x": Malice(str(trace))}}):
        path = save_published(tmp_path / "depthg.ckpt", *parts, **changed)
        with pytest.raises(CheckpointError, match="open, which is more than arrays"):
            read_depthg(path)
    assert not trace.exists()
