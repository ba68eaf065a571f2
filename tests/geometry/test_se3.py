import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.linalg import expm

from cupola.geometry import se3

twists = arrays(np.float64, (3, 6), elements=st.floats(-1.7, 1.7))
seeds = st.integers(0, 2**32 - 1)


def matrix_of(twist):
    x, y, z, *v = twist
    return np.array([[0, -z, y, v[0]], [z, 0, -x, v[1]], [-y, x, 0, v[2]], [0, 0, 0, 0]])


@given(twists, st.sampled_from([1.0, 1e-2, 1e-4, 1e-9]))
@settings(deadline=None)
def test_exp_is_the_matrix_exponential_and_log_its_inverse(twist, scale):
    twist = twist * scale
    motion = se3.exp(twist)
    np.testing.assert_allclose(motion, np.stack([expm(matrix_of(t)) for t in twist]), atol=1e-12)
    assume((np.linalg.norm(twist[:, :3], axis=1) < 3.1).all())
    np.testing.assert_allclose(se3.log(motion), twist, atol=1e-9)


@given(twists)
@settings(deadline=None)
def test_inverse_and_compose(twist):
    motion = se3.exp(twist)
    np.testing.assert_allclose(se3.compose(motion, se3.inverse(motion)), np.tile(np.eye(4), (3, 1, 1)), atol=1e-12)
    points = np.random.default_rng(0).normal(size=(3, 4, 5))
    one_by_one = se3.transform(motion[0], se3.transform(motion[1], points))
    np.testing.assert_allclose(se3.transform(se3.compose(motion[0], motion[1]), points), one_by_one, atol=1e-12)


@given(st.floats(0, 3.1), seeds)
@settings(deadline=None)
def test_rotation_angle_is_the_angle_of_the_difference(angle, seed):
    rng = np.random.default_rng(seed)
    first = se3.exp(rng.normal(size=(1, 6)))
    axis = rng.normal(size=3)
    turn = se3.exp(np.concatenate([angle * axis / np.linalg.norm(axis), rng.normal(size=3)])[None])
    np.testing.assert_allclose(se3.rotation_angle(first, se3.compose(first, turn)), [angle], atol=1e-7)


def test_equal_rotations_have_angle_zero_and_not_nan():
    motions = se3.exp(np.random.default_rng(0).normal(size=(2000, 6)))
    assert (se3.rotation_angle(motions, motions) == 0).all()


@given(twists, seeds, st.integers(0, 4))
@settings(deadline=None)
def test_fit_recovers_the_motion_whatever_the_padding(twist, seed, padding):
    rng = np.random.default_rng(seed)
    motion = se3.exp(twist)
    before = rng.normal(size=(3, 6 + padding, 3))
    after = np.stack([se3.transform(m, p.T).T for m, p in zip(motion, before, strict=True)])
    weights = rng.uniform(0.5, 2, (3, 6 + padding))
    weights[:, 6:], after[:, 6:] = 0, np.nan
    np.testing.assert_allclose(se3.fit_motions(before, after, weights), motion, atol=1e-8)


@given(seeds)
@settings(deadline=None)
def test_fit_has_the_least_error_of_its_neighbours_and_is_a_rotation(seed):
    rng = np.random.default_rng(seed)
    before, after, weights = rng.normal(size=(1, 5, 3)), rng.normal(size=(1, 5, 3)), rng.uniform(0, 1, (1, 5))

    def error(motion):
        return (weights[0] * ((se3.transform(motion, before[0].T).T - after[0]) ** 2).sum(-1)).sum()

    fitted = se3.fit_motions(before, after, weights)[0]
    np.testing.assert_allclose(fitted[:3, :3] @ fitted[:3, :3].T, np.eye(3), atol=1e-12)
    assert np.linalg.det(fitted[:3, :3]) > 0
    for step in 1e-3 * rng.normal(size=(20, 6)):
        assert error(se3.compose(se3.exp(step), fitted)) >= error(fitted) - 1e-12


def test_nothing_to_fit_is_the_identity():
    zeros = np.zeros((1, 3, 3))
    np.testing.assert_array_equal(se3.fit_motions(zeros, zeros, np.zeros((1, 3))), np.eye(4)[None])
    assert se3.fit_motions(np.zeros((0, 3, 3)), np.zeros((0, 3, 3)), np.zeros((0, 3))).shape == (0, 4, 4)


def test_two_points_or_a_line_do_not_fix_a_rotation():
    line = np.outer(np.arange(4.0), [1, 2, 3])
    corner = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0]], float)
    points = np.stack([line, corner, corner])
    weights = np.array([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0]], float)
    np.testing.assert_array_equal(se3.determines_rotation(points, weights), [False, True, False])
