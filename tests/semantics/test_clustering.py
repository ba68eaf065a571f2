import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, linkage

from cupola.semantics.clustering import merge_clusters, nearest_centre, weighted_kmeans


def _same_partition(one, two):
    return len(set(zip(one, two, strict=True))) == len(set(one)) == len(set(two))


def test_nearest_centre_over_several_blocks():
    rng = np.random.default_rng(0)
    points, centres = rng.normal(size=(5000, 3)), rng.normal(size=(9, 3))
    apart = ((points[:, None] - centres[None]) ** 2).sum(2)
    assert np.array_equal(nearest_centre(points, centres), apart.argmin(1))


def test_kmeans_finds_separate_groups_and_their_weight():
    rng = np.random.default_rng(1)
    groups = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    points = np.repeat(groups, 40, 0) + rng.normal(0, 0.1, (120, 2))
    weights = np.repeat([1.0, 2.0, 3.0], 40)
    centres, mass = weighted_kmeans(points, weights, 3, np.random.default_rng(0))
    order = np.argsort(mass)
    assert np.allclose(mass[order], [40, 80, 120])
    assert np.allclose(centres[order], groups, atol=0.1)


def test_a_weight_counts_like_repeated_points():
    rng = np.random.default_rng(2)
    points, weights = rng.normal(size=(60, 2)), rng.integers(1, 4, 60)
    centres, mass = weighted_kmeans(points, weights.astype(float), 1, rng)
    assert np.allclose(centres[0], np.repeat(points, weights, 0).mean(0))
    assert mass.tolist() == [weights.sum()]


def test_fewer_distinct_points_than_clusters():
    points = np.repeat(np.array([[0.0], [1.0]]), 5, 0)
    centres, mass = weighted_kmeans(points, np.ones(10), 8, np.random.default_rng(0))
    assert sorted(centres[:, 0]) == [0, 1]
    assert mass.tolist() == [5, 5]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(1, 12), st.sampled_from([0.0, 0.02, 0.1, 0.5]))
def test_merging_against_cutting_one_level_after_the_other(seed, leaves, wanted, share):
    rng = np.random.default_rng(seed)
    centres, mass = rng.normal(size=(leaves, 3)), rng.uniform(0.01, 1, leaves)
    classes = merge_clusters(centres, mass, wanted, share)
    assert set(classes) == set(range(classes.max() + 1))
    assert classes.max() < wanted
    totals = np.bincount(classes, mass)
    assert (np.diff(totals) <= 1e-12).all()
    if leaves == 1:
        return
    tree = linkage(centres, "average")
    best = None
    for count in range(1, leaves + 1):
        branch = fcluster(tree, count, "maxclust") - 1
        large = (np.bincount(branch, mass) >= share * mass.sum()).sum()
        if best is None or large > best[0]:
            best = (large, branch)
        if large >= wanted:
            break
    large, branch = best
    assert classes.max() + 1 == max(large, 1)
    kept = np.nonzero(np.bincount(branch, mass) >= share * mass.sum())[0]
    inside = np.isin(branch, kept)
    assert _same_partition(classes[inside], branch[inside])


def test_no_cluster_at_all():
    assert len(merge_clusters(np.zeros((0, 2)), np.zeros(0), 3, 0.1)) == 0


@pytest.mark.parametrize("count", [2, 300])
def test_equal_points_make_one_class(count):
    centres, mass = weighted_kmeans(np.ones((50, 2)), np.ones(50), count, np.random.default_rng(0))
    assert merge_clusters(centres, mass, 27, 0.006).tolist() == [0]
