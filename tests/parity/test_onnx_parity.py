"""The network of the parity numbers as an ONNX file: the published structure, with weights that find objects."""

import numpy as np
import pytest
import torch
from test_cascade_parity import IMAGES, STUFF, THINGS, network, numbers  # noqa: F401  (two are fixtures)

pytest.importorskip("onnxruntime", reason="needs the extra `onnx`")


@pytest.fixture(scope="module")
def session(network, tmp_path_factory):  # noqa: F811
    import onnx_ir

    from cupola.export.comparison import open_session
    from cupola.export.graph import build_model

    path = tmp_path_factory.mktemp("parity") / "net.onnx"
    onnx_ir.save(build_model(network, tuple(range(THINGS)), tuple(range(STUFF)), 0.5, {}), path)
    return open_session(path)


@IMAGES
@pytest.mark.parametrize("threshold", [0.05, 0.5])
def test_onnx_equals_torch(numbers, network, session, image, threshold):  # noqa: F811
    from cupola.export.comparison import compare

    pixels = np.ascontiguousarray(numbers[f"{image}/image"].to(torch.uint8).permute(1, 2, 0).numpy())
    found = compare(network, session, pixels, threshold, tuple(range(THINGS)), tuple(range(STUFF)))
    assert found.within_bounds, found
    assert found.panoptic < 2e-3
    assert found.box < 0.02


@IMAGES
def test_onnx_finds_the_published_objects(numbers, session, image):  # noqa: F811
    from cupola.export.comparison import run_session

    pixels = np.ascontiguousarray(numbers[f"{image}/image"].to(torch.uint8).permute(1, 2, 0).numpy())
    found = run_session(session, pixels, 0.5)
    boxes, classes = numbers[f"{image}/half_boxes"].numpy(), numbers[f"{image}/half_classes"].numpy()
    near = np.abs(found["boxes"][:, None] - boxes).max(2) < 0.05
    near &= found["classes"][:, None] == classes
    assert near.any(0).sum() >= len(boxes) - 2
    assert (found["panoptic"] != numbers[f"{image}/half_panoptic"].numpy()).mean() < 2e-3
