"""Which parameters of a network are about its classes."""

from __future__ import annotations

import torch

from cupola.models.architectures import build_network
from cupola.models.interface import PanopticModel


def class_layers(network: PanopticModel) -> frozenset[str]:
    """Names of the parameters whose rows are classes, which a network of other classes must learn anew: those whose
    shape depends on how many there are. (10 in the paper's network, spec-network 7.)"""
    with torch.device("meta"):
        larger = build_network(network.settings, network.num_things + 1, network.num_stuff + 1).state_dict()
    return frozenset(name for name, value in network.state_dict().items() if larger[name].shape != value.shape)
