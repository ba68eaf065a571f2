"""The dense CRF against what pydensecrf computed (../shared/parity/README-semantics.md, section 3; README-stage1.md,
section 4).

The published pipeline feeds truncated bytes, blue first; so do these tests. `dense_crf` itself takes any order.
"""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from cupola.semantics.crf import CrfSettings, dense_crf

MARGINALS = 2e-5
"""Largest difference of a marginal: float32 sums in another order. Measured 4e-6."""
HALF_PRECISION = 5e-4
"""The same where they are stored as float16. Measured 2.5e-4, float16's own rounding."""
MASKCUT = CrfSettings(3.0, 7.0, 50.0, 5.0, 10.0, steps=10)


@pytest.fixture(scope="module")
def fed(shared):
    with np.load(shared / "parity" / "semantics_crf.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def published(shared):
    with np.load(shared / "parity" / "crf.npz") as file:
        return dict(file)


def fed_case(fed, name):
    return np.ascontiguousarray(fed[f"{name}/image"][..., ::-1]), np.exp(-fed[f"{name}/unary"].astype(np.float32))


def softmax(scores):
    powers = np.exp(scores - scores.max(axis=0))
    return powers / powers.sum(axis=0)


@pytest.mark.parametrize("name", ["two", "two_hard", "constant_image", "sixty_four", "medium", "street"])
def test_exactly_fed_unaries(fed, name):
    field = dense_crf(*fed_case(fed, name))
    np.testing.assert_array_equal(field.argmax(axis=0), fed[f"{name}/classes"])
    if f"{name}/marginals" in fed:
        marginals = fed[f"{name}/marginals"]
        tolerance = HALF_PRECISION if marginals.dtype == np.float16 else MARGINALS
        np.testing.assert_allclose(field, marginals, atol=tolerance, rtol=0)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_single_steps(fed, steps):
    field = dense_crf(*fed_case(fed, "two"), replace(CrfSettings(), steps=steps))
    np.testing.assert_allclose(field, fed[f"two/marginals_after_{steps}"], atol=MARGINALS, rtol=0)


@pytest.mark.parametrize("name", ["flat", "sharp", "noise", "hard"])
def test_published_function(published, name):
    field = dense_crf(published[f"{name}/image_used_bgr"], softmax(published[f"{name}/log_probabilities"]))
    np.testing.assert_array_equal(field.argmax(axis=0), published[f"{name}/classes"])
    np.testing.assert_allclose(field, published[f"{name}/marginals"], atol=MARGINALS, rtol=0)


def test_published_function_on_small_scores(published):
    """A street whose scores come at an eighth of the size."""
    small, image = published["street/log_probabilities"], published["street/image_used_bgr"]
    height, width = image.shape[:2]
    field = dense_crf(image, softmax(np.stack([cv2.resize(plane, (width, height)) for plane in small])))
    np.testing.assert_array_equal(field.argmax(axis=0), published["street/classes"])
    np.testing.assert_allclose(field[:, ::16, ::16], published["street/marginals_every16"], atol=MARGINALS, rtol=0)


def test_maskcut(published):
    """MaskCut's settings: there the spatial kernel is a lattice as well. Its unary is the softmax of the mask, and here
    too blue comes first."""
    mask = published["maskcut/mask"].astype(np.float32)
    image = np.ascontiguousarray(published["maskcut/image"][..., ::-1])
    field = dense_crf(image, softmax(np.stack([1 - mask, mask])), MASKCUT)
    np.testing.assert_array_equal(field.argmax(axis=0) == 1, published["maskcut/result"])
