"""Geometry against what the published code computes (../shared/parity/README-stage1.md, section 1).

Equal up to float32 rounding, except where the published code is defective; those tests say what differs and prove that
nothing else does.
"""

import numpy as np
import pytest

from cupola.geometry import se3
from cupola.geometry.camera import depth_from_disparity, points_from_disparity
from cupola.geometry.consistency import closes, consistent_disparity, consistent_flow
from cupola.geometry.edges import EDGE_THRESHOLD, disparity_edges, edge_magnitude
from cupola.geometry.noise import deviation_scale, noise_scale
from cupola.geometry.scene_flow import compute_scene_flow, low_grid
from cupola.geometry.warping import flow_targets, sample_bilinear, warp_nearest
from cupola.types import Calibration, Correspondence

VARIANTS = ("exact", "noisy", "outliers")
DISPARITY_EDGE_RIM = 2
"""The published edge test calls this many outer rows and columns edges [px]."""


@pytest.fixture(scope="module")
def archive(shared):
    with np.load(shared / "parity" / "geometry.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def calibration(archive):
    k = archive["K"]
    return Calibration(k[0, 0], k[1, 1], k[0, 2], k[1, 2], float(archive["B"]))


@pytest.fixture(params=VARIANTS)
def case(request, archive):
    return {key.split("/")[1]: value for key, value in archive.items() if key.startswith(f"{request.param}/")} | {
        "name": request.param,
        "valid_pixels": archive["valid_pixels"],
    }


@pytest.mark.parametrize("time", [0, 1])
def test_depth_and_points(case, calibration, time):
    """S14: where the disparity is 0, the published depth is 0; ours is unknown."""
    disparity = case[f"in_disp_l{time}"]
    known = disparity > 0
    depth, points = depth_from_disparity(disparity, calibration), points_from_disparity(disparity, calibration)
    assert np.isnan(depth[~known]).all()
    assert np.isnan(points[:, ~known]).all()
    assert (case[f"depth_{time}"][~known] == 0).all()
    np.testing.assert_allclose(depth[known], case[f"depth_{time}"][known], rtol=1e-6)
    scale = np.abs(points[2:])[:, known]
    np.testing.assert_allclose(points[:, known] / scale, case[f"points_{time}"][:, known] / scale, atol=1e-6)


def test_points_of_the_next_frame_by_nearest_lookup(case, calibration):
    """Published positions within float32 rounding of half a pixel may take the other neighbour: at most two here. The
    published lookup also reads half a pixel beyond the border, ours calls that outside."""
    flow = case["in_flow_fw"]
    found = warp_nearest(points_from_disparity(case["in_disp_l1"], calibration), flow)
    known = np.isfinite(found[0])
    difference = np.abs(found - case["points_1_at_0"]).max(0)
    assert (difference[known] > 1e-5 * found[2][known]).sum() <= 2
    inside = np.isfinite(warp_nearest(np.ones(flow.shape[1:], np.float32), flow))
    x, y = flow_targets(flow)
    beyond = (np.minimum(x, y) < 0) | (x > flow.shape[2] - 1) | (y > flow.shape[1] - 1)
    np.testing.assert_array_equal(inside, case["inside_nearest"] & ~beyond)


def test_the_samplers_differ_exactly_by_the_shift_s10(case):
    """Read at x W / (W - 1) - 1/2, clamped to the border, our sampler gives the published values: S10 is all there is
    between them."""
    height, width = case["in_flow_fw"].shape[1:]
    x, y = flow_targets(case["in_flow_fw"])
    shifted_x = np.clip(x * width / (width - 1) - 0.5, 0, width - 1)
    shifted_y = np.clip(y * height / (height - 1) - 0.5, 0, height - 1)
    np.testing.assert_allclose(
        sample_bilinear(case["in_flow_bw"], shifted_x, shifted_y), case["warped_flow"], atol=5e-4
    )


def test_consistency_criterion(case):
    """Given the published warped fields and inside masks, every pixel agrees."""
    there = closes(case["in_flow_fw"], case["warped_flow"]) & case["inside_flow"]
    np.testing.assert_array_equal(there, case["consistent_flow"])
    for time in (0, 1):
        left = case[f"in_disp_l{time}"]
        there = (
            closes(np.stack([-left, np.zeros_like(left)]), case[f"warped_disp_{time}"]) & case[f"inside_disp_{time}"]
        )
        np.testing.assert_array_equal(there, case[f"consistent_disp_{time}"])


def test_consistency_with_our_sampler(case):
    """S10 moves the published masks by half a pixel along edges and takes the outer ring away: on smooth fields
    at least 96 % of the pixels agree, on fields full of jumps 85 %, and ours keep more."""
    least = 0.85 if case["name"] == "outliers" else 0.96
    pairs = [(consistent_flow(case["in_flow_fw"], case["in_flow_bw"]), case["consistent_flow"])] + [
        (consistent_disparity(case[f"in_disp_l{t}"], case[f"in_disp_r{t}"]), case[f"consistent_disp_{t}"])
        for t in (0, 1)
    ]
    for ours, published in pairs:
        assert (ours == published).mean() > least
        assert ours.sum() > published.sum()


@pytest.mark.parametrize("time", [0, 1])
def test_disparity_edges(case, time):
    """Two differences: the published code pads with edges (outer two pixels), and a clean step with two equal maxima
    falls to rounding there, while we keep one of the two; that moves an edge of the exact scene by one column."""
    disparity = case[f"in_disp_l{time}"]
    magnitude, published = edge_magnitude(disparity), case[f"edge_magnitude_{time}"]
    inner = (slice(DISPARITY_EDGE_RIM, -DISPARITY_EDGE_RIM),) * 2
    edges, published_edges = disparity_edges(disparity)[inner], ~case[f"not_edge_{time}"][inner]
    if case["name"] == "exact":
        both = (magnitude > EDGE_THRESHOLD) & (published > EDGE_THRESHOLD)
        np.testing.assert_allclose(magnitude[both], published[both], atol=2e-5)
        assert (edges != published_edges).mean() < 0.02
    else:
        strong = np.maximum(magnitude, published) > EDGE_THRESHOLD
        np.testing.assert_allclose(magnitude[strong], published[strong], atol=2e-5)
        np.testing.assert_array_equal(edges, published_edges)


def test_reliable_pixels(case, calibration):
    """Given the published consistency masks; the exact scene differs by the tied edges above (its rim by the padding,
    which the margins of the scene hide)."""
    correspondence = Correspondence(
        flow=case["in_flow_fw"],
        flow_backward=case["in_flow_bw"],
        disparity=case["in_disp_l0"],
        disparity_next=case["in_disp_l1"],
        flow_valid=case["consistent_flow"],
        disparity_valid=case["consistent_disp_0"],
        disparity_next_valid=case["consistent_disp_1"],
    )
    scene = compute_scene_flow(correspondence, calibration, case["valid_pixels"])
    reliable = scene.known & scene.known_next
    allowed = 0.02 if case["name"] == "exact" else 0
    assert (reliable != case["reliable"]).mean() <= allowed
    both = reliable & case["reliable"]
    np.testing.assert_allclose(scene.flow[:, both], case["scene_flow"][:, both], atol=2e-5)


def test_noise_of_a_frame(case):
    flow = noise_scale(case["in_flow_fw"] + case["warped_flow"], case["inside_flow"])
    np.testing.assert_allclose(flow, case["sigma_flow"], rtol=1e-6)
    difference = np.abs(case["in_disp_l0"] - case["warped_disp_0"][0])[None]
    np.testing.assert_allclose(noise_scale(difference, case["inside_disp_0"]), [case["sigma_disp"]], rtol=1e-6)


@pytest.mark.parametrize("index", range(7))
def test_noise_estimator(archive, index):
    case = f"noise_scale/{index}"
    sigma = deviation_scale(archive[f"{case}/deviation"], archive[f"{case}/valid"])
    np.testing.assert_allclose(sigma, archive[f"{case}/sigma"], rtol=1e-6)


@pytest.mark.parametrize(
    ("size", "factor"), [("640x1280", 0.06), ("368x1104", 0.06), ("320x640", 0.06), ("96x192", 0.25)]
)
def test_low_grid(archive, size, factor):
    """Centres on exactly half a pixel go up or down irregularly in the published code; all others agree."""
    for axis, pixels in zip(("rows", "columns"), map(int, size.split("x")), strict=True):
        published = archive[f"low_grid/{size}/{axis}"]
        cells = low_grid(pixels, factor)
        centres = (np.arange(len(cells)) + 0.5) * (pixels / len(cells)) - 0.5
        clear = np.abs(centres % 1 - 0.5) > 1e-4
        np.testing.assert_array_equal(cells[clear], published[clear])
        assert np.abs(cells - published).max() <= 1


def test_rigid_fits(shared):
    with np.load(shared / "parity" / "motion_steps.npz") as file:
        before, after, weights, motions = (file[f"fit/points_{name}"] for name in ("a", "b", "weights", "motions"))
    fitted = se3.fit_motions(*(array.astype(np.float64) for array in (before, after, weights)))
    np.testing.assert_allclose(fitted, motions, atol=1e-5)
