"""A network of pseudo classes becomes one of true classes: its class predictors begin anew, all else stays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from cupola.models import NetworkSettings, PanopticNetwork, class_layers
from cupola.taxonomy import Taxonomy


def class_order(taxonomy: Taxonomy) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Classes of things and of stuff, in the order in which the network has them."""
    is_thing = np.array(taxonomy.is_thing, bool)
    return tuple(np.flatnonzero(is_thing).tolist()), tuple(np.flatnonzero(~is_thing).tolist())


def class_names(taxonomy: Taxonomy) -> dict[str, str]:
    """Class -> name, as a network's card holds them."""
    return {str(number): name for number, name in enumerate(taxonomy.names)}


def knows(card: Mapping[str, Any], taxonomy: Taxonomy) -> bool:
    """Whether a network of this card already predicts just these classes."""
    order = tuple(card.get("things", ())), tuple(card.get("stuff", ()))
    return order == class_order(taxonomy) and card.get("class_names") == class_names(taxonomy)


def untrained(settings: NetworkSettings, taxonomy: Taxonomy, seed: int) -> PanopticNetwork:
    """A new network of these classes, to which every negative counts, since truth marks everything; torch's own
    generator is left as it was."""
    things, stuff = class_order(taxonomy)
    settings = replace(settings, negatives=replace(settings.negatives, rule="all"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return PanopticNetwork(settings, len(things), len(stuff))


def adapted(network: PanopticNetwork, card: Mapping[str, Any], taxonomy: Taxonomy, seed: int) -> PanopticNetwork:
    """A copy of the network for true classes.

    What predicts classes begins anew, unless the network already knows them; a mask predictor that is the same for all
    classes stays. A network without things gets region heads that begin anew.
    """
    new = untrained(network.settings, taxonomy, seed)
    anew = frozenset() if knows(card, taxonomy) else class_layers(network)
    kept = {name: value for name, value in network.state_dict().items() if name not in anew}
    new.load_state_dict(new.state_dict() | kept)
    return new
