"""The dense CRF: its lattice against the definition, its answer against a plain dense mean field, its invariances, its
errors, and torch against the compiled loops."""

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import config

from cupola.errors import ConfigError, DataError
from cupola.semantics.crf import CrfSettings, dense_crf
from cupola.semantics.crf.on_torch import torch_crf
from cupola.semantics.crf.permutohedral.kernels import corner_keys, embed
from cupola.semantics.crf.permutohedral.lattice import axis_scales, build_lattice, packing

DENSE = CrfSettings(3.0, 2.0, 12.0, 40.0, 2.0, steps=3)
"""Wide kernels: there the lattice comes near the true Gaussian."""


def scene(height, width, classes, seed=0):
    """Two flat halves with a little noise, and noisy probabilities."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), 60, np.uint8)
    image[:, width // 2 :] = 170
    image += rng.integers(0, 12, image.shape, dtype=np.uint8)
    probabilities = rng.dirichlet(np.ones(classes), (height, width)).astype(np.float32)
    return image, np.ascontiguousarray(probabilities.transpose(2, 0, 1))


def gaussian(features):
    """Normalised dense kernel, n n."""
    distance = ((features[:, None] - features[None]) ** 2).sum(axis=2)
    kernel = np.exp(-distance / 2)
    norm = 1 / np.sqrt(kernel.sum(axis=1))
    return norm[:, None] * kernel * norm


def dense_twin(image, probabilities, settings):
    height, width = image.shape[:2]
    y, x = np.indices((height, width)).reshape(2, -1)
    near = np.stack([x, y], axis=1).astype(float)
    colour = image.reshape(-1, 3) / settings.colour_sigma
    kernel = settings.spatial_weight * gaussian(near / settings.spatial_sigma)
    kernel += settings.bilateral_weight * gaussian(np.hstack([near / settings.bilateral_sigma, colour]))
    logs = np.log(np.clip(probabilities.reshape(len(probabilities), -1), settings.smallest_probability, 1))
    field = np.exp(logs) / np.exp(logs).sum(axis=0)
    for _ in range(settings.steps):
        scores = logs + field @ kernel
        field = np.exp(scores - scores.max(axis=0))
        field /= field.sum(axis=0)
    return field.reshape(probabilities.shape)


def plane_basis(d):
    """Columns span the plane of sum 0 in d + 1 dimensions, as long as the lattice wants (Adams et al., section 3.1)."""
    columns = np.zeros((d + 1, d))
    for j in range(d):
        columns[: j + 1, j], columns[j + 1, j] = 1, -(j + 1)
    return columns * axis_scales(d)


def unpacked(keys, low, strides, d):
    """Vertices (..., d + 1) that keys name."""
    remainder, place = keys % (d + 1), keys // (d + 1)
    cells = np.empty((*keys.shape, d), np.int64)
    for i in reversed(range(d)):
        cells[..., i], place = place // strides[i] + low[i], place % strides[i]
    first = (d + 1) * cells + remainder[..., None]
    return np.concatenate([first, -first.sum(axis=-1, keepdims=True)], axis=-1)


def embedded(features):
    """Weights, simplex keys and vertices (n, d + 1, d + 1) of some points."""
    count, d = features.shape
    planes = np.ascontiguousarray(features.T)
    low, strides = packing(planes)
    weights, keys = np.empty((count, d + 1), np.float32), np.empty(count, np.int64)
    corners = np.empty((count, d + 1), np.int64)
    embed(0, count, planes, axis_scales(d), low, strides, weights, keys)
    corner_keys(0, count, keys, d, strides, corners)
    return weights, keys, unpacked(corners, low, strides, d)


def points(d, reach, count=3000):
    """Random ones, and some on borders between simplices."""
    rng = np.random.default_rng(d)
    return np.concatenate([rng.uniform(0, reach, (count, d)), rng.integers(0, reach, (count, d))]).astype(np.float32)


@pytest.mark.parametrize(("d", "reach"), [(2, 30), (5, 3), (5, 90)])
def test_every_point_lies_in_its_simplex(d, reach):
    """Vertices have their remainders, weights are barycentric, and together they give the point back."""
    features = points(d, reach)
    weights, _, vertices = embedded(features)
    remainders = np.broadcast_to(np.arange(d + 1)[:, None], vertices.shape)
    np.testing.assert_array_equal(vertices % (d + 1), remainders)
    assert np.abs(vertices - vertices[:, :1]).max() <= d  # no larger simplex around the point
    assert weights.min() > -1e-6  # measured -6e-8
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-5)
    position = features @ plane_basis(d).T
    np.testing.assert_allclose(np.einsum("nr,nri->ni", weights, vertices), position, atol=3e-4, rtol=0)  # measured 8e-5


@pytest.mark.parametrize(("d", "reach"), [(2, 30), (5, 1), (5, 3)])
def test_keys_are_equal_exactly_where_the_simplices_are(d, reach):
    """Both ways: one simplex under two keys would only cost time, two under one key would be wrong."""
    _, keys, vertices = embedded(points(d, reach))
    _, by_key = np.unique(keys, return_inverse=True)
    _, by_vertices = np.unique(vertices.reshape(len(keys), -1), axis=0, return_inverse=True)
    pairs = len(np.unique(np.stack([by_key, by_vertices.ravel()]), axis=1).T)
    assert pairs == by_key.max() + 1 == by_vertices.max() + 1 < len(keys)


def test_chains_join_neighbours():
    """Each axis: what follows in a line is one lattice step away, and no such pair is left out."""
    features = points(2, 12, 300)
    with ThreadPoolExecutor(1) as pool:
        lattice = build_lattice(np.ascontiguousarray(features.T), 1.0, pool)
    _, _, corners = embedded(features)
    vertices = np.empty((lattice.size, 3), np.int64)
    vertices[lattice.corners.vertices.ravel()] = corners.reshape(-1, 3)
    places = {tuple(vertex): number for number, vertex in enumerate(vertices.tolist())}
    for axis, line in enumerate(lattice.chains):
        step = 1 - 3 * np.eye(3, dtype=int)[axis]
        truth = {(n, places.get(tuple(vertex + step))) for n, vertex in enumerate(vertices)}
        joined = {(a if a >= 0 else ~a, b) for a, b in pairwise(line.tolist()) if b >= 0}
        assert joined == {pair for pair in truth if pair[1] is not None}


@pytest.mark.parametrize("classes", [2, 17])
def test_close_to_the_dense_mean_field(classes):
    """The lattice approximates. Measured: mean differences 0.0024 and 0.00006, of the probabilities 0.1 and 0.001."""
    image, probabilities = scene(16, 22, classes)
    truth, ours = dense_twin(image, probabilities, DENSE), dense_crf(image, probabilities, DENSE)
    assert np.abs(ours - truth).mean() < 0.005
    assert np.abs(ours - truth).mean() < np.abs(probabilities - truth).mean() / 10


@pytest.mark.parametrize("sigma", [1.0, 3.0])
@pytest.mark.parametrize("size", [(20, 30), (1, 40), (40, 1), (1, 1), (13, 7), (14, 9), (40, 70)])
def test_torch_equals_the_compiled_loops(size, sigma):
    """At sigma 1 this also compares the stencil with the lattice that it replaces. The last size has several tiles.
    Measured 2e-7."""
    image, probabilities = scene(*size, 5)
    settings = CrfSettings(spatial_sigma=sigma, bilateral_sigma=20.0, colour_sigma=10.0, steps=3)
    ours = dense_crf(image, probabilities, settings)
    np.testing.assert_allclose(torch_crf(image, probabilities, settings, torch.device("cpu")), ours, atol=2e-6)
    np.testing.assert_allclose(ours.sum(axis=0), 1, atol=1e-5)


@pytest.mark.parametrize("classes", [16, 17, 33, 64])
def test_any_number_of_planes(classes):
    """One to four planes of classes, filled or not."""
    image, probabilities = scene(20, 30, classes)
    truth = torch_crf(image, probabilities, CrfSettings(steps=3), torch.device("cpu"))
    np.testing.assert_allclose(dense_crf(image, probabilities, CrfSettings(steps=3)), truth, atol=2e-6)


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(20)), st.integers(2, 20))
def test_order_of_the_classes_does_not_matter(order, classes):
    image, probabilities = scene(12, 15, classes)
    order = [k for k in order if k < classes]
    permuted = dense_crf(image, np.ascontiguousarray(probabilities[order]))
    np.testing.assert_allclose(permuted, dense_crf(image, probabilities)[order], atol=1e-6)


def test_a_constant_image_with_equal_probabilities_stays():
    image = np.full((9, 11, 3), 80, np.uint8)
    probabilities = np.full((4, 9, 11), 0.25, np.float32)
    np.testing.assert_allclose(dense_crf(image, probabilities), 0.25, atol=1e-6)


def test_no_step_clips_and_normalises():
    image, probabilities = scene(6, 7, 3)
    probabilities[0] = 0
    clipped = np.clip(probabilities, 1e-5, 1)
    np.testing.assert_allclose(
        dense_crf(image, probabilities, CrfSettings(steps=0)), clipped / clipped.sum(0), atol=1e-6
    )


@pytest.mark.parametrize("sigma", [1.0, 3.0])
def test_kernels_without_weight_change_nothing(sigma):
    image, probabilities = scene(9, 16, 3)
    off = CrfSettings(spatial_sigma=sigma, spatial_weight=0.0, bilateral_weight=0.0, steps=2)
    np.testing.assert_allclose(
        dense_crf(image, probabilities, off), dense_crf(image, probabilities, CrfSettings(steps=0)), atol=1e-6
    )


def test_threads_do_not_change_a_bit(monkeypatch):
    image, probabilities = scene(48, 70, 33)
    results = []
    for threads in (1, 2, 5):
        monkeypatch.setattr(config, "NUMBA_NUM_THREADS", threads)
        results.append(dense_crf(image, probabilities))
    assert results[0].tobytes() == results[1].tobytes() == results[2].tobytes()


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.1])
def test_bad_numbers(value):
    image, probabilities = scene(5, 6, 3)
    probabilities[1, 2, 3] = value
    with pytest.raises(DataError, match="negative number, an infinity or NaN"):
        dense_crf(image, probabilities)


@pytest.mark.parametrize(
    ("image_shape", "shape", "message"),
    [((5, 6), (3, 5, 6), "needs an image"), ((5, 6, 3), (1, 5, 6), "two classes"), ((5, 6, 3), (3, 6, 5), "pixels")],
)
def test_bad_shapes(image_shape, shape, message):
    with pytest.raises(DataError, match=message):
        dense_crf(np.zeros(image_shape, np.uint8), np.ones(shape, np.float32))


@pytest.mark.parametrize("name", ["spatial_sigma", "bilateral_sigma", "colour_sigma"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_bad_sigmas(name, value):
    with pytest.raises(ConfigError, match=name):
        CrfSettings(**{name: value})


def test_sigmas_too_small_for_the_keys():
    image, probabilities = scene(50, 50, 2)
    with pytest.raises(ConfigError, match="too small"):
        dense_crf(image, probabilities, CrfSettings(bilateral_sigma=0.001, colour_sigma=0.001))


def test_unknown_device():
    image, probabilities = scene(4, 5, 2)
    with pytest.raises(ConfigError, match="abacus"):
        dense_crf(image, probabilities, device="abacus")
