"""The network of the parity numbers as an ONNX file: the published structure, with weights that find objects."""

import numpy as np
import onnx_ir
import pytest
import torch
from cascade_numbers import STUFF, THINGS, Numbers, parity_settings, published_network

from cupola.export.comparison import compare, open_session, run_session
from cupola.export.graph import build_model

IMAGES = pytest.mark.parametrize("image", ["a", "b"])


@pytest.fixture(scope="module")
def numbers(shared):
    return Numbers(shared / "parity" / "panoptic_cascade.npz")


@pytest.fixture(scope="module")
def network(shared):
    return published_network(shared, parity_settings())


@pytest.fixture(scope="module")
def session(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("parity") / "net.onnx"
    onnx_ir.save(build_model(network, tuple(range(THINGS)), tuple(range(STUFF)), 0.5, {}), path)
    return open_session(path)


def photo(numbers, image):
    return np.ascontiguousarray(numbers[f"{image}/image"].to(torch.uint8).permute(1, 2, 0).numpy())


@IMAGES
@pytest.mark.parametrize("threshold", [0.05, 0.5])
def test_onnx_equals_torch(numbers, network, session, image, threshold):
    found = compare(network, session, photo(numbers, image), threshold, tuple(range(THINGS)), tuple(range(STUFF)))
    assert found.within_bounds, found
    assert found.panoptic < 2e-3
    assert found.box < 0.02


@IMAGES
def test_onnx_finds_the_published_objects(numbers, session, image):
    found = run_session(session, photo(numbers, image), 0.5)
    boxes, classes = numbers[f"{image}/half_boxes"].numpy(), numbers[f"{image}/half_classes"].numpy()
    near = np.abs(found["boxes"][:, None] - boxes).max(2) < 0.05
    near &= found["classes"][:, None] == classes
    assert near.any(0).sum() >= len(boxes) - 2
    assert (found["panoptic"] != numbers[f"{image}/half_panoptic"].numpy()).mean() < 2e-3
