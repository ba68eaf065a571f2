"""Compiled loops of the motion room. Plain arrays in, plain arrays out; the slow twins live in tests/motion.

Everywhere: rig = (fx, fy, cx, cy, baseline), motion = 3x4 [R | t] with P(t+1) = R P(t) + t [m], basis = rows of two
ground directions and the ground's normal in camera axes, disparity and flow in pixels, NaN = unknown.
"""

import numpy as np
from numba import njit


@njit(cache=True)
def sample_disparity(disparity, flow):
    """Disparity of the second frame where a pixel of the first goes, float32 h w; NaN where unknown.

    Bilinear, but neighbours further than 1 px from the nearest one's value are left out: no mixing across edges.
    """
    height, width = disparity.shape
    out = np.full((height, width), np.nan, np.float32)
    for y in range(height):
        for x in range(width):
            px, py = x + flow[0, y, x], y + flow[1, y, x]
            if not (0 <= px <= width - 1 and 0 <= py <= height - 1):
                continue
            centre = disparity[int(py + 0.5), int(px + 0.5)]
            if np.isnan(centre):
                continue
            x0, y0 = int(px), int(py)
            total, weight = 0.0, 0.0
            for j in range(2):
                for i in range(2):
                    value = disparity[min(y0 + j, height - 1), min(x0 + i, width - 1)]
                    w = (px - x0 if i else 1 - px + x0) * (py - y0 if j else 1 - py + y0)
                    if not np.isnan(value) and abs(value - centre) < 1:
                        total += w * value
                        weight += w
            out[y, x] = total / weight if weight > 0 else centre
    return out


@njit(cache=True)
def pixel_terms(y, x, flow_x, flow_y, moved, disparity, sigma, sigma_disparity, motion, rig, r, weights, g, jacobian):
    """Residual r(3), inverse variances weights(3), slope g(3) and Jacobian (3x3, camera axes) of one pixel; returns
    False where the prediction lies behind the camera.

    r = measured minus predicted (u', v', d'); g = d(prediction)/d(disparity); Jacobian of a translation after motion.
    """
    fx, fy, cx, cy, baseline = rig[0], rig[1], rig[2], rig[3], rig[4]
    mx, my, rho = (x - cx) / fx, (y - cy) / fy, disparity / (fx * baseline)
    tx, ty, tz = motion[0, 3], motion[1, 3], motion[2, 3]
    qx = motion[0, 0] * mx + motion[0, 1] * my + motion[0, 2] + rho * tx
    qy = motion[1, 0] * mx + motion[1, 1] * my + motion[1, 2] + rho * ty
    qz = motion[2, 0] * mx + motion[2, 1] * my + motion[2, 2] + rho * tz
    if qz < 0.05:
        return False
    px, py = qx / qz, qy / qz
    r[0] = x + flow_x - (fx * px + cx)
    r[1] = y + flow_y - (fy * py + cy)
    weights[0] = weights[1] = 1 / (sigma * sigma)
    g[0] = (tx - px * tz) / (qz * baseline)
    g[1] = (ty - py * tz) / (qz * baseline) * fy / fx
    if np.isnan(moved):
        r[2], weights[2] = 0.0, 0.0
    else:
        r[2] = moved - disparity / qz
        weights[2] = 1 / (sigma_disparity * sigma_disparity)
    g[2] = (qz - rho * tz) / (qz * qz)
    jacobian[0, 0], jacobian[0, 1], jacobian[0, 2] = fx * rho / qz, 0.0, -fx * rho / qz * px
    jacobian[1, 0], jacobian[1, 1], jacobian[1, 2] = 0.0, fy * rho / qz, -fy * rho / qz * py
    jacobian[2, 0], jacobian[2, 1], jacobian[2, 2] = 0.0, 0.0, -disparity * rho / (qz * qz)
    return True


@njit(cache=True)
def whitened(r, weights, g, sigma_disparity, out):
    """out = S^-1 r with S = diag(1/weights) + s^2 g g^T (Sherman-Morrison); returns r^T S^-1 r."""
    along, size = 0.0, 1 / (sigma_disparity * sigma_disparity)
    for i in range(3):
        along += weights[i] * g[i] * r[i]
        size += weights[i] * g[i] * g[i]
    total = 0.0
    for i in range(3):
        out[i] = weights[i] * (r[i] - g[i] * along / size)
        total += out[i] * r[i]
    return total


@njit(cache=True)
def chi2_map(flow, moved, disparity, sigma, sigma_disparity, motion, rig, box):
    """r^T S^-1 r of every pixel in box = (y0, y1, x0, x1) under one motion, float32; NaN where anything is unknown."""
    y0, y1, x0, x1 = box
    out = np.full((y1 - y0, x1 - x0), np.nan, np.float32)
    r, weights, g, jacobian, white = np.zeros(3), np.zeros(3), np.zeros(3), np.zeros((3, 3)), np.zeros(3)
    for y in range(y0, y1):
        for x in range(x0, x1):
            if np.isnan(flow[0, y, x]) or np.isnan(disparity[y, x]):
                continue
            if pixel_terms(
                y, x, flow[0, y, x], flow[1, y, x], moved[y, x], disparity[y, x], sigma[y, x], sigma_disparity,
                motion, rig, r, weights, g, jacobian,
            ):  # fmt: skip
                out[y - y0, x - x0] = whitened(r, weights, g, sigma_disparity, white)
    return out


@njit(cache=True)
def normal_equations(ys, xs, flow, moved, disparity, sigma, sigma_disparity, motion, rig, basis, scale):
    """A (3x3), b (3), cost of a translation in `basis` after `motion`, over the listed pixels.

    scale: c^2 of Geman-McClure weights (c^2 / (c^2 + chi^2))^2, 0 = plain squares. The cost is the sum of
    c^2 chi^2 / (c^2 + chi^2) (or of chi^2).
    """
    normal, right, cost = np.zeros((3, 3)), np.zeros(3), 0.0
    r, weights, g, jacobian = np.zeros(3), np.zeros(3), np.zeros(3), np.zeros((3, 3))
    white, column, turned = np.zeros(3), np.zeros(3), np.zeros((3, 3))
    for k in range(len(ys)):
        y, x = ys[k], xs[k]
        if np.isnan(flow[0, y, x]) or np.isnan(disparity[y, x]):
            continue
        if not pixel_terms(
            y, x, flow[0, y, x], flow[1, y, x], moved[y, x], disparity[y, x], sigma[y, x], sigma_disparity,
            motion, rig, r, weights, g, jacobian,
        ):  # fmt: skip
            continue
        chi2 = whitened(r, weights, g, sigma_disparity, white)
        weight = (scale / (scale + chi2)) ** 2 if scale > 0 else 1.0
        cost += scale * chi2 / (scale + chi2) if scale > 0 else chi2
        for i in range(3):
            for j in range(3):
                turned[i, j] = (
                    jacobian[i, 0] * basis[j, 0] + jacobian[i, 1] * basis[j, 1] + jacobian[i, 2] * basis[j, 2]
                )
        for j in range(3):
            right[j] += weight * (turned[0, j] * white[0] + turned[1, j] * white[1] + turned[2, j] * white[2])
        for j in range(3):
            whitened(turned[:, j], weights, g, sigma_disparity, column)
            for i in range(3):
                normal[i, j] += weight * (
                    turned[0, i] * column[0] + turned[1, i] * column[1] + turned[2, i] * column[2]
                )
    return normal, right, cost


@njit(cache=True)
def cell_sums(flow, moved, disparity, sigma, usable, sigma_disparity, motion, rig, basis, side):
    """Sums over cells of side x side pixels, float64 rows columns 12.

    0-5: A (00 01 11 02 12 22) of a translation in `basis`; 6-8: b; 9: chi^2 of the static prediction; 10: number of
    pixels; 11: sum of their disparities. Only pixels that are `usable` count.
    """
    height, width = disparity.shape
    sums = np.zeros((-(-height // side), -(-width // side), 12))
    r, weights, g, jacobian = np.zeros(3), np.zeros(3), np.zeros(3), np.zeros((3, 3))
    white, column, turned = np.zeros(3), np.zeros(3), np.zeros((3, 3))
    for y in range(height):
        for x in range(width):
            if not usable[y, x]:
                continue
            if not pixel_terms(
                y, x, flow[0, y, x], flow[1, y, x], moved[y, x], disparity[y, x], sigma[y, x], sigma_disparity,
                motion, rig, r, weights, g, jacobian,
            ):  # fmt: skip
                continue
            cell = sums[y // side, x // side]
            chi2 = whitened(r, weights, g, sigma_disparity, white)
            for i in range(3):
                for j in range(3):
                    turned[i, j] = (
                        jacobian[i, 0] * basis[j, 0] + jacobian[i, 1] * basis[j, 1] + jacobian[i, 2] * basis[j, 2]
                    )
            at = 0
            for j in range(3):
                whitened(turned[:, j], weights, g, sigma_disparity, column)
                for i in range(j + 1):
                    # upper triangle, column by column: 00, 01, 11, 02, 12, 22
                    cell[at] += turned[0, i] * column[0] + turned[1, i] * column[1] + turned[2, i] * column[2]
                    at += 1
            for j in range(3):
                cell[6 + j] += turned[0, j] * white[0] + turned[1, j] * white[1] + turned[2, j] * white[2]
            cell[9] += chi2
            cell[10] += 1
            cell[11] += disparity[y, x]
    return sums


@njit(cache=True)
def window_sums(sums, radius, depth_scale, near_metres, near_pixels):
    """Adds to every cell the cells of (2 radius + 1)^2 around it whose depth is alike.

    Alike: depths differ by at most near_metres, or mean disparities by at most near_pixels; depth_scale = fx baseline.
    """
    rows, columns, fields = sums.shape
    out = np.zeros_like(sums)
    for y in range(rows):
        for x in range(columns):
            if sums[y, x, 10] == 0:
                continue
            d = sums[y, x, 11] / sums[y, x, 10]
            for j in range(max(0, y - radius), min(rows, y + radius + 1)):
                for i in range(max(0, x - radius), min(columns, x + radius + 1)):
                    if sums[j, i, 10] == 0:
                        continue
                    other = sums[j, i, 11] / sums[j, i, 10]
                    if abs(other - d) <= near_pixels or abs(depth_scale / other - depth_scale / d) <= near_metres:
                        for k in range(fields):
                            out[y, x, k] += sums[j, i, k]
    return out


@njit(cache=True)
def link_cells(significance, seed, grow, velocity, disparity, reach, depth_scale, near_metres, near_pixels, alike):
    """Clusters of cells, int32 rows columns (0 = none): flood from cells >= seed through cells >= grow.

    Two cells within `reach` are linked when their depths differ by at most near_metres or near_pixels of disparity and
    their velocities (rows columns 2) by at most `alike` of the larger.
    """
    rows, columns = significance.shape
    labels = np.zeros((rows, columns), np.int32)
    stack = np.empty((rows * columns, 2), np.int32)
    count = 0
    for y0 in range(rows):
        for x0 in range(columns):
            if labels[y0, x0] or not significance[y0, x0] >= seed:
                continue
            count += 1
            labels[y0, x0] = count
            stack[0, 0], stack[0, 1] = y0, x0
            size = 1
            while size:
                size -= 1
                y, x = stack[size, 0], stack[size, 1]
                d, u, v = disparity[y, x], velocity[y, x, 0], velocity[y, x, 1]
                for j in range(max(0, y - reach), min(rows, y + reach + 1)):
                    for i in range(max(0, x - reach), min(columns, x + reach + 1)):
                        if labels[j, i] or not significance[j, i] >= grow:
                            continue
                        other = disparity[j, i]
                        if not (
                            abs(other - d) <= near_pixels or abs(depth_scale / other - depth_scale / d) <= near_metres
                        ):
                            continue
                        du, dv = velocity[j, i, 0] - u, velocity[j, i, 1] - v
                        most = max(u * u + v * v, velocity[j, i, 0] ** 2 + velocity[j, i, 1] ** 2)
                        if du * du + dv * dv > alike * alike * most:
                            continue
                        labels[j, i] = count
                        stack[size, 0], stack[size, 1] = j, i
                        size += 1
    return labels


@njit(cache=True)
def depth_segments(mask, disparity, step, share):
    """Connected pixels (4 neighbours) of the mask whose disparities differ by at most step + share * disparity, int32
    h w, 0 = none, numbered row by row; and the number of segments."""
    height, width = mask.shape
    labels = np.zeros((height, width), np.int32)
    stack = np.empty((height * width, 2), np.int32)
    count = 0
    for y0 in range(height):
        for x0 in range(width):
            if labels[y0, x0] or not mask[y0, x0]:
                continue
            count += 1
            labels[y0, x0] = count
            stack[0, 0], stack[0, 1] = y0, x0
            size = 1
            while size:
                size -= 1
                y, x = stack[size, 0], stack[size, 1]
                d = disparity[y, x]
                for k in range(4):
                    j, i = y + (k == 0) - (k == 1), x + (k == 2) - (k == 3)
                    if j < 0 or i < 0 or j >= height or i >= width or labels[j, i] or not mask[j, i]:
                        continue
                    if abs(disparity[j, i] - d) <= step + share * d:
                        labels[j, i] = count
                        stack[size, 0], stack[size, 1] = j, i
                        size += 1
    return labels, count


@njit(cache=True)
def search_costs(ys, xs, first, second, disparity, disparity_next, motion, rig, shifts, cap, disagreement):
    """Mean cost of the listed pixels under each of the translations shifts (k x 3, camera axes, after `motion`).

    Cost of a pixel: min(|first - second|, cap) at the nearest pixel it goes to, plus min(|d - d_next| / 1.5, 1) *
    disagreement, half of that where d_next is unknown, all of both outside the image.
    """
    fx, fy, cx, cy, baseline = rig[0], rig[1], rig[2], rig[3], rig[4]
    height, width = first.shape
    count = len(ys)
    base, rho, own = np.empty((count, 3)), np.empty(count), np.empty(count, np.float32)
    for k in range(count):
        mx, my = (xs[k] - cx) / fx, (ys[k] - cy) / fy
        d = disparity[ys[k], xs[k]]
        rho[k] = d / (fx * baseline)
        own[k] = first[ys[k], xs[k]]
        for i in range(3):
            base[k, i] = motion[i, 0] * mx + motion[i, 1] * my + motion[i, 2] + rho[k] * motion[i, 3]
    costs = np.empty(len(shifts))
    for s in range(len(shifts)):
        total = 0.0
        for k in range(count):
            z = base[k, 2] + rho[k] * shifts[s, 2]
            if z < 0.1:
                total += cap + disagreement
                continue
            px = int(np.floor(fx * (base[k, 0] + rho[k] * shifts[s, 0]) / z + cx + 0.5))
            py = int(np.floor(fy * (base[k, 1] + rho[k] * shifts[s, 1]) / z + cy + 0.5))
            if px < 0 or py < 0 or px >= width or py >= height:
                total += cap + disagreement
                continue
            total += min(abs(own[k] - second[py, px]), cap)
            other = disparity_next[py, px]
            if np.isnan(other):
                total += 0.5 * disagreement
            else:
                total += min(abs(other - rho[k] * fx * baseline / z) / 1.5, 1.0) * disagreement
        costs[s] = total / count
    return costs
