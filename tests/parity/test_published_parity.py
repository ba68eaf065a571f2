"""The published code's own parameters (../shared/parity/panoptic_cascade.npz), wrapped as `cups.ckpt` and as U2Seg's
files are, become the network that gives the published numbers."""

import numpy as np
import pytest
import torch

from cupola.models import read_published
from cupola.models.layers import upsample

BOUND = 1e-3
"""Of features and logits, as in test_cascade_parity."""


@pytest.fixture(scope="module")
def numbers(shared):
    return np.load(shared / "parity" / "panoptic_cascade.npz")


@pytest.mark.parametrize(("container", "prefix"), [("state_dict", "model."), ("model", "")])
def test_a_wrapped_file_gives_the_published_numbers(numbers, tmp_path, container, prefix):
    state = {
        prefix + name.removeprefix("weights/"): torch.from_numpy(np.asarray(numbers[name]))
        for name in numbers.files
        if name.startswith("weights/")
    }
    path = tmp_path / "cups.ckpt"
    torch.save({container: state, "epoch": 1}, path)
    published = read_published(path)
    network = published.network
    assert (network.num_things, network.num_stuff) == (12, 15)
    assert published.ignored == ()
    image = torch.from_numpy(numbers["a/image"]).float() / 255
    with torch.no_grad():
        features = network.backbone(network.batch([image]))
        logits = upsample(network.sem_seg_head(features), 4)[0, :, : image.shape[1], : image.shape[2]]
    for level, found in zip(("p2", "p3", "p4", "p5", "p6"), features, strict=True):
        assert np.abs(found[0].numpy() - numbers[f"a/{level}"]).max() < BOUND
    assert (logits.argmax(0).numpy() == numbers["a/sem_argmax"]).mean() > 0.999
