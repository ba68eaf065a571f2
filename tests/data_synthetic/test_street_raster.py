"""The rasteriser against a slow twin that tries every primitive at every pixel."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupola.data.synthetic import columns as c
from cupola.data.synthetic.raster.kernels import NEAR, place, prepare, rasterize, surface_point
from cupola.data.synthetic.shapes import Shapes
from cupola.data.synthetic.textures import noise_tiles

HEIGHT, WIDTH = 24, 32
CAMERA = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 20.0, 20.0, 15.5, 11.5, 0.5])


def _draw(table):
    geometry = place(table, np.zeros((1, c.POSES)), CAMERA)
    order = np.arange(len(table))
    prepared = prepare(table, geometry, order, np.eye(3))
    seen, nearness = np.empty((HEIGHT, WIDTH), np.int32), np.empty((HEIGHT, WIDTH), np.float32)
    rasterize(table, geometry, prepared, order, 20.0, 20.0, 15.5, 11.5, noise_tiles(), seen, nearness)
    return geometry, prepared, seen, nearness


def _meet(row, geometry, ray):
    """Depth and margin (how far inside the primitive) of a ray, by linear algebra; depth inf: none."""
    origin, u, v, w = geometry
    if row[c.KIND] == c.QUAD:
        matrix = np.stack([u, v, -ray], 1)
        if abs(np.linalg.det(matrix)) < 1e-12:
            return np.inf, 0.0
        a, b, depth = np.linalg.solve(matrix, -origin)
        return (depth, min(a, 1 - a, b, 1 - b)) if depth > NEAR else (np.inf, 0.0)
    inverse = np.linalg.inv(np.stack([u, v, w], 1))
    eye, step = -inverse @ origin, inverse @ ray
    a, b, k = step @ step, eye @ step, eye @ eye - 1
    root = b * b - a * k
    return ((-b - np.sqrt(root)) / a, root / a) if root > 0 else (np.inf, root)


def _slow(table, geometry):
    depth, margin = np.full((HEIGHT, WIDTH), np.inf), np.full((HEIGHT, WIDTH), np.inf)
    for y in range(HEIGHT):
        for x in range(WIDTH):
            ray = np.array([(x - 15.5) / 20, (y - 11.5) / 20, 1.0])
            for row, one in zip(table, geometry, strict=True):
                found, inside = _meet(row, one, ray)
                if np.isfinite(found) or row[c.KIND] == c.BALL:
                    margin[y, x] = min(margin[y, x], abs(inside))
                if inside > 0:
                    depth[y, x] = min(depth[y, x], found)
    return depth, margin


vectors = st.tuples(*[st.floats(-2, 2).map(lambda x: round(x, 3))] * 3)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.booleans(), vectors, vectors, vectors, st.floats(1.5, 8)), min_size=1, max_size=4))
def test_fast_and_slow_see_the_same(primitives):
    shapes = Shapes()
    for ball, center, u, v, depth in primitives:
        place_at = (center[0], center[1], center[2] + depth + (2 if ball else 0))
        if ball:
            radii = tuple(abs(x) / 2 + 0.1 for x in u)
            shapes.ball(place_at, radii, c.PLAIN, (0.5, 0.5, 0.5), tilt=v[0])
        else:
            shapes.quad(place_at, u, v, c.PLAIN, (0.5, 0.5, 0.5), two_sided=True)
    table = shapes.table()
    geometry, prepared, seen, nearness = _draw(table)
    depth, margin = _slow(table, geometry)
    clear = margin > 1e-3  # no primitive's edge passes through the pixel's centre
    clear &= ~np.isfinite(depth) | (depth > NEAR + 0.01)
    assert np.array_equal((seen >= 0)[clear], np.isfinite(depth)[clear])
    hit = clear & (seen >= 0)
    np.testing.assert_allclose(nearness[hit], 1 / depth[hit], rtol=1e-3, atol=1e-4)
    for y, x in zip(*np.nonzero(hit), strict=True):
        i = seen[y, x]
        found = surface_point(table[i, c.KIND] == c.BALL, prepared, i, (x - 15.5) / 20, (y - 11.5) / 20)
        assert found[0] == pytest.approx(depth[y, x], rel=1e-3)


def test_a_surface_point_lies_where_its_coordinates_say():
    shapes = Shapes()
    shapes.quad((-2.0, 1.0, 5.0), (4.0, 0.0, 1.0), (0.2, -2.0, 0.0), c.PLAIN, (0.5, 0.5, 0.5), two_sided=True)
    shapes.ball((0.5, -1.0, 3.5), (0.4, 0.6, 0.5), c.PLAIN, (0.5, 0.5, 0.5), tilt=0.4)
    table = shapes.table()
    geometry, prepared, seen, _ = _draw(table)
    assert set(np.unique(seen)) == {-1, 0, 1}
    for y, x in zip(*np.nonzero(seen >= 0), strict=True):
        i = seen[y, x]
        ray = np.array([(x - 15.5) / 20, (y - 11.5) / 20, 1.0])
        depth, u, v, w = surface_point(table[i, c.KIND] == c.BALL, prepared, i, ray[0], ray[1])
        point = geometry[i, 0] + u * geometry[i, 1] + v * geometry[i, 2] + w * geometry[i, 3]
        np.testing.assert_allclose(point, depth * ray, atol=1e-6)


def test_the_back_of_a_closed_body_is_not_drawn():
    shapes = Shapes()
    shapes.quad((-2.0, 1.0, 5.0), (4.0, 0.0, 0.0), (0.0, -2.0, 0.0), c.PLAIN, (0.5, 0.5, 0.5))
    assert (_draw(shapes.table())[2] >= 0).any()
    shapes = Shapes()
    shapes.quad((2.0, 1.0, 5.0), (-4.0, 0.0, 0.0), (0.0, -2.0, 0.0), c.PLAIN, (0.5, 0.5, 0.5))
    assert not (_draw(shapes.table())[2] >= 0).any()


def test_swinging_turns_around_the_pivot():
    shapes = Shapes()
    shapes.ball((0.0, 1.0, 0.0), (0.1, 0.5, 0.1), c.PLAIN, (0.5, 0.5, 0.5), pivot=(0.0, 0.5, 0.0), swing=1.0)
    pose = np.zeros((1, c.POSES))
    pose[0, c.POSE_SWING] = np.pi / 2
    geometry = place(shapes.table(), pose, CAMERA)[0]
    assert np.linalg.norm(geometry[0] - [0, 0.5, 0]) == pytest.approx(0.5)
    assert geometry[0, 1] == pytest.approx(0.5 + 0.5 * np.cos(1.0))
