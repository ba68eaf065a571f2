"""Compiled loops of the ego-motion. Plain arrays in, plain arrays out; sums run in a fixed order on one thread.

Points: rays (n 3), rho (n) inverse depth, target (n 2) measured position, variance (n) of the target on an axis, and
one variance of rho for all. A motion (rotation, translation) predicts q = R ray + rho t, seen at q.xy / q.z.
"""

import numpy as np
from numba import njit

LEAST_DEPTH = 1e-6


@njit(cache=True)
def rotation_of(vector):
    """Rotation matrix of a rotation vector (Rodrigues)."""
    angle = np.sqrt(vector[0] ** 2 + vector[1] ** 2 + vector[2] ** 2)
    first, second = 1.0, 0.5
    if angle > 1e-8:
        first, second = np.sin(angle) / angle, (1 - np.cos(angle)) / angle**2
    x, y, z = vector[0], vector[1], vector[2]
    out = np.empty((3, 3))
    out[0, 0], out[0, 1], out[0, 2] = (
        1 - second * (y * y + z * z),
        second * x * y - first * z,
        second * x * z + first * y,
    )
    out[1, 0], out[1, 1], out[1, 2] = (
        second * x * y + first * z,
        1 - second * (x * x + z * z),
        second * y * z - first * x,
    )
    out[2, 0], out[2, 1], out[2, 2] = (
        second * x * z - first * y,
        second * y * z + first * x,
        1 - second * (x * x + y * y),
    )
    return out


@njit(cache=True)
def apply_step(rotation, translation, change):
    """The motion after the left perturbation (rotation vector, translation)."""
    turn = rotation_of(change[:3])
    new_rotation, new_translation = np.zeros((3, 3)), np.empty(3)
    for i in range(3):
        new_translation[i] = change[3 + i]
        for j in range(3):
            new_translation[i] += turn[i, j] * translation[j]
            for k in range(3):
                new_rotation[i, k] += turn[i, j] * rotation[j, k]
    return new_rotation, new_translation


@njit(cache=True)
def point_chi2(rays, rho, target, variance, rho_variance, rotation, translation):
    """r^T S^-1 r of every point, S = variance I + rho_variance g g^T (Sherman-Morrison)."""
    out = np.empty(len(rho))
    for k in range(len(rho)):
        qx, qy, qz = translation[0] * rho[k], translation[1] * rho[k], translation[2] * rho[k]
        for j in range(3):
            qx += rotation[0, j] * rays[k, j]
            qy += rotation[1, j] * rays[k, j]
            qz += rotation[2, j] * rays[k, j]
        qz = max(qz, LEAST_DEPTH)
        px, py = qx / qz, qy / qz
        rx, ry = target[k, 0] - px, target[k, 1] - py
        gx, gy = (translation[0] - px * translation[2]) / qz, (translation[1] - py * translation[2]) / qz
        gain = rho_variance / (variance[k] + rho_variance * (gx * gx + gy * gy))
        out[k] = (rx * rx + ry * ry - gain * (gx * rx + gy * ry) ** 2) / variance[k]
    return out


@njit(cache=True)
def normal_equations(rays, rho, target, variance, rho_variance, terms, rotation, translation, geman):
    """Normal matrix, right side and sum of weights for (rotation vector, translation, terms).

    terms: n k, change of rho with each of k further unknowns (k may be 0). geman: c^2 of the Geman-McClure weights
    (c^2 / (c^2 + chi^2))^2, 0 = plain squares.
    """
    more = terms.shape[1]
    size = 6 + more
    normal, right, weights = np.zeros((size, size)), np.zeros(size), 0.0
    jx, jy, js = np.zeros(size), np.zeros(size), np.zeros(size)
    for k in range(len(rho)):
        qx, qy, qz = translation[0] * rho[k], translation[1] * rho[k], translation[2] * rho[k]
        for j in range(3):
            qx += rotation[0, j] * rays[k, j]
            qy += rotation[1, j] * rays[k, j]
            qz += rotation[2, j] * rays[k, j]
        qz = max(qz, LEAST_DEPTH)
        x, y, near = qx / qz, qy / qz, rho[k] / qz
        rx, ry = target[k, 0] - x, target[k, 1] - y
        gx, gy = (translation[0] - x * translation[2]) / qz, (translation[1] - y * translation[2]) / qz
        gain = rho_variance / (variance[k] + rho_variance * (gx * gx + gy * gy))
        along = gx * rx + gy * ry
        weight = 1 / variance[k]
        if geman > 0:
            chi2 = (rx * rx + ry * ry - gain * along * along) / variance[k]
            weight *= (geman / (geman + chi2)) ** 2
        weights += weight
        jx[0], jx[1], jx[2], jx[3], jx[4], jx[5] = -x * y, 1 + x * x, -y, near, 0.0, -x * near
        jy[0], jy[1], jy[2], jy[3], jy[4], jy[5] = -1 - y * y, x * y, x, 0.0, near, -y * near
        for i in range(more):
            jx[6 + i], jy[6 + i] = gx * terms[k, i], gy * terms[k, i]
        for i in range(size):
            js[i] = gx * jx[i] + gy * jy[i]
        for i in range(size):
            right[i] += weight * (jx[i] * rx + jy[i] * ry - gain * along * js[i])
            for j in range(i + 1):
                normal[i, j] += weight * (jx[i] * jx[j] + jy[i] * jy[j] - gain * js[i] * js[j])
    for i in range(size):
        for j in range(i):
            normal[j, i] = normal[i, j]
    return normal, right, weights


@njit(cache=True)
def drawn_motions(rays, rho, target, variance, rho_variance, draws, steps, ridge, limit):
    """Motions that fit the drawn points (m k indices) after so many Gauss-Newton steps from standing still.

    ridge: relative damping; limit: largest translation on an axis [m]. Returns rotations m 3 3, translations m 3.
    """
    rotations, translations = np.empty((len(draws), 3, 3)), np.empty((len(draws), 3))
    terms = np.zeros((draws.shape[1], 0))
    for m in range(len(draws)):
        rotation, translation = np.eye(3), np.zeros(3)
        index = draws[m]
        mine = rays[index], rho[index], target[index], variance[index]
        for _ in range(steps):
            normal, right, _ = normal_equations(
                mine[0], mine[1], mine[2], mine[3], rho_variance, terms, rotation, translation, 0.0
            )
            damping = ridge * np.trace(normal) + 1e-12
            for i in range(6):
                normal[i, i] += damping
            rotation, translation = apply_step(rotation, translation, np.linalg.solve(normal, right))
            translation = np.minimum(np.maximum(translation, -limit), limit)
        rotations[m], translations[m] = rotation, translation
    return rotations, translations
