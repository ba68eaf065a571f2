"""A small network that has learnt nothing and an image that shows nothing: all that prediction needs."""

import numpy as np
import torch

from cupola.models import PanopticNetwork, save_network, tiny

THINGS, STUFF = (5, 2), (0, 3, 4)


def save_untrained(directory):
    """A network that finds objects everywhere at a threshold of 0.01."""
    torch.manual_seed(0)
    save_network(directory, PanopticNetwork(tiny(), len(THINGS), len(STUFF)), {"things": THINGS, "stuff": STUFF})
    return directory


def noise():
    return np.random.default_rng(0).integers(0, 255, (64, 96, 3)).astype(np.uint8)
