"""The vectors' own exp and log against NumPy in float64, and what is folded to one value."""

import numpy as np
from numba import njit

from cupola.semantics.crf.vectors import LANES, exp, largest, load, log, store, total

RNG = np.random.default_rng(0)


@njit
def apply(values, powers, logs):
    """exp of minus the values, and their log."""
    for i in range(0, len(values), LANES):
        store(logs, i, log(load(values, i)))
        store(powers, i, exp(load(-values, i)))


@njit
def folded(values):
    return largest(load(values, 0)), total(load(values, 0))


def test_exp_and_log():
    """Measured 2.3e-7 and 1e-7, relative."""
    values = np.concatenate([np.geomspace(1e-30, 87, 16 * 500), RNG.uniform(0, 1, 16 * 500)]).astype(np.float32)
    powers, logs = np.empty_like(values), np.empty_like(values)
    apply(values, powers, logs)
    exact = values.astype(np.float64)
    np.testing.assert_allclose(powers, np.exp(-exact), rtol=3e-7)
    np.testing.assert_allclose(logs, np.log(exact), atol=1e-7, rtol=2e-7)


def test_exp_far_below_zero_is_exactly_zero():
    values = np.full(LANES, 1e30, np.float32)
    powers = np.ones_like(values)
    apply(values, powers, np.empty_like(values))
    assert not powers.any()


def test_folds():
    values = RNG.normal(0, 1, LANES).astype(np.float32)
    highest, summed = folded(values)
    assert highest == values.max()
    np.testing.assert_allclose(summed, values.sum(dtype=np.float64), atol=1e-6)
