"""One deferred shading pass: each pixel's visible surfaces are painted once, lit, hazed and turned into 8-bit sRGB."""

from __future__ import annotations

import math

import numpy as np

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
from cupola.data.synthetic.compiling import inner, leaf
from cupola.data.synthetic.materials.kernels import albedo, noise
from cupola.data.synthetic.raster.kernels import surface_point

GAMMA_STEPS = 4096


@leaf
def sky_color(dx, dy, rotation, light, tiles):
    """Linear colour of the sky along the camera ray (dx, dy, 1)."""
    length = math.sqrt(dx * dx + dy * dy + 1.0)
    x = (rotation[0, 0] * dx + rotation[1, 0] * dy + rotation[2, 0]) / length
    y = (rotation[0, 1] * dx + rotation[1, 1] * dy + rotation[2, 1]) / length
    z = (rotation[0, 2] * dx + rotation[1, 2] * dy + rotation[2, 2]) / length
    up = max(-y, 0.0)
    t = min(up * 2.2, 1.0)
    t = t * (2.0 - t)
    cover = 0.0
    if light[CLOUDS] > 0.0 and up > 0.0:
        s = (x / (up + 0.12)) * 28.0 + light[CLOUD_AT]
        r = (z / (up + 0.12)) * 28.0 + light[CLOUD_AT + 1]
        cloud = noise(tiles, 0, s, r, 1.0 - 8.0 * up)
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


@inner
def _ground_at(shadow, frame, x, z):
    """Bilinear look-up on the ground: sun and open sky, 1 = all. frame: world x, z of cell 0, a cell's side [m]."""
    s, t = (x - frame[0]) / frame[2], (z - frame[1]) / frame[2]
    if s < 0.0 or t < 0.0 or s > shadow.shape[1] - 1.001 or t > shadow.shape[0] - 1.001:
        return 1.0, 1.0
    i, j = int(s), int(t)
    a, b = s - i, (t - j) * (1.0 / 255.0)
    rest = 1.0 / 255.0 - b
    c00, c01, c10, c11 = (1.0 - a) * rest, a * rest, (1.0 - a) * b, a * b
    sun = c00 * shadow[j, i, 0] + c01 * shadow[j, i + 1, 0] + c10 * shadow[j + 1, i, 0] + c11 * shadow[j + 1, i + 1, 0]
    sky = c00 * shadow[j, i, 1] + c01 * shadow[j, i + 1, 1] + c10 * shadow[j + 1, i, 1] + c11 * shadow[j + 1, i + 1, 1]
    return sun, sky


@inner
def _body_at(shadow, frame, x, z):
    """Sun past houses and trees, of the nearest cell."""
    i, j = int((x - frame[0]) / frame[2] + 0.5), int((z - frame[1]) / frame[2] + 0.5)
    if i < 0 or j < 0 or i >= shadow.shape[1] or j >= shadow.shape[0]:
        return 1.0
    return shadow[j, i, 2] * (1.0 / 255.0)


@inner
def shade(table, f, n, dx, dy, camera, rotation, light, shadow, shadow_frame, tiles):
    """Linear colour of one prepared primitive along the camera ray (dx, dy, 1)."""
    ball = table[n, KIND] == BALL
    material = int(table[n, MATERIAL])
    depth, u, v, w = surface_point(ball, f, n, dx, dy)
    ray = math.sqrt(dx * dx + dy * dy + 1.0)
    unit = 1.0 / ray
    # the ray and the normal in the world
    rx = (rotation[0, 0] * dx + rotation[1, 0] * dy + rotation[2, 0]) * unit
    ry = (rotation[0, 1] * dx + rotation[1, 1] * dy + rotation[2, 1]) * unit
    rz = (rotation[0, 2] * dx + rotation[1, 2] * dy + rotation[2, 2]) * unit
    if ball:
        nx = u * f[n, 0] + v * f[n, 3] + w * f[n, 6]
        ny = u * f[n, 1] + v * f[n, 4] + w * f[n, 7]
        nz = u * f[n, 2] + v * f[n, 5] + w * f[n, 8]
        length = math.sqrt(nx * nx + ny * ny + nz * nz) + 1e-12
        X = (rotation[0, 0] * nx + rotation[1, 0] * ny + rotation[2, 0] * nz) / length
        Y = (rotation[0, 1] * nx + rotation[1, 1] * ny + rotation[2, 1] * nz) / length
        Z = (rotation[0, 2] * nx + rotation[1, 2] * ny + rotation[2, 2] * nz) / length
    else:
        u, v = min(max(u, 0.0), 1.0), min(max(v, 0.0), 1.0)
        X, Y, Z = f[n, 9], f[n, 10], f[n, 11]
    facing = X * rx + Y * ry + Z * rz
    if facing > 0.0:
        X, Y, Z, facing = -X, -Y, -Z, -facing
    footprint = depth / (camera[CAM_FX] * math.sqrt(max(-facing, 0.04)))
    detail = math.log2(footprint)
    reach = depth * ray
    x, y, z = camera[CAM_X] + reach * rx, camera[CAM_X + 1] + reach * ry, camera[CAM_X + 2] + reach * rz
    a0, a1, a2, gloss = albedo(table, n, material, u, v, w, f[n, 12], f[n, 13], 1.0 / footprint, detail, tiles)

    height = max(-y, 0.0)
    sunny = max(X * light[SUN] + Y * light[SUN + 1] + Z * light[SUN + 2], 0.0)
    up = 0.5 - 0.5 * Y
    occlusion = 1.0
    if material in (ROAD, PAVEMENT, KERB, GRASS):
        sun, occlusion = _ground_at(shadow, shadow_frame, x, z)
        sunny *= sun
    elif material == FACADE:
        occlusion = 0.7 + 0.3 * min(height / 4.0, 1.0)
        sunny *= 0.55 + 0.45 * min(height / 5.0, 1.0)
    elif material == FOLIAGE:
        sunny = 0.35 * sunny + 0.45 * max(0.0, 0.35 + 0.65 * sunny)
        occlusion = 0.55 + 0.45 * up
    elif material != HILLS:
        throw = height / max(-light[SUN + 1], 0.15)
        sunny *= _body_at(shadow, shadow_frame, x - light[SUN] * throw, z - light[SUN + 2] * throw)
        occlusion = 0.55 + 0.45 * min(height / 0.8, 1.0)
    c0 = a0 * (light[SUN_COLOR] * sunny + occlusion * (light[SKY_COLOR] * up + light[BOUNCE] * (1 - up)))
    c1 = a1 * (light[SUN_COLOR + 1] * sunny + occlusion * (light[SKY_COLOR + 1] * up + light[BOUNCE + 1] * (1 - up)))
    c2 = a2 * (light[SUN_COLOR + 2] * sunny + occlusion * (light[SKY_COLOR + 2] * up + light[BOUNCE + 2] * (1 - up)))
    if gloss > 0.0:
        # glass and paint mirror the sky above and the street below
        mirrored = ry - 2.0 * facing * Y
        fresnel = gloss * (0.12 + 0.88 * (1.0 + facing) * (1.0 + facing) * (1.0 + facing))
        sky = min(max(0.5 - 2.5 * mirrored, 0.0), 1.0)
        c0 += fresnel * (light[HAZE_COLOR] * sky * 0.8 + 0.04 * (1 - sky))
        c1 += fresnel * (light[HAZE_COLOR + 1] * sky * 0.8 + 0.04 * (1 - sky))
        c2 += fresnel * (light[HAZE_COLOR + 2] * sky * 0.8 + 0.04 * (1 - sky))
    if material == EMISSIVE:
        c0, c1, c2 = c0 + a0, c1 + a1, c2 + a2
    thick = reach * light[HAZE]
    haze = 1.0 - 1.0 / (1.0 + thick * (1.0 + thick * (0.5 + 0.17 * thick)))  # 1 - exp(-thick), cheaper
    c0 += (light[HAZE_COLOR] - c0) * haze
    c1 += (light[HAZE_COLOR + 1] - c1) * haze
    c2 += (light[HAZE_COLOR + 2] - c2) * haze
    return c0, c1, c2


@inner
def _hash(n):
    n = np.uint64(n)
    n = (n ^ (n >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    n = (n ^ (n >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return n ^ (n >> np.uint64(31))


@inner
def _bell(bits):
    """About normal, mean 0, deviation 1: the sum of four bytes."""
    total = np.int64(bits & np.uint64(255)) + np.int64((bits >> np.uint64(8)) & np.uint64(255))
    total += np.int64((bits >> np.uint64(16)) & np.uint64(255)) + np.int64((bits >> np.uint64(24)) & np.uint64(255))
    return (total - 510.0) / 147.8


@inner
def _expose(image, y, x, r, g, b, exposure, gamma, grain, seed):
    """Stores a linear colour as 8-bit sRGB with sensor noise, mostly common to the three channels."""
    bits = _hash(np.uint64(seed) + np.uint64(y * image.shape[1] + x) * np.uint64(0x9E3779B97F4A7C15))
    more = _hash(bits)
    common = 0.5 + 0.8 * grain * _bell(bits)
    for k in range(3):
        c = r if k == 0 else (g if k == 1 else b)
        own = np.int64((more >> np.uint64(16 * k)) & np.uint64(65535)) / 18918.0 - 1.732  # flat, deviation 1
        level = gamma[int(min(max(c * exposure, 0.0), GAMMA_STEPS - 1.0))] + common + 0.6 * grain * own
        image[y, x, k] = int(min(max(level, 0.0), 255.0))


@leaf
def shade_image(
    seen, shapes, prepared, camera, rotation, light, shadow, shadow_frame, tiles, gamma, grain, seed, image
):
    """Fills the 8-bit image from samples on a grid of twice its resolution.

    seen: 2h x 2w; gamma: table linear -> sRGB 0..255; grain: sensor noise [grey levels]; seed: of this image's noise.
    Where the four samples of a pixel see several surfaces, each is shaded once, at the middle of its samples.
    """
    fx, fy, cx, cy = camera[CAM_FX], camera[CAM_FY], camera[CAM_CX], camera[CAM_CY]
    exposure = (GAMMA_STEPS - 1) * light[EXPOSURE]
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            r = g = b = 0.0
            left = 4
            for k in range(4):
                index = seen[2 * y + (k >> 1), 2 * x + (k & 1)]
                count, sx, sy = 0, 0.0, 0.0
                for j in range(4):
                    if seen[2 * y + (j >> 1), 2 * x + (j & 1)] == index:
                        if j < k:  # already shaded
                            break
                        count += 1
                        sx += 0.5 * (j & 1) - 0.25
                        sy += 0.5 * (j >> 1) - 0.25
                if count == 0:
                    continue
                dx, dy = (x + sx / count - cx) / fx, (y + sy / count - cy) / fy
                if index >= 0:
                    r0, g0, b0 = shade(
                        shapes, prepared, index, dx, dy, camera, rotation, light, shadow, shadow_frame, tiles
                    )
                else:
                    r0, g0, b0 = sky_color(dx, dy, rotation, light, tiles)
                share = 0.25 * count
                r, g, b = r + share * r0, g + share * g0, b + share * b0
                left -= count
                if left == 0:
                    break
            _expose(image, y, x, r, g, b, exposure, gamma, grain, seed)
