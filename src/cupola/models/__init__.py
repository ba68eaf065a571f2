"""The panoptic network: a Cascade Mask R-CNN with a semantic head (spec-network 1), in three sizes.

`PanopticNetwork(small(), num_things, num_stuff)` gives losses in training and panoptic maps in prediction.
"""

from cupola.models.boxes import boxes_of_masks
from cupola.models.checkpoint import load_network, save_network
from cupola.models.panoptic import PanopticNetwork
from cupola.models.records import IGNORE, SOME_THING, NetworkPrediction, Target
from cupola.models.settings import PRESETS, NetworkSettings, paper, small, tiny
from cupola.models.views import ViewSettings, predict_views

__all__ = [
    "IGNORE",
    "PRESETS",
    "SOME_THING",
    "NetworkPrediction",
    "NetworkSettings",
    "PanopticNetwork",
    "Target",
    "ViewSettings",
    "boxes_of_masks",
    "load_network",
    "paper",
    "predict_views",
    "save_network",
    "small",
    "tiny",
]
