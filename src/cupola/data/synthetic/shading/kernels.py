"""One deferred shading pass: each pixel's visible surfaces are painted once, lit, hazed and turned into 8-bit sRGB."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from cupola.data.synthetic.columns import (
    BALL,
    BOUNCE,
    CAM_CX,
    CAM_CY,
    CAM_FX,
    CAM_FY,
    CAM_X,
    CLOUD_AT,
    CLOUDS,
    EMISSIVE,
    EXPOSURE,
    FACADE,
    FOLIAGE,
    GRASS,
    HAZE,
    HAZE_COLOR,
    HILLS,
    KERB,
    KIND,
    MATERIAL,
    PAVEMENT,
    ROAD,
    SKY_COLOR,
    SUN,
    SUN_COLOR,
    ZENITH,
)
from cupola.data.synthetic.materials.kernels import albedo, noise
from cupola.data.synthetic.raster.kernels import surface_point

GAMMA_STEPS = 4096


@njit(cache=True, nogil=True)
def sky_color(x, y, z, light, tiles):
    """Linear colour of the sky along the unit direction (x, y, z) of the world (y down)."""
    up = max(-y, 0.0)
    t = min(up * 2.2, 1.0)
    t = t * (2.0 - t)
    cover = 0.0
    if light[CLOUDS] > 0.0 and up > 0.0:
        s = (x / (up + 0.12)) * 28.0 + light[CLOUD_AT]
        r = (z / (up + 0.12)) * 28.0 + light[CLOUD_AT + 1]
        cloud = noise(tiles, 0, s, r, 0.4 / (up + 0.05))
        cover = min(max((cloud - (1.0 - light[CLOUDS])) * 3.0, 0.0), 1.0) * min(up * 5.0, 1.0)
    glow = max(x * light[SUN] + y * light[SUN + 1] + z * light[SUN + 2], 0.0) ** 6 * 0.35
    c0 = light[HAZE_COLOR] + (light[ZENITH] - light[HAZE_COLOR]) * t
    c1 = light[HAZE_COLOR + 1] + (light[ZENITH + 1] - light[HAZE_COLOR + 1]) * t
    c2 = light[HAZE_COLOR + 2] + (light[ZENITH + 2] - light[HAZE_COLOR + 2]) * t
    white = light[HAZE_COLOR + 1] * 1.12
    c0 += (white - c0) * cover * 0.8 + glow * light[SUN_COLOR] * 0.3
    c1 += (white - c1) * cover * 0.8 + glow * light[SUN_COLOR + 1] * 0.3
    c2 += (white * 1.02 - c2) * cover * 0.8 + glow * light[SUN_COLOR + 2] * 0.3
    return c0, c1, c2


@njit(cache=True, nogil=True, inline="always")
def _shadow_at(shadow, frame, x, z, layer):
    """Bilinear look-up on the ground: 1 = lit. frame: world x, z of cell 0 and the cell's side [m]."""
    s, t = (x - frame[0]) / frame[2], (z - frame[1]) / frame[2]
    rows, columns = shadow.shape[1], shadow.shape[2]
    s, t = min(max(s, 0.0), columns - 1.001), min(max(t, 0.0), rows - 1.001)
    i, j = int(s), int(t)
    a, b = s - i, t - j
    top = shadow[layer, j, i] * (1 - a) + shadow[layer, j, i + 1] * a
    low = shadow[layer, j + 1, i] * (1 - a) + shadow[layer, j + 1, i + 1] * a
    return top * (1 - b) + low * b


@njit(cache=True, nogil=True)
def _normal(kind, g, u, v, w):
    """Unit normal in the camera frame; a rectangle's is U x V."""
    if kind == BALL:
        n = np.zeros(3)
        for k in range(3):
            p = u if k == 0 else (v if k == 1 else w)
            square = g[k + 1, 0] ** 2 + g[k + 1, 1] ** 2 + g[k + 1, 2] ** 2
            for j in range(3):
                n[j] += p * g[k + 1, j] / square
        x, y, z = n[0], n[1], n[2]
    else:
        x = g[1, 1] * g[2, 2] - g[1, 2] * g[2, 1]
        y = g[1, 2] * g[2, 0] - g[1, 0] * g[2, 2]
        z = g[1, 0] * g[2, 1] - g[1, 1] * g[2, 0]
    length = math.sqrt(x * x + y * y + z * z) + 1e-12
    return x / length, y / length, z / length


@njit(cache=True, nogil=True)
def shade(row, g, dx, dy, camera, rotation, light, shadow, shadow_frame, tiles):
    """Linear colour of one primitive along the camera ray (dx, dy, 1)."""
    kind = int(row[KIND])
    material = int(row[MATERIAL])
    depth, u, v, w = surface_point(kind, g, dx, dy)
    if kind != BALL:
        u, v = min(max(u, 0.0), 1.0), min(max(v, 0.0), 1.0)
    nx, ny, nz = _normal(kind, g, u, v, w)
    ray = math.sqrt(dx * dx + dy * dy + 1.0)
    facing = (nx * dx + ny * dy + nz) / ray
    if facing > 0.0:
        nx, ny, nz, facing = -nx, -ny, -nz, -facing
    footprint = depth / camera[CAM_FX] / math.sqrt(max(-facing, 0.04))
    size_u = math.sqrt(g[1, 0] ** 2 + g[1, 1] ** 2 + g[1, 2] ** 2)
    size_v = math.sqrt(g[2, 0] ** 2 + g[2, 1] ** 2 + g[2, 2] ** 2)
    # to the world
    X = rotation[0, 0] * nx + rotation[1, 0] * ny + rotation[2, 0] * nz
    Y = rotation[0, 1] * nx + rotation[1, 1] * ny + rotation[2, 1] * nz
    Z = rotation[0, 2] * nx + rotation[1, 2] * ny + rotation[2, 2] * nz
    px, py, pz = dx * depth, dy * depth, depth
    x = rotation[0, 0] * px + rotation[1, 0] * py + rotation[2, 0] * pz + camera[CAM_X]
    y = rotation[0, 1] * px + rotation[1, 1] * py + rotation[2, 1] * pz + camera[CAM_X + 1]
    z = rotation[0, 2] * px + rotation[1, 2] * py + rotation[2, 2] * pz + camera[CAM_X + 2]
    a0, a1, a2, gloss = albedo(row, material, u, v, w, size_u, size_v, footprint, tiles)

    height = max(-y, 0.0)
    sunny = max(X * light[SUN] + Y * light[SUN + 1] + Z * light[SUN + 2], 0.0)
    up = 0.5 - 0.5 * Y
    occlusion = 1.0
    reach = 1.0 / max(-light[SUN + 1], 0.15)
    if material in (ROAD, PAVEMENT, KERB, GRASS):
        sunny *= _shadow_at(shadow, shadow_frame, x, z, 0)
        occlusion = _shadow_at(shadow, shadow_frame, x, z, 1)
    elif material == FACADE:
        occlusion = 0.7 + 0.3 * min(height / 4.0, 1.0)
        sunny *= 0.55 + 0.45 * min(height / 5.0, 1.0)
    elif material == FOLIAGE:
        sunny = 0.35 * sunny + 0.45 * max(0.0, 0.35 + 0.65 * sunny)
        occlusion = 0.55 + 0.45 * up
    elif material != HILLS:
        sunny *= _shadow_at(
            shadow, shadow_frame, x - light[SUN] * height * reach, z - light[SUN + 2] * height * reach, 2
        )
        occlusion = 0.55 + 0.45 * min(height / 0.8, 1.0)
    c0 = a0 * (light[SUN_COLOR] * sunny + occlusion * (light[SKY_COLOR] * up + light[BOUNCE] * (1 - up)))
    c1 = a1 * (light[SUN_COLOR + 1] * sunny + occlusion * (light[SKY_COLOR + 1] * up + light[BOUNCE + 1] * (1 - up)))
    c2 = a2 * (light[SUN_COLOR + 2] * sunny + occlusion * (light[SKY_COLOR + 2] * up + light[BOUNCE + 2] * (1 - up)))
    if gloss > 0.0:
        # reflected direction in the world; glass and paint mirror sky above and street below
        vx, vy, vz = (x - camera[CAM_X]), (y - camera[CAM_X + 1]), (z - camera[CAM_X + 2])
        length = math.sqrt(vx * vx + vy * vy + vz * vz) + 1e-9
        vx, vy, vz = vx / length, vy / length, vz / length
        dot = 2.0 * (vx * X + vy * Y + vz * Z)
        ry = vy - dot * Y
        fresnel = gloss * (0.25 + 0.75 * (1.0 + facing) ** 3)
        sky = min(max(0.5 - 2.5 * ry, 0.0), 1.0)
        c0 += fresnel * (light[HAZE_COLOR] * sky * 0.8 + 0.04 * (1 - sky))
        c1 += fresnel * (light[HAZE_COLOR + 1] * sky * 0.8 + 0.04 * (1 - sky))
        c2 += fresnel * (light[HAZE_COLOR + 2] * sky * 0.8 + 0.04 * (1 - sky))
    if material == EMISSIVE:
        c0, c1, c2 = c0 + a0, c1 + a1, c2 + a2
    haze = 1.0 - math.exp(-depth * ray * light[HAZE])
    c0 += (light[HAZE_COLOR] - c0) * haze
    c1 += (light[HAZE_COLOR + 1] - c1) * haze
    c2 += (light[HAZE_COLOR + 2] - c2) * haze
    return c0, c1, c2


@njit(cache=True, nogil=True, inline="always")
def _hash(n):
    n = np.uint64(n)
    n = (n ^ (n >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    n = (n ^ (n >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return n ^ (n >> np.uint64(31))


@njit(cache=True, nogil=True, inline="always")
def _bell(bits):
    """About normal, mean 0, deviation 1: the sum of four bytes."""
    total = np.int64(bits & np.uint64(255)) + np.int64((bits >> np.uint64(8)) & np.uint64(255))
    total += np.int64((bits >> np.uint64(16)) & np.uint64(255)) + np.int64((bits >> np.uint64(24)) & np.uint64(255))
    return (total - 510.0) / 147.8


@njit(cache=True, nogil=True)
def _ray_color(index, dx, dy, shapes, geometry, camera, rotation, light, shadow, shadow_frame, tiles):
    if index >= 0:
        return shade(shapes[index], geometry[index], dx, dy, camera, rotation, light, shadow, shadow_frame, tiles)
    length = math.sqrt(dx * dx + dy * dy + 1.0)
    x = (rotation[0, 0] * dx + rotation[1, 0] * dy + rotation[2, 0]) / length
    y = (rotation[0, 1] * dx + rotation[1, 1] * dy + rotation[2, 1]) / length
    z = (rotation[0, 2] * dx + rotation[1, 2] * dy + rotation[2, 2]) / length
    return sky_color(x, y, z, light, tiles)


@njit(cache=True, nogil=True)
def shade_image(seen, shapes, geometry, camera, rotation, light, shadow, shadow_frame, tiles, gamma, grain, seed):
    """8-bit image from samples on a grid of twice the resolution.

    seen: 2h x 2w; gamma: table linear -> sRGB 0..255; grain: sensor noise [grey levels]; seed: of this image's noise.
    """
    height, width = seen.shape[0] // 2, seen.shape[1] // 2
    image = np.empty((height, width, 3), np.uint8)
    fx, fy, cx, cy = camera[CAM_FX], camera[CAM_FY], camera[CAM_CX], camera[CAM_CY]
    ids = np.empty(4, np.int64)
    scale = (GAMMA_STEPS - 1) * light[EXPOSURE]
    for y in range(height):
        for x in range(width):
            for k in range(4):
                ids[k] = seen[2 * y + (k >> 1), 2 * x + (k & 1)]
            c0 = c1 = c2 = 0.0
            for k in range(4):
                again = False
                for j in range(k):
                    again |= ids[j] == ids[k]
                if again:
                    continue
                count, sx, sy = 0, 0.0, 0.0
                for j in range(k, 4):
                    if ids[j] == ids[k]:
                        count += 1
                        sx += 0.5 * (j & 1) - 0.25
                        sy += 0.5 * (j >> 1) - 0.25
                dx, dy = (x + sx / count - cx) / fx, (y + sy / count - cy) / fy
                r, g, b = _ray_color(
                    ids[k], dx, dy, shapes, geometry, camera, rotation, light, shadow, shadow_frame, tiles
                )
                c0, c1, c2 = c0 + r * count, c1 + g * count, c2 + b * count
            bits = _hash(np.uint64(seed) + np.uint64(y * width + x) * np.uint64(0x9E3779B97F4A7C15))
            common = 0.8 * _bell(bits)
            more = _hash(bits)
            for k in range(3):
                c = c0 if k == 0 else (c1 if k == 1 else c2)
                level = gamma[int(min(max(c * 0.25 * scale, 0.0), GAMMA_STEPS - 1.0))]
                own = np.int64((more >> np.uint64(16 * k)) & np.uint64(65535)) / 18918.0 - 1.732
                level += grain * (common + 0.6 * own)
                image[y, x, k] = int(min(max(level + 0.5, 0.0), 255.0))
    return image
