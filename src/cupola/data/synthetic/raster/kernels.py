"""Which surface each pixel sees, and where that point is in the next frame.

For a rectangle with corner O and edges U, V, seen along the ray d = ((x - cx) / fx, (y - cy) / fy, 1), Cramer's rule
gives 1/depth = d.(U x V) / D, u/depth = d.(V x O) / D and v/depth = d.(O x U) / D with D = O.(U x V): three functions
linear in the pixel. So the pixels of a row inside the rectangle are one interval, found without testing any of them.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from cupola.data.synthetic.columns import (
    ACTOR,
    BALL,
    CAM_BASELINE,
    CAM_CX,
    CAM_CY,
    CAM_FX,
    CAM_FY,
    CAM_PITCH,
    CAM_ROLL,
    CAM_X,
    CAM_YAW,
    CAPSULE,
    CAR_SIDE,
    DISC,
    FULL,
    GRAIN,
    KIND,
    LEAFY_BALL,
    LEAVES,
    OUTLINE,
    PIVOT,
    POSE_ROLL,
    POSE_SWING,
    POSE_X,
    POSE_Y,
    POSE_YAW,
    POSE_Z,
    RAGGED_TOP,
    RAILING,
    RING,
    SHAPE,
    SPIN,
    STYLE,
    SWING,
    TRAPEZOID,
    TWO_SIDED,
)

NEAR = 0.25
"""Nothing nearer is drawn [m]."""
TEXELS = 256
"""Side of a noise tile [texels]."""


@njit(cache=True, nogil=True)
def camera_rotation(camera):
    """World to camera: rows are the camera's right, down and forward axis in the world."""
    cy, sy = math.cos(camera[CAM_YAW]), math.sin(camera[CAM_YAW])
    cp, sp = math.cos(camera[CAM_PITCH]), math.sin(camera[CAM_PITCH])
    cr, sr = math.cos(camera[CAM_ROLL]), math.sin(camera[CAM_ROLL])
    right = np.array([cy, 0.0, -sy])
    forward = np.array([sy * cp, sp, cy * cp])  # positive pitch looks down
    down = np.array([-sy * sp, cp, -cy * sp])
    rotation = np.empty((3, 3))
    for j in range(3):
        rotation[0, j] = cr * right[j] + sr * down[j]
        rotation[1, j] = -sr * right[j] + cr * down[j]
        rotation[2, j] = forward[j]
    return rotation


@njit(cache=True, nogil=True)
def place(shapes, poses, camera):
    """Geometry (n, 4, 3) in the left camera's frame: corner, edges."""
    n = shapes.shape[0]
    out = np.empty((n, 4, 3))
    rotation = camera_rotation(camera)
    for i in range(n):
        pose = poses[int(shapes[i, ACTOR])]
        angle = shapes[i, SWING] * math.sin(pose[POSE_SWING]) + shapes[i, SPIN] * pose[POSE_ROLL]
        ca, sa = math.cos(angle), math.sin(angle)
        cy, sy = math.cos(pose[POSE_YAW]), math.sin(pose[POSE_YAW])
        for k in range(4):
            x, y, z = shapes[i, 3 * k], shapes[i, 3 * k + 1], shapes[i, 3 * k + 2]
            if angle != 0.0:
                py = shapes[i, PIVOT + 1] if k == 0 else 0.0
                pz = shapes[i, PIVOT + 2] if k == 0 else 0.0
                y, z = py + ca * (y - py) - sa * (z - pz), pz + sa * (y - py) + ca * (z - pz)
            x, z = cy * x + sy * z, -sy * x + cy * z
            if k == 0:
                x += pose[POSE_X] - camera[CAM_X]
                y += pose[POSE_Y] - camera[CAM_X + 1]
                z += pose[POSE_Z] - camera[CAM_X + 2]
            for j in range(3):
                out[i, k, j] = rotation[j, 0] * x + rotation[j, 1] * y + rotation[j, 2] * z
    return out


@njit(cache=True, nogil=True)
def nearest_depths(shapes, geometry, far):
    """Smallest depth [m] of each primitive; inf where it lies wholly behind the camera or beyond `far`."""
    n = len(shapes)
    out = np.empty(n)
    for i in range(n):
        o, u, v, w = geometry[i, 0, 2], geometry[i, 1, 2], geometry[i, 2, 2], geometry[i, 3, 2]
        if shapes[i, KIND] == BALL:
            reach = math.sqrt(u * u + v * v + w * w)
            low, high = o - reach, o + reach
        else:
            low = o + min(u, 0.0) + min(v, 0.0)
            high = o + max(u, 0.0) + max(v, 0.0)
        out[i] = np.inf if high <= NEAR or low > far else low
    return out


@njit(cache=True, nogil=True, inline="always")
def texel(tiles, kind, s, t):
    """Noise tile at full resolution, nearest texel, in [0, 1]."""
    return tiles[kind, 0, math.floor(t) & (TEXELS - 1), math.floor(s) & (TEXELS - 1)]


@njit(cache=True, nogil=True)
def covered(row, size_u, size_v, u, v, tiles):
    """Is the rectangle there at (u, v)? Depends on the surface point alone, so both views and all frames agree."""
    shape = int(row[SHAPE])
    if shape == DISC:
        return (u - 0.5) * (u - 0.5) + (v - 0.5) * (v - 0.5) <= 0.25
    if shape == TRAPEZOID:
        left = row[OUTLINE] + (row[OUTLINE + 2] - row[OUTLINE]) * v
        right = row[OUTLINE + 1] + (row[OUTLINE + 3] - row[OUTLINE + 1]) * v
        return left <= u <= right
    if shape == CAR_SIDE:
        top = 1.0
        if u < row[STYLE]:
            top = row[STYLE + 1] + (1.0 - row[STYLE + 1]) * math.sqrt(max(u / row[STYLE], 0.0))
        elif u > row[STYLE + 2]:
            top = 1.0 + (row[STYLE + 3] - 1.0) * ((u - row[STYLE + 2]) / (1.0 - row[STYLE + 2])) ** 2
        if v > top:
            return False
        du, dv = (u - row[OUTLINE]) * size_u, v * size_v - 0.08
        dr = (u - row[OUTLINE + 1]) * size_u
        radius = row[OUTLINE + 2] * row[OUTLINE + 2]
        return du * du + dv * dv > radius and dr * dr + dv * dv > radius
    if shape == LEAVES:
        s, t = u * size_u * 40.0 + row[GRAIN], v * size_v * 40.0 + row[GRAIN]
        distance = math.sqrt((u - 0.5) * (u - 0.5) + (v - 0.5) * (v - 0.5))
        ragged = texel(tiles, 0, s * 0.6, t * 0.6)
        return distance < 0.28 + 0.22 * ragged and texel(tiles, 2, s, t) > 0.25 + 0.5 * distance
    if shape == RING:
        distance = math.sqrt((u - 0.5) * (u - 0.5) + (v - 0.5) * (v - 0.5))
        if distance > 0.5:
            return False
        if distance > 0.41 or distance < 0.06:
            return True
        spoke = math.atan2(v - 0.5, u - 0.5) * (10.0 / math.pi)
        return spoke - math.floor(spoke) < 0.12
    if shape == RAILING:
        s = u * size_u / 0.14
        return v > 0.9 or v < 0.1 or s - math.floor(s) < 0.25
    if shape == CAPSULE:
        radius = min(size_u, size_v) * 0.5
        dx = max(abs(u - 0.5) * size_u - (0.5 * size_u - radius), 0.0)
        dy = max(abs(v - 0.5) * size_v - (0.5 * size_v - radius), 0.0)
        return dx * dx + dy * dy <= radius * radius
    if shape == RAGGED_TOP:
        s = u * size_u * row[OUTLINE]
        return v < 1.0 - row[OUTLINE + 1] * (1.0 - texel(tiles, 0, s + row[GRAIN], row[GRAIN]))
    return True


@njit(cache=True, nogil=True, inline="always")
def _leafy(row, geometry, p, q, r, tiles):
    """Is the leafy ball there at this point of its surface?"""
    reach = 40.0 * row[OUTLINE]
    s = (p + 0.37 * r) * reach + row[GRAIN]
    t = (q - 0.31 * r) * reach + 0.7 * row[GRAIN]
    return texel(tiles, 2, s, t) > row[OUTLINE + 1]


@njit(cache=True, nogil=True)
def _row_span(height, width, start, step, low, high):
    """Narrows [low, high] to the x with start + step x >= 0."""
    if step > 0.0:
        low = max(low, -start / step)
    elif step < 0.0:
        high = min(high, -start / step)
    elif start < 0.0:
        high = low - 1.0
    return low, high


@njit(cache=True, nogil=True)
def _cross(a, b):
    return np.array([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])


@njit(cache=True, nogil=True)
def _rows_of_quad(geometry, fy, cy, height):
    """First and one past the last row that the rectangle can touch."""
    low, high = 1e18, -1e18
    for k in range(4):
        y, z = geometry[0, 1], geometry[0, 2]
        if k & 1:
            y, z = y + geometry[1, 1], z + geometry[1, 2]
        if k & 2:
            y, z = y + geometry[2, 1], z + geometry[2, 2]
        if z < NEAR:
            return 0, height
        at = fy * y / z + cy
        low, high = min(low, at), max(high, at)
    return int(max(math.ceil(min(low, 1e6)), 0)), int(min(math.floor(max(high, -1e6)), height - 1)) + 1


@njit(cache=True, nogil=True)
def _draw_quad(index, row, geometry, fx, fy, cx, cy, tiles, seen, nearness):
    height, width = seen.shape
    first, last = _rows_of_quad(geometry, fy, cy, height)
    if first >= last:
        return
    origin, edge_u, edge_v = geometry[0], geometry[1], geometry[2]
    normal = _cross(edge_u, edge_v)
    volume = origin[0] * normal[0] + origin[1] * normal[1] + origin[2] * normal[2]
    if abs(volume) < 1e-12 or (row[TWO_SIDED] == 0.0 and volume > 0.0):
        return
    across_u = _cross(edge_v, origin)
    across_v = _cross(origin, edge_u)
    # 1/depth, u/depth and v/depth: value at column 0 of row y is a + b y, step per column
    wx, wy, w0 = normal[0] / volume / fx, normal[1] / volume / fy, normal[2] / volume
    ux, uy, u0 = across_u[0] / volume / fx, across_u[1] / volume / fy, across_u[2] / volume
    vx, vy, v0 = across_v[0] / volume / fx, across_v[1] / volume / fy, across_v[2] / volume
    w0 -= cx * wx + cy * wy
    u0 -= cx * ux + cy * uy
    v0 -= cx * vx + cy * vy
    solid = row[SHAPE] == FULL
    size_u = math.sqrt(edge_u[0] ** 2 + edge_u[1] ** 2 + edge_u[2] ** 2)
    size_v = math.sqrt(edge_v[0] ** 2 + edge_v[1] ** 2 + edge_v[2] ** 2)
    for y in range(first, last):
        w, u, v = w0 + y * wy, u0 + y * uy, v0 + y * vy
        low, high = 0.0, width - 1.0
        low, high = _row_span(height, width, w - 1e-6, wx, low, high)
        low, high = _row_span(height, width, 1.0 / NEAR - w, -wx, low, high)
        low, high = _row_span(height, width, u, ux, low, high)
        low, high = _row_span(height, width, w - u, wx - ux, low, high)
        low, high = _row_span(height, width, v, vx, low, high)
        low, high = _row_span(height, width, w - v, wx - vx, low, high)
        if low > high:
            continue
        for x in range(math.ceil(low), math.floor(high) + 1):
            near = w + x * wx
            if near > nearness[y, x]:
                if not solid:
                    depth = 1.0 / near
                    if not covered(row, size_u, size_v, (u + x * ux) * depth, (v + x * vx) * depth, tiles):
                        continue
                nearness[y, x] = near
                seen[y, x] = index


@njit(cache=True, nogil=True)
def ball_frame(geometry):
    """Inverse of [U V W] and the camera's position in the ball's own frame, where it is the unit sphere."""
    axes = np.empty((3, 3))
    for k in range(3):
        square = 0.0
        for j in range(3):
            square += geometry[k + 1, j] * geometry[k + 1, j]
        for j in range(3):
            axes[k, j] = geometry[k + 1, j] / square  # the axes are orthogonal
    eye = np.empty(3)
    for k in range(3):
        eye[k] = -(axes[k, 0] * geometry[0, 0] + axes[k, 1] * geometry[0, 1] + axes[k, 2] * geometry[0, 2])
    return axes, eye


@njit(cache=True, nogil=True)
def _box_of_ball(geometry, fx, fy, cx, cy, height, width):
    """Rows and columns the ball can touch, from its bounding box."""
    reach = np.empty(3)
    for j in range(3):
        reach[j] = math.sqrt(geometry[1, j] ** 2 + geometry[2, j] ** 2 + geometry[3, j] ** 2)
    near = geometry[0, 2] - reach[2]
    if near < NEAR:
        return 0, 0, 0, 0
    far = geometry[0, 2] + reach[2]
    left, right = geometry[0, 0] - reach[0], geometry[0, 0] + reach[0]
    top, bottom = geometry[0, 1] - reach[1], geometry[0, 1] + reach[1]
    x0 = min(left / near, left / far) * fx + cx
    x1 = max(right / near, right / far) * fx + cx
    y0 = min(top / near, top / far) * fy + cy
    y1 = max(bottom / near, bottom / far) * fy + cy
    if x1 < 0 or y1 < 0 or x0 > width or y0 > height:
        return 0, 0, 0, 0
    return max(int(y0), 0), min(int(y1) + 2, height), max(int(x0), 0), min(int(x1) + 2, width)


@njit(cache=True, nogil=True)
def _draw_ball(index, row, geometry, fx, fy, cx, cy, tiles, seen, nearness):
    height, width = seen.shape
    first, last, left, right = _box_of_ball(geometry, fx, fy, cx, cy, height, width)
    if first >= last or left >= right:
        return
    axes, eye = ball_frame(geometry)
    constant = eye[0] * eye[0] + eye[1] * eye[1] + eye[2] * eye[2] - 1.0
    leafy = row[SHAPE] == LEAFY_BALL
    for y in range(first, last):
        dy = (y - cy) / fy
        for x in range(left, right):
            dx = (x - cx) / fx
            p = axes[0, 0] * dx + axes[0, 1] * dy + axes[0, 2]
            q = axes[1, 0] * dx + axes[1, 1] * dy + axes[1, 2]
            r = axes[2, 0] * dx + axes[2, 1] * dy + axes[2, 2]
            square = p * p + q * q + r * r
            half = eye[0] * p + eye[1] * q + eye[2] * r
            root = half * half - square * constant
            if root < 0.0:
                continue
            depth = (-half - math.sqrt(root)) / square
            near = 1.0 / depth
            if near <= nearness[y, x]:
                continue
            if leafy and not _leafy(row, geometry, eye[0] + depth * p, eye[1] + depth * q, eye[2] + depth * r, tiles):
                continue
            nearness[y, x] = near
            seen[y, x] = index


@njit(cache=True, nogil=True)
def rasterize(shapes, geometry, order, shift, fx, fy, cx, cy, tiles, seen, nearness):
    """Fills seen (primitive of each pixel, -1 = sky) and nearness (1/depth, 0 = sky), `shift` m right of the left eye.

    The order only saves time: what is nearer wins, at a tie what comes first.
    """
    seen[:] = -1
    nearness[:] = 0.0
    for i in order:
        shifted = geometry[i].copy()
        shifted[0, 0] -= shift
        if shapes[i, KIND] == BALL:
            _draw_ball(i, shapes[i], shifted, fx, fy, cx, cy, tiles, seen, nearness)
        else:
            _draw_quad(i, shapes[i], shifted, fx, fy, cx, cy, tiles, seen, nearness)


@njit(cache=True, nogil=True)
def surface_point(kind, geometry, dx, dy):
    """(depth, u, v, w): where the ray (dx, dy, 1) meets a primitive that it is known to meet.

    A rectangle's plane is met anywhere; a ball that is missed by rounding is touched at its rim.
    """
    if kind == BALL:
        axes, eye = ball_frame(geometry)
        p = axes[0, 0] * dx + axes[0, 1] * dy + axes[0, 2]
        q = axes[1, 0] * dx + axes[1, 1] * dy + axes[1, 2]
        r = axes[2, 0] * dx + axes[2, 1] * dy + axes[2, 2]
        square = p * p + q * q + r * r
        half = eye[0] * p + eye[1] * q + eye[2] * r
        root = half * half - square * (eye[0] * eye[0] + eye[1] * eye[1] + eye[2] * eye[2] - 1.0)
        depth = (-half - math.sqrt(max(root, 0.0))) / square
        return depth, eye[0] + depth * p, eye[1] + depth * q, eye[2] + depth * r
    o, a, b = geometry[0], geometry[1], geometry[2]
    n0, n1, n2 = a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]
    facing = dx * n0 + dy * n1 + n2
    volume = o[0] * n0 + o[1] * n1 + o[2] * n2
    if facing * volume <= 0.0:
        return 1e6, 0.5, 0.5, 0.0
    u = dx * (b[1] * o[2] - b[2] * o[1]) + dy * (b[2] * o[0] - b[0] * o[2]) + b[0] * o[1] - b[1] * o[0]
    v = dx * (o[1] * a[2] - o[2] * a[1]) + dy * (o[2] * a[0] - o[0] * a[2]) + o[0] * a[1] - o[1] * a[0]
    return volume / facing, u / facing, v / facing, 0.0


@njit(cache=True, nogil=True)
def exact_truth(shapes, before, after, camera, turn, seen, identity):
    """Depth, disparity, flow, label id and instance id of each pixel of the left image.

    before, after: geometry at t and t + 1, each in its own camera frame; turn: rotation from the camera at t to the
    camera at t + 1, for the sky; identity: instance id of each actor (0 = stuff).
    """
    height, width = seen.shape
    depth = np.empty((height, width), np.float32)
    disparity = np.empty((height, width), np.float32)
    flow = np.empty((2, height, width), np.float32)
    classes = np.empty((height, width), np.int16)
    instances = np.zeros((height, width), np.int32)
    fx, fy, cx, cy = camera[CAM_FX], camera[CAM_FY], camera[CAM_CX], camera[CAM_CY]
    sky = 23
    for y in range(height):
        dy = (y - cy) / fy
        for x in range(width):
            dx = (x - cx) / fx
            i = seen[y, x]
            if i < 0:
                z, px, py, pz = np.inf, 0.0, 0.0, 0.0
                px = turn[0, 0] * dx + turn[0, 1] * dy + turn[0, 2]
                py = turn[1, 0] * dx + turn[1, 1] * dy + turn[1, 2]
                pz = turn[2, 0] * dx + turn[2, 1] * dy + turn[2, 2]
                disparity[y, x] = 0.0
                classes[y, x] = sky
            else:
                z, u, v, w = surface_point(shapes[i, KIND], before[i], dx, dy)
                g = after[i]
                px = g[0, 0] + u * g[1, 0] + v * g[2, 0] + w * g[3, 0]
                py = g[0, 1] + u * g[1, 1] + v * g[2, 1] + w * g[3, 1]
                pz = g[0, 2] + u * g[1, 2] + v * g[2, 2] + w * g[3, 2]
                disparity[y, x] = fx * camera[CAM_BASELINE] / z
                classes[y, x] = int(shapes[i, 31])
                instances[y, x] = (
                    identity[int(shapes[i, ACTOR])] if identity[int(shapes[i, ACTOR])] // 1000 == classes[y, x] else 0
                )
            depth[y, x] = z
            if pz > 0.01:
                flow[0, y, x] = fx * px / pz + cx - x
                flow[1, y, x] = fy * py / pz + cy - y
            else:
                flow[0, y, x] = np.nan
                flow[1, y, x] = np.nan
    return depth, disparity, flow, classes, instances
