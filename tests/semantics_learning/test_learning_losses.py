"""The losses against slow obvious loops, and what they must not depend on."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cupola.errors import ConfigError
from cupola.semantics.learning import CityscapesRecipe, DepthSettings, SmallRecipe, TermSettings
from cupola.semantics.learning.correlation import (
    centred,
    correlation,
    correspondence_loss,
    depth_correlation,
    probe_loss,
)
from cupola.semantics.learning.learner import depth_loss, dropped, first_centres

SIZES = st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 6))


def normal(seed, *shape):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def cosine(one, other):
    dot = sum(float(a) * float(b) for a, b in zip(one, other, strict=True))
    return dot / math.sqrt(sum(float(a) ** 2 for a in one)) / math.sqrt(sum(float(b) ** 2 for b in other))


def slow_loss(features, codes, shift, weight):
    total = mass = 0.0
    for image in range(len(features)):
        for i in range(features.shape[1]):
            for j in range(features.shape[2]):
                w = float(weight[image, i, j])
                total += w * -max(float(codes[image, i, j]), 0.0) * (float(features[image, i, j]) - shift)
                mass += w
    return total / mass if mass else 0.0


@given(SIZES, st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_correlation_is_the_cosine_of_every_pair(size, seed):
    b, n, m = size
    one, other = normal(seed, b, n, 4), normal(seed + 1, b, m, 4)
    found = correlation(one, other)
    for image in range(b):
        for i in range(n):
            for j in range(m):
                assert float(found[image, i, j]) == pytest.approx(cosine(one[image, i], other[image, j]), abs=1e-5)


@given(SIZES, st.integers(0, 10_000), st.floats(-1, 1), st.booleans())
@settings(max_examples=25, deadline=None)
def test_loss_equals_a_loop(size, seed, shift, weighted):
    features, codes = normal(seed, *size).tanh(), normal(seed + 1, *size).tanh()
    weight = (normal(seed + 2, *size) > 0).float() if weighted else torch.ones(size)
    found = correspondence_loss(features, codes, shift, weight if weighted else None)
    assert float(found) == pytest.approx(slow_loss(features, codes, shift, weight), abs=1e-5)


def test_codes_are_pulled_together_where_features_are_alike_and_apart_elsewhere():
    codes = torch.tensor([[[0.5, 0.5, -0.5]]], requires_grad=True)
    correspondence_loss(torch.tensor([[[0.9, 0.1, 0.9]]]), codes, 0.4).backward()
    alike, different, clamped = codes.grad[0, 0]
    assert alike < 0 < different  # descent makes the first cosine larger, the second smaller
    assert clamped == 0  # and leaves alone what is below zero


@given(SIZES, st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_centred_equals_a_loop(size, seed):
    pairs = normal(seed, *size)
    weight = (normal(seed + 1, *size) > 0).float()
    found = centred(pairs, weight)
    mass = float(weight.sum())
    total = float((pairs * weight).sum()) / mass if mass else 0.0
    for image in range(size[0]):
        for i in range(size[1]):
            row, counted = pairs[image, i].numpy(), weight[image, i].numpy().astype(bool)
            expected = row - row[counted].mean() + total if counted.any() else row
            np.testing.assert_allclose(found[image, i].numpy(), expected, atol=1e-5)


@given(SIZES, st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_centring_keeps_the_mean_of_all_and_levels_the_rows(size, seed):
    pairs = normal(seed, *size)
    found = centred(pairs)
    assert float(found.mean()) == pytest.approx(float(pairs.mean()), abs=1e-5)
    np.testing.assert_allclose(found.mean(2).numpy(), float(pairs.mean()), atol=1e-5)


@given(st.lists(st.floats(0.5, 200.0, width=32), min_size=1, max_size=6), st.floats(0.05, 2.0))
@settings(max_examples=40, deadline=None)
def test_depth_correlation_is_a_ratio_of_depths(depths, temperature):
    z = torch.tensor([depths])
    found, weight = depth_correlation(z, z, temperature)
    assert (weight == 1).all()
    for i, one in enumerate(depths):
        for j, other in enumerate(depths):
            expected = math.exp(-abs(math.log(one) - math.log(other)) / temperature)
            assert float(found[0, i, j]) == pytest.approx(expected, abs=1e-4)
    np.testing.assert_allclose(found, depth_correlation(z * 3, z * 3, temperature)[0], atol=1e-4)  # any unit of length


def test_unknown_depth_takes_no_part():
    depth = torch.tensor([[4.0, float("nan"), 8.0]])
    code = normal(0, 1, 3, 5).requires_grad_()
    found, weight = depth_correlation(depth, depth, 0.1)
    assert weight[0].tolist() == [[1, 0, 1], [0, 0, 0], [1, 0, 1]]
    assert torch.isfinite(found).all()
    loss = depth_loss(depth, code, 0.0, SmallRecipe())
    loss.backward()
    assert torch.isfinite(code.grad).all()
    assert (code.grad[0, 1] == 0).all()
    known = depth_loss(depth[:, [0, 2]], code[:, [0, 2]], 0.0, SmallRecipe())
    assert float(known.detach()) == pytest.approx(float(loss.detach()), abs=1e-6)


def test_a_view_without_any_depth_has_no_depth_loss():
    code = normal(0, 2, 3, 5).requires_grad_()
    loss = depth_loss(torch.full((2, 3), float("nan")), code, 0.1, SmallRecipe())
    loss.backward()
    assert float(loss.detach()) == 0
    assert (code.grad == 0).all()


def test_the_published_depth_term_does_not_see_the_depth():
    settings_ = SmallRecipe(depth=DepthSettings(correlation="constant"))
    code = normal(1, 2, 4, 5)
    one, other = (depth_loss(normal(seed, 2, 4).exp(), code, 0.03, settings_) for seed in (2, 3))
    assert float(one) == float(other)
    assert float(one) == pytest.approx(-(1 - 0.03) * float(correlation(code, code).clamp_min(0).mean()), abs=1e-6)


@given(st.integers(1, 8), st.integers(2, 4), st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_probe_loss_equals_a_loop(count, classes, seed):
    codes, centres = normal(seed, count, 3), normal(seed + 1, classes, 3)
    expected = -sum(max(cosine(code, centre) for centre in centres) for code in codes) / count
    assert float(probe_loss(codes, centres)) == pytest.approx(expected, abs=1e-5)


def test_first_centres_find_separate_clusters():
    rng = np.random.default_rng(0)
    axes = np.eye(6, dtype=np.float32)
    codes = np.repeat(axes, 20, axis=0) * rng.uniform(0.5, 9.0, (120, 1)).astype(np.float32)
    codes += rng.normal(0, 0.01, codes.shape).astype(np.float32)
    centres = first_centres(codes, 6, rng)
    found = (centres / np.linalg.norm(centres, axis=1, keepdims=True)) @ axes.T
    assert sorted(found.argmax(1)) == list(range(6))
    assert found.max(1).min() > 0.99


def test_fewer_distinct_codes_than_classes_still_give_every_centre():
    codes = np.repeat(np.eye(2, 4, dtype=np.float32), 5, axis=0)
    centres = first_centres(codes, 7, np.random.default_rng(0))
    assert centres.shape == (7, 4)
    assert (np.linalg.norm(centres, axis=1) > 0).all()


def test_dropout_leaves_out_whole_channels_of_a_view():
    features = torch.ones(8, 5, 200)
    found = dropped(features, 0.1, torch.Generator().manual_seed(0))
    assert (found == found[:, :1]).all()  # the same channels at all positions
    assert not torch.equal(found[0], found[1])
    assert found.unique().tolist() == pytest.approx([0, 1 / 0.9])
    assert float((found == 0).float().mean()) == pytest.approx(0.1, abs=0.03)


def test_the_depth_terms_schedule_counts_batches():
    depth = CityscapesRecipe().depth
    assert depth.at(399) == TermSettings(0.09, 0.03)
    assert depth.at(400).weight == pytest.approx(0.09 * 0.8)
    assert depth.at(2333).shift == pytest.approx(0.03 * 0.8**5)  # five times in all, as in the published run
    assert depth == CityscapesRecipe().depth


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"classes": 1}, "settings.classes must lie in 2 .. 254"),
        ({"batch": 1}, "settings.batch must be at least 2"),
        ({"dropout": 1.0}, r"settings.dropout must lie in \[0, 1\)"),
        ({"learning_rate": 0.0}, "settings.learning_rate must be positive"),
        (
            dict.fromkeys(("intra", "inter", "negative", "depth"), TermSettings(0.0)) | {"depth": DepthSettings(0.0)},
            "nothing to learn",
        ),
        ({"steps": 0}, "settings.steps must be at least 1"),
    ],
)
def test_bad_settings_are_one_sentence(change, sentence):
    with pytest.raises(ConfigError, match=sentence):
        SmallRecipe(**change)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: TermSettings(-1.0, 0.0), "must not be negative"),
        (lambda: TermSettings(1.0, 1.5), "must lie in -1 .. 1"),
        (lambda: DepthSettings(temperature=0.0), "temperature of the depth term must be positive"),
        (lambda: DepthSettings(decay=0.0), "decay must lie in 0 .. 1"),
    ],
)
def test_bad_terms_are_one_sentence(make, sentence):
    with pytest.raises(ConfigError, match=sentence):
        make()
