"""Whole runs of SF2SE3 from given proposals, and the ensemble, against the published code's numbers
(../shared/parity/README-stage1.md, section 2).

Given the proposals nothing in a run is random. Its masks in the file come from the published components with 8
neighbours (`_run8`), which is what ours have.
"""

import numpy as np
import pytest

from cupola.motion.sf2se3.ensemble import consistency, matrix_nms, pool
from cupola.motion.sf2se3.labelling import RunMasks, label_pixels, moving_objects, separate, turns
from cupola.motion.sf2se3.masks import finish, hull_area, large_enough
from cupola.motion.sf2se3.observation import Level, Observation, full_level
from cupola.motion.sf2se3.segmenter import combine
from cupola.motion.sf2se3.settings import Sf2se3Settings
from cupola.motion.sf2se3.single_run import find_objects
from cupola.types import Calibration

PUBLISHED = Sf2se3Settings(form="published", downscale=0.25)
SIZE = (96, 192)


@pytest.fixture(scope="module")
def archive(shared):
    with np.load(shared / "parity" / "motion_steps.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def geometry(shared):
    with np.load(shared / "parity" / "geometry.npz") as file:
        return dict(file)


def observe(archive, geometry, variant):
    """The published scene flow of a variant. Its cells lie on half pixels, which the published code rounds irregularly:
    they are taken from the file."""
    k = archive["scene/K"]
    calibration = Calibration(k[0, 0], k[1, 1], k[0, 2], k[1, 2], float(archive["scene/B"]))
    fields = [geometry[f"{variant}/{name}"] for name in ("points_0", "points_1_at_0", "in_flow_fw", "reliable")]
    x, y = archive["low/pixel"].astype(int)
    at = np.ix_(y[:, 0], x[0])
    low = Level(
        *(field[..., *at] for field in fields), x[0].astype(float), y[:, 0].astype(float), np.arange(48), np.arange(24)
    )
    sigma = np.append(geometry[f"{variant}/sigma_flow"], geometry[f"{variant}/sigma_disp"]).astype(np.float64)
    return Observation(full_level(*fields, PUBLISHED.downscale), low, sigma, calibration)


def unpacked(archive, name):
    return np.unpackbits(archive[name], axis=-1, count=SIZE[1]).astype(bool)


def as_sets(masks):
    return sorted(mask.tobytes() for mask in masks)


@pytest.mark.parametrize("variant", ["exact", "noisy"])
def test_a_run_from_given_proposals(archive, geometry, variant):
    seen = observe(archive, geometry, variant)
    given = iter([archive[f"{variant}_run/proposals_{k}"].astype(np.float64) for k in range(6)])
    objects = find_objects(seen, PUBLISHED, lambda explained: next(given))
    run = f"{variant}_run8"
    np.testing.assert_allclose(objects.motions, archive[f"{run}/motions"], atol=1e-4)
    np.testing.assert_array_equal(objects.assigned, archive[f"{run}/assigned_low"])
    np.testing.assert_allclose(turns(objects.motions) / 2, archive[f"{run}/rotation_distance"], atol=1e-4)
    labels, shares = label_pixels(seen, objects, PUBLISHED)
    kept = moving_objects(seen, objects, labels, PUBLISHED)
    np.testing.assert_array_equal(np.where(np.isin(labels, kept), labels, 0), archive[f"{run}/labels_filtered"])
    found = separate(labels, shares, objects.motions, kept, PUBLISHED.min_component)
    published = unpacked(archive, f"{run}/masks_packed")
    assert as_sets(found.ids == i + 1 for i in range(len(found.scores))) == as_sets(published)
    by_mask = {mask.tobytes(): score for mask, score in zip(published, archive[f"{run}/scores"], strict=True)}
    for i, score in enumerate(found.scores):
        assert score == pytest.approx(by_mask[(found.ids == i + 1).tobytes()], abs=1e-5)
