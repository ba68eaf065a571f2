"""Procedural materials: the colour of a surface point, from its own coordinates alone, so that texture sticks to it.

Every detail is blurred over the pixel's footprint [m]: steps by `step` (sharp = 1 / footprint), noise by its
mip level (lod = log2 footprint).
"""

from __future__ import annotations

import math

from cupola.data.synthetic import columns as c
from cupola.data.synthetic.compiling import inner, leaf
from cupola.data.synthetic.raster.kernels import unrolled

TEXELS, LEVELS = 256, 9
"""Side of a noise tile and number of its mip levels; level k begins at texel (256^2 - side^2) 4/3 of a tile."""


@leaf
def noise(tiles, kind, s, t, detail):
    """Tileable noise in [0, 1], mean 0.5, at (s, t) [texels], averaged over 2 ** detail texels."""
    level = min(max(int(detail + 0.5), 0), LEVELS - 1)
    side = TEXELS >> level
    start = (TEXELS * TEXELS - side * side) * 4 // 3
    scale = side / TEXELS
    s, t = (s + 0.5) * scale - 0.5, (t + 0.5) * scale - 0.5
    fs, ft = math.floor(s), math.floor(t)
    a, b = s - fs, t - ft
    i, j = int(fs) & (side - 1), int(ft) & (side - 1)
    i1, j1 = (i + 1) & (side - 1), start + ((j + 1) & (side - 1)) * side
    j = start + j * side
    top = (1.0 - a) * tiles[kind, j + i] + a * tiles[kind, j + i1]
    low = (1.0 - a) * tiles[kind, j1 + i] + a * tiles[kind, j1 + i1]
    return (top + b * (low - top)) * (1.0 / 255.0)


@inner
def step(x, edge, sharp):
    """1 where x > edge, blurred over 1 / sharp."""
    return min(max((x - edge) * sharp + 0.5, 0.0), 1.0)


@inner
def band(x, low, high, sharp):
    """1 where low < x < high."""
    return step(x, low, sharp) * (1.0 - step(x, high, sharp))


@inner
def chance(i, j, seed):
    """A number in [0, 1) for a cell (i, j)."""
    n = (int(i) * 374761393 + int(j) * 668265263 + int(seed) * 144665) & 0x7FFFFFFF
    n = ((n ^ (n >> 13)) * 1274126177) & 0x7FFFFFFF
    return ((n ^ (n >> 16)) & 0xFFFF) / 65536.0


@leaf
def _stained(tiles, x, y, grain, lod, coarse, fine):
    """Brightness factor: stains of metres and grain of centimetres, mean 1."""
    value = 1.0 + coarse * (noise(tiles, 0, x * 18.0 + grain, y * 18.0 + grain, lod + 4.17) - 0.5)
    return value * (1.0 + fine * (noise(tiles, 1, x * 60.0 + grain, y * 60.0, lod + 5.91) - 0.5))


@inner
def _road(table, n, x, z, sharp, lod, tiles):
    """style: half width, lane edge, dash period (0: none), parking line, zebra at, start along the street."""
    half = table[n, c.STYLE]
    s = z + table[n, c.STYLE + 5]
    lateral = x - half
    value = _stained(tiles, x, s, 0.0, lod, 0.55, 0.9)
    track = abs(abs(lateral) - 1.65)
    value *= 0.9 + 0.1 * min(abs(track - 0.75) * 2.0, 1.0)
    patch = chance(math.floor(s / 7.0), math.floor(lateral / 1.8), 5)
    if patch < 0.18:
        value *= 0.82 + 0.9 * patch
    r, g, b = table[n, c.COLOR] * value, table[n, c.COLOR + 1] * value, table[n, c.COLOR + 2] * value
    paint = 0.0
    if table[n, c.STYLE + 2] > 0.0 and abs(lateral) < 0.1 + 1.0 / sharp:
        phase = s / table[n, c.STYLE + 2]
        phase = (phase - math.floor(phase)) * table[n, c.STYLE + 2]
        paint = band(lateral, -0.07, 0.07, sharp) * band(phase, 0.0, table[n, c.STYLE + 2] * 0.45, sharp * 0.5)
    edge = table[n, c.STYLE + 1]
    if edge > 0.0 and abs(abs(lateral) - edge) < 0.1 + 1.0 / sharp:
        paint = max(paint, band(abs(lateral), edge - 0.06, edge + 0.06, sharp))
    zebra = s - table[n, c.STYLE + 4]
    if -2.0 < zebra < 2.0:
        stripe = lateral / 1.0
        stripe -= math.floor(stripe)
        paint = max(
            paint, band(zebra, -1.8, 1.8, sharp) * band(stripe, 0.25, 0.75, sharp) * (abs(lateral) < half - 0.4)
        )
    if paint <= 0.0:
        return r, g, b, 0.0
    wear = noise(tiles, 1, x * 45.0, s * 45.0, lod + 5.49)
    paint *= 0.75 + 0.5 * (wear - 0.5)
    return r + (0.72 - r) * paint, g + (0.72 - g) * paint, b + (0.70 - b) * paint, 0.0


@inner
def _pavement(table, n, x, z, sharp, lod, tiles):
    """style: slab length, slab width, and the start along the street."""
    s = z + table[n, c.STYLE + 5]
    value = _stained(tiles, x, s, 31.0, lod, 0.45, 0.6)
    i, j = math.floor(x / table[n, c.STYLE + 1]), math.floor(s / table[n, c.STYLE])
    fx, fz = x - i * table[n, c.STYLE + 1], s - j * table[n, c.STYLE]
    fade = min(0.04 * sharp, 1.0)
    joint = max(1.0 - step(fx, 0.03, sharp), 1.0 - step(fz, 0.03, sharp))
    value *= (1.0 + 0.22 * (chance(i, j, 9) - 0.5) * min(fade * 4.0, 1.0)) * (1.0 - 0.5 * joint * fade)
    return table[n, c.COLOR] * value, table[n, c.COLOR + 1] * value, table[n, c.COLOR + 2] * value, 0.0


@inner
def _grass(table, n, x, z, sharp, lod, tiles):
    s = z + table[n, c.STYLE + 5]
    value = _stained(tiles, x, s, 77.0, lod, 0.7, 1.1)
    dry = noise(tiles, 0, x * 5.0 + 40.0, s * 5.0, lod + 2.32)
    r = table[n, c.COLOR] + (table[n, c.COLOR2] - table[n, c.COLOR]) * dry
    g = table[n, c.COLOR + 1] + (table[n, c.COLOR2 + 1] - table[n, c.COLOR + 1]) * dry
    b = table[n, c.COLOR + 2] + (table[n, c.COLOR2 + 2] - table[n, c.COLOR + 2]) * dry
    return r * value, g * value, b * value, 0.0


@inner
def _window(table, n, x, y, wide, high, seed, sharp, r, g, b):
    """A window of `wide` x `high` metres around (0, 0): frame, cross bars, glass with curtain, sill, lintel."""
    inside = band(x, -wide / 2, wide / 2, sharp) * band(y, -high / 2, high / 2, sharp)
    around = band(x, -wide / 2 - 0.12, wide / 2 + 0.12, sharp) * band(y, -high / 2 - 0.16, high / 2 + 0.2, sharp)
    trim0, trim1, trim2 = table[n, c.COLOR2], table[n, c.COLOR2 + 1], table[n, c.COLOR2 + 2]
    r, g, b = r + (trim0 - r) * around, g + (trim1 - g) * around, b + (trim2 - b) * around
    shadow = band(x, -wide / 2, wide / 2, sharp) * band(y, high / 2 - 0.14, high / 2, sharp)
    bars = max(1.0 - step(abs(x), 0.035, sharp), 1.0 - step(abs(y - high * 0.16), 0.03, sharp))
    bars = max(bars, max(step(abs(x), wide / 2 - 0.07, sharp), step(abs(y), high / 2 - 0.07, sharp)))
    glass = 0.03 + 0.16 * seed * seed + 0.07 * (y / high + 0.5)
    if seed > 0.6:
        curtain = step(abs(x), wide * 0.5 * (1.3 - seed), min(sharp, 33.0)) * 0.3
        glass += curtain
    g0, g1, g2 = glass * 0.85, glass, glass * 1.15
    g0, g1, g2 = g0 + (0.6 - g0) * bars, g1 + (0.6 - g1) * bars, g2 + (0.57 - g2) * bars
    dark = 1.0 - 0.6 * shadow
    return r + (g0 * dark - r) * inside, g + (g1 * dark - g) * inside, b + (g2 * dark - b) * inside


@inner
def _brick(r, g, b, x, y, grain, sharp):
    """Courses of bricks over a wall's colour, seen only from near."""
    course = math.floor(y / 0.11)
    fy = y / 0.11 - course
    bx = x / 0.3 + 0.5 * (course % 2)
    brick = math.floor(bx)
    joint = max(1.0 - step(fy, 0.14, sharp * 0.11), 1.0 - step(bx - brick, 0.06, sharp * 0.3)) * min(0.03 * sharp, 1.0)
    tone = 1.0 + 0.5 * (chance(brick, course, grain) - 0.5) * min(0.12 * sharp, 1.0)
    r, g, b = r * tone, g * tone, b * tone
    return r + (0.3 - r) * joint, g + (0.28 - g) * joint, b + (0.25 - b) * joint


@inner
def _shop(r, g, b, x, y, fx, i, pitch, grain, sharp, lod, tiles):
    """Ground floor of a shop: plinth, panes with wares behind them, a coloured fascia with lettering."""
    if y < 2.7:
        pane = band(fx, -pitch / 2 + 0.18, pitch / 2 - 0.18, sharp) * band(y, 0.5, 2.65, sharp)
        ware = noise(tiles, 2, x * 45.0, y * 45.0 + grain, lod + 5.49) * (1.0 - step(y, 1.7, 3.3))
        mullion = min(1.0 - step(abs(fx), 0.05, sharp) + band(y, 2.1, 2.18, sharp), 1.0)
        tone = 0.03 + 0.1 * chance(i, 7, grain) + 0.3 * ware * ware + 0.3 * mullion
        return r + (tone * 0.95 - r) * pane, g + (tone - g) * pane, b + (tone * 1.02 - b) * pane, 0.12 * pane
    fascia = band(y, 2.75, 3.2, sharp)
    letters = band(y, 2.86, 3.08, sharp) * step(noise(tiles, 1, x * 90.0, 3.0 + grain, lod + 5.91), 0.5, 10.0)
    t0, t1, t2 = 0.15 + 0.6 * chance(1, 3, grain), 0.15 + 0.5 * chance(2, 3, grain), 0.15 + 0.5 * chance(3, 3, grain)
    t0, t1, t2 = t0 + (0.8 - t0) * letters, t1 + (0.8 - t1) * letters, t2 + (0.75 - t2) * letters
    return r + (t0 - r) * fascia, g + (t1 - g) * fascia, b + (t2 - b) * fascia, 0.0


@inner
def _door(table, n, r, g, b, fx, y, seed, sharp):
    """A panelled front door in its frame."""
    door = band(fx, -0.55, 0.55, sharp) * band(y, 0.1, 2.3, sharp)
    around = band(fx, -0.7, 0.7, sharp) * (1.0 - step(y, 2.5, sharp))
    r += (table[n, c.COLOR2] - r) * around
    g += (table[n, c.COLOR2 + 1] - g) * around
    b += (table[n, c.COLOR2 + 2] - b) * around
    panel = 1.0 - 0.4 * band(abs(fx), 0.15, 0.42, sharp) * (band(y, 0.3, 1.0, sharp) + band(y, 1.25, 2.1, sharp))
    t = (0.05 + 0.2 * seed) * panel
    return r + (t * (0.6 + seed) - r) * door, g + (t * 0.9 - g) * door, b + (t * (1.5 - seed) - b) * door


@inner
def _facade(table, n, x, y, wide, high, sharp, lod, tiles):
    """style: floor height, window spacing, window width, window height, brick (0 or 1), shop (0..1)."""
    grain = table[n, c.GRAIN]
    floor_h = table[n, c.STYLE]
    value = _stained(tiles, x, y, grain, lod, 0.6, 0.45)
    r, g, b = table[n, c.COLOR] * value, table[n, c.COLOR + 1] * value, table[n, c.COLOR + 2] * value
    if table[n, c.STYLE + 4] > 0.0 and sharp > 3.0:
        r, g, b = _brick(r, g, b, x, y, grain, sharp)
    j = math.floor(y / floor_h)
    pitch = wide / max(math.floor(wide / table[n, c.STYLE + 1]), 1.0)
    i = math.floor(x / pitch)
    fx, fy = x - (i + 0.5) * pitch, y - (j + 0.55) * floor_h
    if j == 0 and table[n, c.STYLE + 5] > 0.5:
        return _shop(r, g, b, x, y, fx, i, pitch, grain, sharp, lod, tiles)
    seed = chance(i, j, grain)
    if j == 0 and chance(i, 13, grain) < 0.3:
        r, g, b = _door(table, n, r, g, b, fx, y, seed, sharp)
    elif y < high - 0.5:
        half_w, half_h = table[n, c.STYLE + 2] * 0.5 + 1.0 / sharp, table[n, c.STYLE + 3] * 0.5 + 1.0 / sharp
        if abs(fx) < half_w + 0.15 and abs(fy) < half_h + 0.25:
            r, g, b = _window(table, n, fx, fy, table[n, c.STYLE + 2], table[n, c.STYLE + 3], seed, sharp, r, g, b)
    above = y - j * floor_h
    if j == 0:
        plinth = 1.0 - 0.35 * (1.0 - step(y, 0.6, sharp))
        return r * plinth, g * plinth, b * plinth, 0.0
    if above < 0.15 + 1.0 / sharp or y > high - 0.55 - 1.0 / sharp:
        trim = 0.55 * max(1.0 - step(above, 0.12, sharp), step(y, high - 0.35, sharp))
        r, g, b = (
            r + (table[n, c.COLOR2] - r) * trim,
            g + (table[n, c.COLOR2 + 1] - g) * trim,
            b + (table[n, c.COLOR2 + 2] - b) * trim,
        )
        dark = 1.0 - 0.35 * band(y, high - 0.5, high - 0.35, sharp)
        return r * dark, g * dark, b * dark, 0.0
    return r, g, b, 0.0


@inner
def _roof(table, n, x, y, sharp, lod, tiles):
    value = _stained(tiles, x, y, table[n, c.GRAIN], lod, 0.5, 0.4)
    course = y / 0.33 - math.floor(y / 0.33)
    value *= 1.0 - 0.35 * (1.0 - step(course, 0.2, sharp * 0.33)) * min(0.15 * sharp, 1.0)
    value *= 1.0 + 0.3 * (chance(math.floor(x / 0.4), math.floor(y / 0.33), table[n, c.GRAIN]) - 0.5) * min(
        0.2 * sharp, 1.0
    )
    return table[n, c.COLOR] * value, table[n, c.COLOR + 1] * value, table[n, c.COLOR + 2] * value, 0.0


@inner
def _foliage(table, n, kind, u, v, w, size_u, size_v, sharp, lod, tiles):
    if kind == c.BALL:
        s, t = unrolled(u, v, w)
        s, t = s * size_u * 60.0, t * size_u * 60.0
        lift = 0.5 - 0.5 * v  # a ball's V points down
    else:
        s, t = u * size_u * 60.0, v * size_v * 60.0
        lift = v
    leaf = noise(tiles, 2, s + table[n, c.GRAIN], t + 0.7 * table[n, c.GRAIN], lod + 5.91)
    clump = noise(tiles, 0, s * 0.3 + table[n, c.GRAIN], t * 0.3, lod + 4.17)
    value = (0.25 + 1.1 * leaf) * (0.6 + 0.8 * clump) * (0.65 + 0.5 * lift)
    mix = 0.6 * clump + 0.4 * leaf
    r = table[n, c.COLOR] + (table[n, c.COLOR2] - table[n, c.COLOR]) * mix
    g = table[n, c.COLOR + 1] + (table[n, c.COLOR2 + 1] - table[n, c.COLOR + 1]) * mix
    b = table[n, c.COLOR + 2] + (table[n, c.COLOR2 + 2] - table[n, c.COLOR + 2]) * mix
    return r * value, g * value, b * value, 0.0


@inner
def _car_body(table, n, x, y, size_u, size_v, sharp):
    """Side of a car below the window line; x from the front, y from the sill [m]."""
    value = 0.92 + 0.16 * (y / size_v)
    value *= 1.0 - 0.25 * band(y, size_v * 0.62, size_v * 0.62 + 0.03, sharp)
    fade = min(0.02 * sharp, 1.0)
    middle = table[n, c.OUTLINE + 3] * size_u
    seams = max(band(x, middle - 0.012, middle + 0.012, sharp), band(x, middle + 1.0, middle + 1.024, sharp))
    seams = max(seams, band(x, middle - 1.12, middle - 1.096, sharp)) * step(y, 0.12, sharp)
    value *= 1.0 - 0.6 * seams * fade
    r, g, b = table[n, c.COLOR] * value, table[n, c.COLOR + 1] * value, table[n, c.COLOR + 2] * value
    grip = band(y, size_v * 0.76, size_v * 0.76 + 0.04, sharp)
    grip *= max(band(x, middle - 0.22, middle - 0.06, sharp), band(x, middle + 0.78, middle + 0.94, sharp))
    sill = 1.0 - step(y, 0.1, sharp)
    dark = max(sill, grip * 0.8)
    return r + (0.02 - r) * dark, g + (0.02 - g) * dark, b + (0.022 - b) * dark, 0.35 * (1 - dark)


@inner
def _car_cabin(table, n, u, v, size_u, size_v, sharp):
    """Windows of a side. outline: the trapezoid; style 0, 1: pillars at u."""
    left = table[n, c.OUTLINE] + (table[n, c.OUTLINE + 2] - table[n, c.OUTLINE]) * v
    right = table[n, c.OUTLINE + 1] + (table[n, c.OUTLINE + 3] - table[n, c.OUTLINE + 1]) * v
    x, blur = (u - left) * size_u, sharp
    glass = step(x, 0.09, blur) * step((right - u) * size_u, 0.12, blur) * band(v * size_v, 0.03, size_v - 0.08, blur)
    for k in range(2):
        at = table[n, c.STYLE + k]
        if at > 0.0:
            glass *= 1.0 - band((u - at) * size_u, -0.05, 0.05, blur)
    tone = 0.018 + 0.02 * v
    r, g, b = table[n, c.COLOR], table[n, c.COLOR + 1], table[n, c.COLOR + 2]
    return r + (tone - r) * glass, g + (tone * 1.1 - g) * glass, b + (tone * 1.2 - b) * glass, 0.3 + 0.4 * glass


@inner
def _windscreen(table, n, u, v, size_u, size_v, sharp):
    left = table[n, c.OUTLINE] + (table[n, c.OUTLINE + 2] - table[n, c.OUTLINE]) * v
    right = table[n, c.OUTLINE + 1] + (table[n, c.OUTLINE + 3] - table[n, c.OUTLINE + 1]) * v
    glass = step((u - left) * size_u, 0.08, sharp) * step((right - u) * size_u, 0.08, sharp)
    glass *= band(v * size_v, 0.04, size_v - 0.06, sharp)
    seats = 0.0
    for k in range(2):
        du, dv = (u - 0.28 - 0.44 * k) * size_u, (v - 0.3) * size_v
        seats = max(seats, 1.0 - step(math.sqrt(du * du + dv * dv), 0.2, min(sharp, 25.0)))
    tone = 0.022 + 0.03 * v - 0.014 * seats
    r, g, b = table[n, c.COLOR], table[n, c.COLOR + 1], table[n, c.COLOR + 2]
    return r + (tone - r) * glass, g + (tone * 1.08 - g) * glass, b + (tone * 1.15 - b) * glass, 0.3 + 0.4 * glass


@inner
def _car_end(table, n, u, v, size_u, size_v, sharp, front):
    """Front or rear: lights, plate, grille or bumper. u across, v up."""
    x, y = (u - 0.5) * size_u, v * size_v
    value = 0.95 + 0.1 * v
    r, g, b = table[n, c.COLOR] * value, table[n, c.COLOR + 1] * value, table[n, c.COLOR + 2] * value
    bumper = 1.0 - step(y, size_v * 0.16, sharp)
    r, g, b = r + (0.03 - r) * bumper, g + (0.03 - g) * bumper, b + (0.032 - b) * bumper
    gloss = 0.3
    if front:
        grille = band(abs(x), -1.0, size_u * 0.24, sharp) * band(y, size_v * 0.55, size_v * 0.82, sharp)
        slats = y / 0.05 - math.floor(y / 0.05)
        tone = 0.02 + 0.12 * step(slats, 0.6, sharp * 0.05) * min(0.02 * sharp, 1.0)
        r, g, b = r + (tone - r) * grille, g + (tone - g) * grille, b + (tone - b) * grille
        lower = band(abs(x), -1.0, size_u * 0.36, sharp) * band(y, size_v * 0.2, size_v * 0.34, sharp)
        r, g, b = r + (0.02 - r) * lower, g + (0.02 - g) * lower, b + (0.02 - b) * lower
        lamp = band(abs(x), size_u * 0.28, size_u * 0.47, sharp) * band(y, size_v * 0.6, size_v * 0.84, sharp)
        core = 0.55 + 0.35 * step(abs(abs(x) - size_u * 0.38), 0.05, min(sharp, 20.0))
        r, g, b = r + (core - r) * lamp, g + (core - g) * lamp, b + (core - b) * lamp
    else:
        lamp = band(abs(x), size_u * 0.36, size_u * 0.485, sharp) * band(y, size_v * 0.5, size_v * 0.88, sharp)
        glow = table[n, c.STYLE]
        white = band(y, size_v * 0.5, size_v * 0.6, sharp) * lamp
        r, g, b = r + (0.35 + glow - r) * lamp, g + (0.02 - g) * lamp, b + (0.02 - b) * lamp
        r, g, b = r + (0.5 - r) * white, g + (0.45 - g) * white, b + (0.4 - b) * white
        seam = band(y, size_v * 0.42, size_v * 0.42 + 0.02, sharp) * min(0.03 * sharp, 1.0)
        r, g, b = r * (1 - 0.6 * seam), g * (1 - 0.6 * seam), b * (1 - 0.6 * seam)
    plate_y = size_v * (0.26 if front else 0.62)
    plate = band(x, -0.26, 0.26, sharp) * band(y, plate_y, plate_y + 0.11, sharp)
    text = band(abs(x), -1.0, 0.2, sharp) * band(y, plate_y + 0.03, plate_y + 0.08, sharp) * min(0.02 * sharp, 1.0)
    tone = 0.75 - 0.5 * text * (chance(math.floor(x / 0.05), 1, table[n, c.GRAIN]) > 0.3)
    return r + (tone - r) * plate, g + (tone - g) * plate, b + (tone * 0.93 - b) * plate, gloss * (1 - plate)


@inner
def _wheel(table, n, u, v, size_u, sharp):
    x, y = (u - 0.5) * size_u, (v - 0.5) * size_u
    distance = math.sqrt(x * x + y * y) / (0.5 * size_u)
    blur = sharp * (0.5 * size_u)
    rim = 1.0 - step(distance, 0.66, blur)
    spoke = (math.atan2(y, x) / (2 * math.pi)) * 5.0
    spoke = abs(spoke - math.floor(spoke) - 0.5) * 2.0
    bright = max(step(spoke, 0.55, min(blur, 7.0)), 1.0 - step(distance, 0.2, blur))
    bright = max(bright, band(distance, 0.58, 0.66, blur))
    tone = 0.015 + rim * (0.03 + 0.38 * bright)
    return tone, tone, tone * 1.03, 0.1 * rim


@inner
def _van_side(table, n, x, y, size_u, size_v, sharp):
    """Closed panels: seams, a rub strip, a stripe of the second colour."""
    fade = min(0.03 * sharp, 1.0)
    seam = x / (size_u / 3.0) - math.floor(x / (size_u / 3.0))
    value = (0.94 + 0.1 * y / size_v) * (1.0 - 0.5 * (1.0 - step(seam, 0.015, sharp)) * fade)
    stripe = band(y, size_v * table[n, c.STYLE], size_v * (table[n, c.STYLE] + table[n, c.STYLE + 1]), sharp)
    r, g, b = table[n, c.COLOR], table[n, c.COLOR + 1], table[n, c.COLOR + 2]
    r, g, b = (
        r + (table[n, c.COLOR2] - r) * stripe,
        g + (table[n, c.COLOR2 + 1] - g) * stripe,
        b + (table[n, c.COLOR2 + 2] - b) * stripe,
    )
    return r * value, g * value, b * value, 0.25


@inner
def _sign(table, n, u, v, sharp):
    """style 0: 0 round with red rim, 1 square blue, 2 red disc with bar, 3 name plate, 4 traffic light."""
    x, y = abs(u - 0.5) * 2.0, abs(v - 0.5) * 2.0
    radius = math.sqrt(x * x + y * y)
    style = int(table[n, c.STYLE])
    r, g, b = table[n, c.COLOR], table[n, c.COLOR + 1], table[n, c.COLOR + 2]
    if style == 0:
        inner = 1.0 - step(radius, 0.72, 10.0)
        mark = inner * (
            1.0
            if x < 0.35 and y < 0.4 and chance(math.floor(u * 8), math.floor(v * 6), table[n, c.GRAIN]) > 0.4
            else 0.0
        )
        tone = 0.8 * (1 - mark)
    elif style == 1:
        inner = 1.0 if max(x, y) < 0.85 and (x < 0.2 or (y < 0.25 and x < 0.55)) else 0.0
        tone = 0.8
    elif style == 2:
        inner = 1.0 if x < 0.7 and y < 0.18 else 0.0
        tone = 0.8
    elif style == 3:
        inner = 1.0 if y < 0.5 and chance(math.floor(u * 20), 1, table[n, c.GRAIN]) > 0.45 else 0.0
        tone = 0.05
    else:
        lamp = math.floor(v * 3.0)
        dv = (v * 3.0 - lamp - 0.5) * 2.0
        lit = 1.0 if lamp == table[n, c.STYLE + 1] else 0.12
        if x * x * 0.8 + dv * dv < 0.5:
            r, g, b = 0.06, 0.06, 0.06
            if lamp == 2.0:
                r = lit
            elif lamp == 1.0:
                r, g = lit, 0.5 * lit
            else:
                g, b = 0.8 * lit, 0.4 * lit
        return r, g, b, 0.0
    return r + (tone - r) * inner, g + (tone - g) * inner, b + (tone - b) * inner, 0.0


@inner
def _head(table, n, u, v, w):
    """A ball: hair above and behind, face in front (w towards the front)."""
    if v < -0.25 - 0.35 * w or w < -0.45:
        return table[n, c.COLOR2], table[n, c.COLOR2 + 1], table[n, c.COLOR2 + 2], 0.0
    shade = 1.0 - 0.5 * ((abs(abs(u) - 0.35) < 0.12) and -0.15 < v < 0.05)
    return table[n, c.COLOR] * shade, table[n, c.COLOR + 1] * shade, table[n, c.COLOR + 2] * shade, 0.0


@leaf
def albedo(table, n, material, u, v, w, size_u, size_v, sharp, lod, tiles):
    """(red, green, blue, gloss) of a surface point: linear reflectances in [0, 1]."""
    x, y = u * size_u, v * size_v
    if material == c.ROAD:
        return _road(table, n, x, y, sharp, lod, tiles)
    if material == c.FACADE:
        return _facade(table, n, x, y, size_u, size_v, sharp, lod, tiles)
    if material == c.FOLIAGE:
        return _foliage(table, n, int(table[n, c.KIND]), u, v, w, size_u, size_v, sharp, lod, tiles)
    if material == c.PAVEMENT:
        return _pavement(table, n, x, y, sharp, lod, tiles)
    if material == c.GRASS:
        return _grass(table, n, x, y, sharp, lod, tiles)
    if material == c.ROOF:
        return _roof(table, n, x, y, sharp, lod, tiles)
    if material == c.CAR_BODY:
        return _car_body(table, n, x, y, size_u, size_v, sharp)
    if material == c.CAR_CABIN:
        return _car_cabin(table, n, u, v, size_u, size_v, sharp)
    if material == c.WINDSCREEN:
        return _windscreen(table, n, u, v, size_u, size_v, sharp)
    if material == c.CAR_FRONT or material == c.CAR_REAR:
        return _car_end(table, n, u, v, size_u, size_v, sharp, material == c.CAR_FRONT)
    if material == c.WHEEL:
        return _wheel(table, n, u, v, size_u, sharp)
    if material == c.VAN_SIDE:
        return _van_side(table, n, x, y, size_u, size_v, sharp)
    if material == c.SIGN:
        return _sign(table, n, u, v, sharp)
    if material == c.HEAD:
        return _head(table, n, u, v, w)
    gloss = 0.35 if material == c.PAINT else 0.0
    strength = 0.12 if material == c.PAINT else 0.5
    if material == c.BARK:
        value = 1.0 + 0.9 * (noise(tiles, 1, x * 90.0 + table[n, c.GRAIN], y * 20.0, lod + 5.64) - 0.5)
    elif material == c.HILLS:
        value = 1.0 + 0.5 * (noise(tiles, 2, x * 4.0 + table[n, c.GRAIN], y * 4.0, lod + 2.00) - 0.5)
        value *= 1.0 + 0.5 * (noise(tiles, 0, x * 1.5 + table[n, c.GRAIN], y * 1.5, lod + 0.58) - 0.5)
    elif material == c.CLOTH:
        value = 1.0 + 0.5 * (noise(tiles, 0, x * 90.0 + table[n, c.GRAIN], y * 90.0 + w * 40.0, lod + 6.49) - 0.5)
    else:
        value = _stained(tiles, x, y, table[n, c.GRAIN], lod, strength, strength)
    return table[n, c.COLOR] * value, table[n, c.COLOR + 1] * value, table[n, c.COLOR + 2] * value, gloss
