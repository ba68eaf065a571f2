"""Whole runs of SF2SE3 from given proposals, and the ensemble, against the published code's numbers
(../shared/parity/README-stage1.md, section 2).

Given the proposals nothing in a run is random. Its masks in the file come from the published components with 8
neighbours (`_run8`), which is what ours have.
"""

import numpy as np
import pytest

from cupola.motion.sf2se3.ensemble import consistency, matrix_nms, shared_pixels, vote
from cupola.motion.sf2se3.labelling import RunMasks, label_pixels, moving_objects, separate, turns
from cupola.motion.sf2se3.masks import finish, hull_area, large_enough, surface_area
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


CASES = (
    *("exact_real8", "noisy_real8", "holes_8", "holes_4", "threshold", "border_8", "border_4", "inverted_8"),
    *("inverted_4", "paint_8", "paint_4", "none_kept", "none_at_all", "some_empty"),
)


def planes_of(masks):
    """As few planes of ids as hold the masks without overlap: the made-up cases overlap within a run."""
    planes = []
    for number, mask in enumerate(masks):
        plane = next((plane for plane in planes if not plane[mask].any()), None)
        if plane is None:
            planes.append(plane := np.zeros(mask.shape, np.int32))
        plane[mask] = number + 1
    return np.stack(planes) if planes else np.zeros((1, *SIZE), np.int32)


def pool_of(archive, case):
    """(masks, scores, number of runs) of a case."""
    name = f"ensemble/{case}"
    return unpacked(archive, f"{name}/masks_packed"), archive[f"{name}/scores"], int(archive[f"{name}/runs"])


@pytest.mark.parametrize("case", CASES)
def test_agreement_and_nms(archive, case):
    """Masks of equal scores come in no particular order from the published sort, so masks are compared, not numbers."""
    name = f"ensemble/{case}"
    masks, scores, runs = pool_of(archive, case)
    shared = shared_pixels(planes_of(masks), len(masks))
    agreement = consistency(shared, runs)
    np.testing.assert_allclose(agreement, archive[f"{name}/consistency"], atol=1e-6)
    kept = agreement >= PUBLISHED.min_consistency
    np.testing.assert_array_equal(kept, archive[f"{name}/kept"])
    if kept.any():
        best, lowered = matrix_nms(shared[np.ix_(kept, kept)], scores[kept], PUBLISHED.min_score)
        assert as_sets(masks[kept][best]) == as_sets(masks[kept][archive[f"{name}/nms_kept"]])
        np.testing.assert_allclose(lowered, archive[f"{name}/nms_scores"], atol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_instances_of_an_ensemble(archive, case):
    masks, scores, runs = pool_of(archive, case)
    chosen, lowered = vote(planes_of(masks), scores, runs, PUBLISHED)
    found = [mask for _, mask in finish(list(masks[chosen]), lowered, archive["full/points_0"], PUBLISHED)]
    published = archive[f"ensemble/{case}/instances"]
    assert as_sets(found) == as_sets(published == i for i in np.unique(published[published > 0]))


def test_an_ensemble_of_runs(archive):
    """The same from runs as the segmenter makes them."""
    masks, scores, count = pool_of(archive, "exact_real8")
    of, runs = archive["ensemble/exact_real8/run_of_mask"], []
    for run in range(count):
        (ids,) = planes_of(masks[of == run])
        runs.append(RunMasks(ids, scores[of == run], np.tile(np.eye(4), ((of == run).sum(), 1, 1))))
    found = combine(runs, archive["full/points_0"], PUBLISHED)
    published = archive["ensemble/exact_real8/instances"]
    assert len(found) == published.max() > 0
    assert as_sets(found.masks) == as_sets(published == i + 1 for i in range(published.max()))


@pytest.mark.parametrize("case", range(4))
def test_matrix_nms_alone(archive, case):
    name = f"nms/{case}"
    masks = np.unpackbits(archive[f"{name}/masks_packed"], axis=-1).astype(bool)
    shared, scores = shared_pixels(planes_of(masks), len(masks)), archive[f"{name}/scores"]
    for threshold, expected, expected_scores in ((0.6, "kept", "kept_scores"), (0.0, "all_order", "all_scores")):
        best, lowered = matrix_nms(shared, scores, threshold)
        np.testing.assert_array_equal(best, archive[f"{name}/{expected}"])
        np.testing.assert_allclose(lowered, archive[f"{name}/{expected_scores}"], atol=1e-6)


def test_size_filter(archive):
    """S32: the published area is that of the convex hull; ours, of the surface inside the mask, is never larger."""
    ids, points = archive["size/instances_in"], archive["full/points_0"]
    left = []
    for number, area in zip((3, 5, 7, 9, 11, 12), archive["size/area"], strict=True):
        mask = ids == number
        assert (mask.sum() < PUBLISHED.min_pixels) == np.isnan(area)
        if not np.isnan(area):
            assert hull_area(mask, points) == pytest.approx(area, rel=2e-3)
            assert surface_area(mask, points) <= area
        if large_enough(mask, points, PUBLISHED):
            left.append(mask)
    published = archive["size/instances_out"]
    assert as_sets(left) == as_sets(published == i for i in np.unique(published[published > 0]))
