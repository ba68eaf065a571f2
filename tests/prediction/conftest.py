import numpy as np
import pytest
import torch

from cupola.models import PanopticNetwork, save_network, tiny

THINGS, STUFF = (5, 2), (0, 3, 4)


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """An untrained network: at a threshold of 0.01 it finds objects everywhere."""
    torch.manual_seed(0)
    directory = tmp_path_factory.mktemp("model")
    save_network(directory, PanopticNetwork(tiny(), len(THINGS), len(STUFF)), {"things": THINGS, "stuff": STUFF})
    return directory


@pytest.fixture(scope="session")
def image():
    return np.random.default_rng(0).integers(0, 255, (64, 96, 3)).astype(np.uint8)
