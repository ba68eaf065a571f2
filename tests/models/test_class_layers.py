"""Which parameters are about classes, in every preset."""

import pytest
import torch

from cupola.models import PRESETS, build_network, class_layers

LAYERS = {
    "paper": (
        "box_predictor.0.cls_score",
        "box_predictor.1.cls_score",
        "box_predictor.2.cls_score",
        "mask_head.predictor",
    ),
    "small": ("box_predictor.0.cls_score",),  # its masks are the same for all classes
}
LAYERS |= {"vit-b": LAYERS["paper"], "tiny": LAYERS["small"]}


@pytest.mark.parametrize("preset", sorted(LAYERS))
def test_class_layers(preset):
    """10 parameters of the paper's network (spec-network 7)."""
    with torch.device("meta"):
        network = build_network(PRESETS[preset](), 8, 11)
    expected = {"sem_seg_head.predictor"} | {f"roi_heads.{layer}" for layer in LAYERS[preset]}
    assert class_layers(network) == {f"{layer}.{part}" for layer in expected for part in ("weight", "bias")}


def test_class_layers_of_queries():
    pytest.importorskip("transformers", reason="the extra mask2former is not installed")
    network = build_network(PRESETS["mask2former"](), 8, 11)
    assert class_layers(network) == {"class_predictor.weight", "class_predictor.bias"}
