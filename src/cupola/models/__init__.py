"""The panoptic network: a Cascade Mask R-CNN with a semantic head (spec-network 1), in three sizes.

`PanopticNetwork(small(), num_things, num_stuff)` gives losses in training and panoptic maps in prediction.
"""

from cupola.models.backbone_files import BackboneReport, load_backbone_weights
from cupola.models.boxes import boxes_of_masks
from cupola.models.checkpoint import load_network, save_network
from cupola.models.hub import PretrainedNetwork
from cupola.models.panoptic import PanopticNetwork
from cupola.models.published import Published, read_published
from cupola.models.records import IGNORE, SOME_THING, NetworkPrediction, Target
from cupola.models.settings import PRESETS, NetworkSettings, paper, small, tiny

__all__ = [
    "IGNORE",
    "PRESETS",
    "SOME_THING",
    "BackboneReport",
    "NetworkPrediction",
    "NetworkSettings",
    "PanopticNetwork",
    "PretrainedNetwork",
    "Published",
    "Target",
    "boxes_of_masks",
    "load_backbone_weights",
    "load_network",
    "paper",
    "read_published",
    "save_network",
    "small",
    "tiny",
]
