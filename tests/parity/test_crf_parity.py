"""The dense CRF against what pydensecrf computed (../shared/parity/README-semantics.md, section 3; README-stage1.md,
section 4). Labels are equal on at least 99.99 % of the pixels; on the small cases that means on all.

The published pipeline feeds truncated bytes, blue first; so do these tests. `dense_crf` itself takes any order.
"""

from dataclasses import replace

import numpy as np
import pytest

from cupola.semantics.crf import CrfSettings, dense_crf

EQUAL = 0.9999
MARGINALS = 5e-3
"""Largest difference of a marginal: float32 sums in another order, float16 where stored so."""


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
    assert (field.argmax(axis=0) == fed[f"{name}/classes"]).mean() >= EQUAL
    if f"{name}/marginals" in fed:
        np.testing.assert_allclose(field, fed[f"{name}/marginals"].astype(np.float32), atol=MARGINALS)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_single_steps(fed, steps):
    field = dense_crf(*fed_case(fed, "two"), replace(CrfSettings(), steps=steps))
    np.testing.assert_allclose(field, fed[f"two/marginals_after_{steps}"], atol=MARGINALS)


@pytest.mark.parametrize("name", ["flat", "sharp", "noise", "hard"])
def test_published_function(published, name):
    field = dense_crf(published[f"{name}/image_used_bgr"], softmax(published[f"{name}/log_probabilities"]))
    assert (field.argmax(axis=0) == published[f"{name}/classes"]).mean() >= EQUAL
    np.testing.assert_allclose(field, published[f"{name}/marginals"], atol=MARGINALS)
