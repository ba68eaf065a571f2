"""Which surface each pixel sees, and where that point is in the next frame.

For a rectangle with corner O and edges U, V, seen along the ray d = ((x - cx) / fx, (y - cy) / fy, 1), Cramer's rule
gives 1/depth = d.(U x V) / D, u/depth = d.(V x O) / D and v/depth = d.(O x U) / D with D = O.(U x V): three functions
linear in the pixel. So the pixels of a row inside the rectangle are one interval, found without testing any of them.
"""

from __future__ import annotations

import math

import numpy as np

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
    LABEL,
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
from cupola.data.synthetic.compiling import compiled, inner, leaf

NEAR = 0.25
"""Nothing nearer is drawn [m]."""
SKY = 23
"""Cityscapes label id."""
TEXELS = 256
"""Side of a noise tile [texels]."""


@compiled
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


@compiled
def place(shapes, poses, camera):
    """Geometry (n, 4, 3) in the left camera's frame: corner, edges."""
    n = shapes.shape[0]
    out = np.empty((n, 4, 3))
    rotation = camera_rotation(camera)
    for i in range(n):
        actor = int(shapes[i, ACTOR])
        angle = shapes[i, SWING] * math.sin(poses[actor, POSE_SWING]) + shapes[i, SPIN] * poses[actor, POSE_ROLL]
        ca, sa = math.cos(angle), math.sin(angle)
        cy, sy = math.cos(poses[actor, POSE_YAW]), math.sin(poses[actor, POSE_YAW])
        for k in range(4):
            x, y, z = shapes[i, 3 * k], shapes[i, 3 * k + 1], shapes[i, 3 * k + 2]
            if angle != 0.0:
                py = shapes[i, PIVOT + 1] if k == 0 else 0.0
                pz = shapes[i, PIVOT + 2] if k == 0 else 0.0
                y, z = py + ca * (y - py) - sa * (z - pz), pz + sa * (y - py) + ca * (z - pz)
            x, z = cy * x + sy * z, -sy * x + cy * z
            if k == 0:
                x += poses[actor, POSE_X] - camera[CAM_X]
                y += poses[actor, POSE_Y] - camera[CAM_X + 1]
                z += poses[actor, POSE_Z] - camera[CAM_X + 2]
            for j in range(3):
                out[i, k, j] = rotation[j, 0] * x + rotation[j, 1] * y + rotation[j, 2] * z
    return out


@leaf
def _outside(geometry, n, ball, a, b, d, offset):
    """Does a primitive lie wholly where a x + b y + d z + offset < 0?"""
    at = a * geometry[n, 0, 0] + b * geometry[n, 0, 1] + d * geometry[n, 0, 2] + offset
    u = a * geometry[n, 1, 0] + b * geometry[n, 1, 1] + d * geometry[n, 1, 2]
    v = a * geometry[n, 2, 0] + b * geometry[n, 2, 1] + d * geometry[n, 2, 2]
    if ball:
        w = a * geometry[n, 3, 0] + b * geometry[n, 3, 1] + d * geometry[n, 3, 2]
        return at + math.sqrt(u * u + v * v + w * w) < 0.0
    return at + max(u, 0.0) + max(v, 0.0) < 0.0


@compiled
def nearest_depths(shapes, geometry, far, camera, height, width):
    """Smallest depth [m] of each primitive; inf where neither eye can see it or it lies beyond `far`."""
    out = np.empty(len(shapes))
    fx, fy, cx, cy = camera[CAM_FX], camera[CAM_FY], camera[CAM_CX] + 1.0, camera[CAM_CY] + 1.0
    for i in range(len(shapes)):
        ball = shapes[i, KIND] == BALL
        o, u, v, w = geometry[i, 0, 2], geometry[i, 1, 2], geometry[i, 2, 2], geometry[i, 3, 2]
        low = o - math.sqrt(u * u + v * v + w * w) if ball else o + min(u, 0.0) + min(v, 0.0)
        hidden = low > far or _outside(geometry, i, ball, 0.0, 0.0, 1.0, -NEAR)
        hidden = hidden or _outside(geometry, i, ball, fx, 0.0, cx, 0.0)
        hidden = hidden or _outside(geometry, i, ball, -fx, 0.0, width - cx + 2.0, fx * camera[CAM_BASELINE])
        hidden = hidden or _outside(geometry, i, ball, 0.0, fy, cy, 0.0)
        hidden = hidden or _outside(geometry, i, ball, 0.0, -fy, height - cy + 2.0, 0.0)
        out[i] = np.inf if hidden else low
    return out


@inner
def texel(tiles, kind, s, t):
    """Noise tile at full resolution, nearest texel, in [0, 1]."""
    column, line = int(math.floor(s)) & (TEXELS - 1), int(math.floor(t)) & (TEXELS - 1)  # noqa: RUF046
    return tiles[kind, line * TEXELS + column] * (1.0 / 255.0)


@leaf
def covered(table, n, size_u, size_v, u, v, tiles):
    """Is the rectangle there at (u, v)? Depends on the surface point alone, so both views and all frames agree."""
    shape = int(table[n, SHAPE])
    if shape == DISC:
        return (u - 0.5) * (u - 0.5) + (v - 0.5) * (v - 0.5) <= 0.25
    if shape == TRAPEZOID:
        left = table[n, OUTLINE] + (table[n, OUTLINE + 2] - table[n, OUTLINE]) * v
        right = table[n, OUTLINE + 1] + (table[n, OUTLINE + 3] - table[n, OUTLINE + 1]) * v
        return left <= u <= right
    if shape == CAR_SIDE:
        top = 1.0
        if u < table[n, STYLE]:
            top = table[n, STYLE + 1] + (1.0 - table[n, STYLE + 1]) * math.sqrt(max(u / table[n, STYLE], 0.0))
        elif u > table[n, STYLE + 2]:
            top = 1.0 + (table[n, STYLE + 3] - 1.0) * ((u - table[n, STYLE + 2]) / (1.0 - table[n, STYLE + 2])) ** 2
        if v > top:
            return False
        du, dv = (u - table[n, OUTLINE]) * size_u, v * size_v - 0.08
        dr = (u - table[n, OUTLINE + 1]) * size_u
        radius = table[n, OUTLINE + 2] * table[n, OUTLINE + 2]
        return du * du + dv * dv > radius and dr * dr + dv * dv > radius
    if shape == LEAVES:
        s, t = u * size_u * 60.0 + table[n, GRAIN], v * size_v * 60.0 + table[n, GRAIN]
        distance = math.sqrt((u - 0.5) * (u - 0.5) + (v - 0.5) * (v - 0.5))
        ragged = texel(tiles, 0, s * 0.4, t * 0.4)
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
        s = u * size_u * table[n, OUTLINE]
        return v < 1.0 - table[n, OUTLINE + 1] * (1.0 - texel(tiles, 0, s + table[n, GRAIN], table[n, GRAIN]))
    return True


@leaf
def unrolled(p, q, r):
    """Two coordinates on the unit sphere: the face of a cube around it that the point (p, q, r) looks through."""
    a, b, d = abs(p), abs(q), abs(r)
    if d >= a and d >= b:
        return p, q
    if a >= b:
        return r, q
    return p, r


@inner
def _leafy(table, n, p, q, r, tiles):
    """Is the leafy ball there at this point of its surface?"""
    s, t = unrolled(p, q, r)
    s = s * 60.0 * table[n, OUTLINE] + table[n, GRAIN]
    t = t * 60.0 * table[n, OUTLINE] + 0.7 * table[n, GRAIN]
    return texel(tiles, 2, s, t) > table[n, OUTLINE + 1]


@inner
def _row_span(start, step, low, high):
    """Narrows [low, high] to the x with start + step x >= 0."""
    if step > 0.0:
        low = max(low, -start / step)
    elif step < 0.0:
        high = min(high, -start / step)
    elif start < 0.0:
        high = low - 1.0
    return low, high


@compiled
def prepare(shapes, geometry, order, rotation):
    """What is constant over a primitive (n, 14), for those in `order`.

    Rectangle: 0-2, 3-5, 6-8: 1/depth, u/depth and v/depth as linear forms of (dx, dy, 1); 9-11: its front's normal in
    the world. All 0 where the camera lies in its plane. Ball: 0-8: inverse of [U V W]; 9-11: the camera in the ball's
    own frame, where it is the unit sphere. 12, 13: lengths of U and V [m].
    """
    out = np.zeros((len(shapes), 14))
    for i in order:
        squares = (
            geometry[i, 1, 0] ** 2 + geometry[i, 1, 1] ** 2 + geometry[i, 1, 2] ** 2,
            geometry[i, 2, 0] ** 2 + geometry[i, 2, 1] ** 2 + geometry[i, 2, 2] ** 2,
            geometry[i, 3, 0] ** 2 + geometry[i, 3, 1] ** 2 + geometry[i, 3, 2] ** 2,
        )
        out[i, 12], out[i, 13] = math.sqrt(squares[0]), math.sqrt(squares[1])
        if shapes[i, KIND] == BALL:
            for k in range(3):
                for j in range(3):
                    out[i, 3 * k + j] = geometry[i, k + 1, j] / squares[k]  # the axes are orthogonal
                    out[i, 9 + k] -= out[i, 3 * k + j] * geometry[i, 0, j]
            continue
        for k in range(3):
            a, b = (k + 1) % 3, (k + 2) % 3
            out[i, k] = geometry[i, 1, a] * geometry[i, 2, b] - geometry[i, 1, b] * geometry[i, 2, a]
            out[i, 3 + k] = geometry[i, 2, a] * geometry[i, 0, b] - geometry[i, 2, b] * geometry[i, 0, a]
            out[i, 6 + k] = geometry[i, 0, a] * geometry[i, 1, b] - geometry[i, 0, b] * geometry[i, 1, a]
        length = math.sqrt(out[i, 0] ** 2 + out[i, 1] ** 2 + out[i, 2] ** 2) + 1e-300
        for j in range(3):
            out[i, 9 + j] = (
                rotation[0, j] * out[i, 0] + rotation[1, j] * out[i, 1] + rotation[2, j] * out[i, 2]
            ) / length
        volume = geometry[i, 0, 0] * out[i, 0] + geometry[i, 0, 1] * out[i, 1] + geometry[i, 0, 2] * out[i, 2]
        hidden = abs(volume) < 1e-12 or (shapes[i, TWO_SIDED] == 0.0 and volume > 0.0)
        for k in range(9):
            out[i, k] = 0.0 if hidden else out[i, k] / volume
    return out


@leaf
def _rows_of_quad(geometry, n, fy, cy, height):
    """First and one past the last row that the rectangle can touch."""
    low, high = 1e18, -1e18
    for k in range(4):
        y, z = geometry[n, 0, 1], geometry[n, 0, 2]
        if k & 1:
            y, z = y + geometry[n, 1, 1], z + geometry[n, 1, 2]
        if k & 2:
            y, z = y + geometry[n, 2, 1], z + geometry[n, 2, 2]
        if z < NEAR:
            return 0, height
        at = fy * y / z + cy
        low, high = min(low, at), max(high, at)
    return int(max(math.ceil(min(low, 1e6)), 0)), int(min(math.floor(max(high, -1e6)), height - 1)) + 1


@leaf
def _draw_quad(table, n, geometry, p, fx, fy, cx, cy, tiles, seen, nearness):
    height, width = seen.shape
    if p[n, 0] == 0.0 and p[n, 1] == 0.0 and p[n, 2] == 0.0:
        return
    first, last = _rows_of_quad(geometry, n, fy, cy, height)
    if first >= last:
        return
    # 1/depth, u/depth and v/depth: at column x of row y they are a0 + y ay + x ax
    wx, wy, ux, uy, vx, vy = p[n, 0] / fx, p[n, 1] / fy, p[n, 3] / fx, p[n, 4] / fy, p[n, 6] / fx, p[n, 7] / fy
    w0 = p[n, 2] - cx * wx - cy * wy
    u0 = p[n, 5] - cx * ux - cy * uy
    v0 = p[n, 8] - cx * vx - cy * vy
    solid = table[n, SHAPE] == FULL
    size_u, size_v = p[n, 12], p[n, 13]
    for y in range(first, last):
        w, u, v = w0 + y * wy, u0 + y * uy, v0 + y * vy
        low, high = 0.0, width - 1.0
        low, high = _row_span(w - 1e-6, wx, low, high)
        low, high = _row_span(1.0 / NEAR - w, -wx, low, high)
        low, high = _row_span(u, ux, low, high)
        low, high = _row_span(w - u, wx - ux, low, high)
        low, high = _row_span(v, vx, low, high)
        low, high = _row_span(w - v, wx - vx, low, high)
        if low > high:
            continue
        for x in range(math.ceil(low), math.floor(high) + 1):
            near = w + x * wx
            if near > nearness[y, x]:
                if not solid:
                    depth = 1.0 / near
                    if not covered(table, n, size_u, size_v, (u + x * ux) * depth, (v + x * vx) * depth, tiles):
                        continue
                nearness[y, x] = near
                seen[y, x] = n


@leaf
def _box_of_ball(geometry, n, fx, fy, cx, cy, height, width):
    """Rows and columns the ball can touch, from its bounding box."""
    reach = (
        math.sqrt(geometry[n, 1, 0] ** 2 + geometry[n, 2, 0] ** 2 + geometry[n, 3, 0] ** 2),
        math.sqrt(geometry[n, 1, 1] ** 2 + geometry[n, 2, 1] ** 2 + geometry[n, 3, 1] ** 2),
        math.sqrt(geometry[n, 1, 2] ** 2 + geometry[n, 2, 2] ** 2 + geometry[n, 3, 2] ** 2),
    )
    near = geometry[n, 0, 2] - reach[2]
    if near < NEAR:
        return 0, 0, 0, 0
    far = geometry[n, 0, 2] + reach[2]
    left, right = geometry[n, 0, 0] - reach[0], geometry[n, 0, 0] + reach[0]
    top, bottom = geometry[n, 0, 1] - reach[1], geometry[n, 0, 1] + reach[1]
    x0 = min(left / near, left / far) * fx + cx
    x1 = max(right / near, right / far) * fx + cx
    y0 = min(top / near, top / far) * fy + cy
    y1 = max(bottom / near, bottom / far) * fy + cy
    if x1 < 0 or y1 < 0 or x0 > width or y0 > height:
        return 0, 0, 0, 0
    return max(int(y0), 0), min(int(y1) + 2, height), max(int(x0), 0), min(int(x1) + 2, width)


@leaf
def _draw_ball(table, n, geometry, f, fx, fy, cx, cy, tiles, seen, nearness):
    height, width = seen.shape
    first, last, left, right = _box_of_ball(geometry, n, fx, fy, cx, cy, height, width)
    if first >= last or left >= right:
        return
    e0, e1, e2 = f[n, 9], f[n, 10], f[n, 11]
    constant = e0 * e0 + e1 * e1 + e2 * e2 - 1.0
    leafy = table[n, SHAPE] == LEAFY_BALL
    for y in range(first, last):
        dy = (y - cy) / fy
        for x in range(left, right):
            dx = (x - cx) / fx
            p = f[n, 0] * dx + f[n, 1] * dy + f[n, 2]
            q = f[n, 3] * dx + f[n, 4] * dy + f[n, 5]
            r = f[n, 6] * dx + f[n, 7] * dy + f[n, 8]
            square = p * p + q * q + r * r
            half = e0 * p + e1 * q + e2 * r
            root = half * half - square * constant
            if root < 0.0:
                continue
            depth = (-half - math.sqrt(root)) / square
            near = 1.0 / depth
            if near <= nearness[y, x]:
                continue
            if leafy and not _leafy(table, n, e0 + depth * p, e1 + depth * q, e2 + depth * r, tiles):
                continue
            nearness[y, x] = near
            seen[y, x] = n


@leaf
def rasterize(shapes, geometry, prepared, order, fx, fy, cx, cy, tiles, seen, nearness):
    """Fills seen (primitive of each pixel, -1 = sky) and nearness (1/depth, 0 = sky).

    The order, near to far, saves time; what is nearer wins, at a tie what comes first.
    """
    seen[:] = -1
    nearness[:] = 0.0
    for i in order:
        if shapes[i, KIND] == BALL:
            _draw_ball(shapes, i, geometry, prepared, fx, fy, cx, cy, tiles, seen, nearness)
        else:
            _draw_quad(shapes, i, geometry, prepared, fx, fy, cx, cy, tiles, seen, nearness)


@inner
def surface_point(ball, f, n, dx, dy):
    """(depth, u, v, w): where the ray (dx, dy, 1) meets a prepared primitive.

    A rectangle's plane is met beyond its edges too; a ball that the ray just misses is touched at its rim.
    """
    if ball:
        p = f[n, 0] * dx + f[n, 1] * dy + f[n, 2]
        q = f[n, 3] * dx + f[n, 4] * dy + f[n, 5]
        r = f[n, 6] * dx + f[n, 7] * dy + f[n, 8]
        square = p * p + q * q + r * r
        half = f[n, 9] * p + f[n, 10] * q + f[n, 11] * r
        root = half * half - square * (f[n, 9] * f[n, 9] + f[n, 10] * f[n, 10] + f[n, 11] * f[n, 11] - 1.0)
        depth = (-half - math.sqrt(max(root, 0.0))) / square
        return depth, f[n, 9] + depth * p, f[n, 10] + depth * q, f[n, 11] + depth * r
    near = f[n, 0] * dx + f[n, 1] * dy + f[n, 2]
    depth = 1.0 / max(near, 1e-6)
    return depth, (f[n, 3] * dx + f[n, 4] * dy + f[n, 5]) * depth, (f[n, 6] * dx + f[n, 7] * dy + f[n, 8]) * depth, 0.0


@compiled
def exact_truth(shapes, prepared, after, camera, turn, seen, identity):
    """Depth, disparity, flow, label id and instance id of each pixel of the left image; which actors are visible.

    prepared: the primitives at t; after: their geometry at t + 1, in the camera frame of then; turn: rotation from the
    camera at t to the camera at t + 1, for the sky; identity: instance id of each actor (0 = stuff).
    """
    height, width = seen.shape
    depth = np.empty((height, width), np.float32)
    disparity = np.empty((height, width), np.float32)
    flow = np.empty((2, height, width), np.float32)
    classes = np.empty((height, width), np.int16)
    instances = np.zeros((height, width), np.int32)
    visible = np.zeros(len(identity), np.bool_)
    fx, fy, cx, cy = camera[CAM_FX], camera[CAM_FY], camera[CAM_CX], camera[CAM_CY]
    for y in range(height):
        dy = (y - cy) / fy
        for x in range(width):
            dx = (x - cx) / fx
            i = seen[y, x]
            if i < 0:
                z = np.inf
                px = turn[0, 0] * dx + turn[0, 1] * dy + turn[0, 2]
                py = turn[1, 0] * dx + turn[1, 1] * dy + turn[1, 2]
                pz = turn[2, 0] * dx + turn[2, 1] * dy + turn[2, 2]
                disparity[y, x] = 0.0
                classes[y, x] = SKY
            else:
                z, u, v, w = surface_point(shapes[i, KIND] == BALL, prepared, i, dx, dy)
                px = after[i, 0, 0] + u * after[i, 1, 0] + v * after[i, 2, 0] + w * after[i, 3, 0]
                py = after[i, 0, 1] + u * after[i, 1, 1] + v * after[i, 2, 1] + w * after[i, 3, 1]
                pz = after[i, 0, 2] + u * after[i, 1, 2] + v * after[i, 2, 2] + w * after[i, 3, 2]
                disparity[y, x] = fx * camera[CAM_BASELINE] / z
                classes[y, x] = int(shapes[i, LABEL])
                actor = int(shapes[i, ACTOR])
                instances[y, x] = identity[actor]
                visible[actor] = True
            depth[y, x] = z
            if pz > 0.01:
                flow[0, y, x] = fx * px / pz + cx - x
                flow[1, y, x] = fy * py / pz + cy - y
            else:
                flow[0, y, x] = np.nan
                flow[1, y, x] = np.nan
    return depth, disparity, flow, classes, instances, visible
