"""Shadows of boxes and crowns on the ground, drawn into a grid that shading looks up."""

from __future__ import annotations

import math

from cupola.data.synthetic.compiling import leaf

SUNLIT, OPEN, SUNLIT_BODY = 0, 1, 2
"""Layers: sun on the ground; share of sky it sees; sun past houses and trees only, for what stands on the ground."""


@leaf
def _cells(low, high, start, cell, count):
    """First and one past the last cell that [low, high] touches."""
    return max(int((low - start) / cell), 0), min(int((high - start) / cell) + 2, count)


@leaf
def _slab(at, step, half):
    """Interval of the parameter in [0, 1] during which at + step * parameter lies within +-half; empty: (1, 0)."""
    if abs(step) < 1e-9:
        return (0.0, 1.0) if abs(at) <= half else (1.0, 0.0)
    a, b = (-half - at) / step, (half - at) / step
    return max(min(a, b), 0.0), min(max(a, b), 1.0)


@leaf
def cast_box(grid, frame, box, throw_x, throw_z, sun, contact, reach, body):
    """Darkens the grid by one box.

    frame: world x, z of cell (0, 0) and side of a cell [m]; box: x, z, heading, half length, half width, lower and
    upper end [m]; throw: shift of a shadow on the ground for a metre of height [m]; sun: how much of the sunlight it
    takes; contact: how dark it is beneath and beside it, fading over `reach` [m]; body: shades also what stands on the
    ground.
    """
    x, z, half_l, half_w, base, top = box[0], box[1], box[3], box[4], box[5], box[6]
    k, s = math.cos(box[2]), math.sin(box[2])
    radius = math.hypot(half_l, half_w)
    margin = radius + 3.0 * reach
    low_x, high_x = x - margin + min(throw_x * top, 0.0), x + margin + max(throw_x * top, 0.0)
    low_z, high_z = z - margin + min(throw_z * top, 0.0), z + margin + max(throw_z * top, 0.0)
    i0, i1 = _cells(low_x, high_x, frame[0], frame[2], grid.shape[2])
    j0, j1 = _cells(low_z, high_z, frame[1], frame[2], grid.shape[1])
    # the way of a sunbeam over the box's height, in the box's frame
    step_r = -(k * throw_x - s * throw_z) * (top - base)
    step_f = -(s * throw_x + k * throw_z) * (top - base)
    for j in range(j0, j1):
        for i in range(i0, i1):
            px, pz = frame[0] + i * frame[2] - x, frame[1] + j * frame[2] - z
            right, forward = k * px - s * pz, s * px + k * pz
            out_r, out_f = max(abs(right) - half_w, 0.0), max(abs(forward) - half_l, 0.0)
            distance = math.sqrt(out_r * out_r + out_f * out_f)
            if distance < 3.0 * reach:
                grid[OPEN, j, i] *= 1.0 - contact * math.exp(-distance / reach)
            right -= (k * throw_x - s * throw_z) * base
            forward -= (s * throw_x + k * throw_z) * base
            a0, a1 = _slab(right, step_r, half_w)
            b0, b1 = _slab(forward, step_f, half_l)
            if max(a0, b0) <= min(a1, b1):
                grid[SUNLIT, j, i] = min(grid[SUNLIT, j, i], 1.0 - sun)
                if body:
                    grid[SUNLIT_BODY, j, i] = min(grid[SUNLIT_BODY, j, i], 1.0 - sun)


@leaf
def cast_crown(grid, frame, box, throw_x, throw_z, tiles):
    """Darkens the grid by the crown of a tree: an ellipse with ragged, dappled edges. Arguments as for `cast_box`."""
    radius, base, top = box[3], box[5], box[6]
    middle = 0.5 * (base + top)
    x, z = box[0] + throw_x * middle, box[1] + throw_z * middle
    slope = math.hypot(throw_x, throw_z)
    stretch = math.hypot(1.0, 0.5 * (top - base) * slope / radius)
    ux, uz = throw_x / max(slope, 1e-9), throw_z / max(slope, 1e-9)
    reach = radius * stretch * 1.15
    i0, i1 = _cells(x - reach, x + reach, frame[0], frame[2], grid.shape[2])
    j0, j1 = _cells(z - reach, z + reach, frame[1], frame[2], grid.shape[1])
    for j in range(j0, j1):
        for i in range(i0, i1):
            wx, wz = frame[0] + i * frame[2], frame[1] + j * frame[2]
            along, across = (wx - x) * ux + (wz - z) * uz, (wx - x) * uz - (wz - z) * ux
            distance = math.hypot(along / stretch, across) / radius
            dapple = tiles[0, ((int(wz * 14.0) & 255) << 8) + (int(wx * 14.0) & 255)] / 255.0
            dark = min(max((1.0 - distance + 0.5 * (dapple - 0.5)) * 2.5, 0.0), 0.9) * (0.65 + 0.4 * dapple)
            if dark > 0.0:
                grid[SUNLIT, j, i] = min(grid[SUNLIT, j, i], 1.0 - dark)
                grid[SUNLIT_BODY, j, i] = min(grid[SUNLIT_BODY, j, i], 1.0 - 0.8 * dark)
                grid[OPEN, j, i] *= 1.0 - 0.2 * dark
