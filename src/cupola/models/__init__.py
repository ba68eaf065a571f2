"""Panoptic networks: a Cascade Mask R-CNN with a semantic head (spec-network 1) in several sizes, and Mask2Former.

`build_network(small(), num_things, num_stuff)` gives losses in training and panoptic maps in prediction.
"""

from cupola.models.architectures import PRESETS, ModelSettings, PresetName, build_network
from cupola.models.backbone_files import BackboneReport, load_backbone_weights
from cupola.models.boxes import boxes_of_masks
from cupola.models.checkpoint import load_network, save_network
from cupola.models.class_layers import class_layers
from cupola.models.hub import PretrainedNetwork
from cupola.models.interface import PanopticModel
from cupola.models.mask2former.settings import Mask2FormerSettings, QueryNegativeSettings, mask2former
from cupola.models.panoptic import PanopticNetwork
from cupola.models.published import Published, read_published
from cupola.models.records import IGNORE, SOME_THING, LossPart, NetworkPrediction, Target
from cupola.models.settings import NetworkSettings, VitSettings, paper, small, tiny, vit_b
from cupola.models.views import ViewSettings, predict_views

__all__ = [
    "IGNORE",
    "PRESETS",
    "SOME_THING",
    "BackboneReport",
    "LossPart",
    "Mask2FormerSettings",
    "ModelSettings",
    "NetworkPrediction",
    "NetworkSettings",
    "PanopticModel",
    "PanopticNetwork",
    "PresetName",
    "PretrainedNetwork",
    "Published",
    "QueryNegativeSettings",
    "Target",
    "ViewSettings",
    "VitSettings",
    "boxes_of_masks",
    "build_network",
    "class_layers",
    "load_backbone_weights",
    "load_network",
    "mask2former",
    "paper",
    "predict_views",
    "read_published",
    "save_network",
    "small",
    "tiny",
    "vit_b",
]
