"""Points of an image: as many as an object has."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from cupola.motion.views import LONGEST, sampled

STEP = 32
"""OpenCV reads between pixels at multiples of 1/32 px."""


@given(st.sampled_from([0, 1, 50, LONGEST - 1, LONGEST, LONGEST + 1, 2 * LONGEST + 7]), st.integers(0, 99))
def test_any_number_of_points_is_read_like_one(count, seed):
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(20, 30)).astype(np.float32)
    x, y = (rng.integers(-4 * STEP, 36 * STEP, count).astype(np.float32) / STEP for _ in range(2))
    wanted = map_coordinates(image, np.stack([y, x]), order=1, mode="nearest")
    np.testing.assert_allclose(sampled(image, x, y), wanted, atol=1e-5)
