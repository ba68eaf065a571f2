"""The dense CRF in whole-tensor operations, for devices that torch knows.

The same lattice as in `permutohedral/` with sorting in place of hashing. Sums are taken bag by bag (`embedding_bag`),
each in a fixed order, so that a device repeats its own result bit for bit. Both kernels are lattices here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.nn import functional

from cupola.errors import ConfigError
from cupola.semantics.crf.permutohedral.lattice import TINY, axis_scales, packing
from cupola.semantics.crf.settings import CrfSettings


@dataclass(frozen=True)
class TorchLattice:
    """A normalised, weighted kernel. corners, weights: of each pixel; givers, bags, shares: the same sorted by vertex
    (pixel, start of each vertex, weight); neighbours: before and after each vertex along each axis, the number of
    vertices where there is none."""

    corners: Int64[Tensor, "n corners"]
    weights: Float[Tensor, "n corners"]
    givers: Int64[Tensor, "entries"]
    bags: Int64[Tensor, "m"]
    shares: Float[Tensor, "entries"]
    neighbours: Int64[Tensor, "corners 2 m"]

    def answer(self, values: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        """Give, blur, take."""
        vertices = functional.embedding_bag(self.givers, values, self.bags, mode="sum", per_sample_weights=self.shares)
        for before, after in self.neighbours:
            padded = functional.pad(vertices, (0, 0, 0, 1))
            vertices = vertices + 0.5 * (padded[before] + padded[after])
        return functional.embedding_bag(self.corners, vertices, mode="sum", per_sample_weights=self.weights)


def named_device(name: str) -> torch.device:
    """The device of that name; raises `ConfigError` where there is none."""
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"The CRF can't use the device {name!r}: torch does not know or find it.") from error
    return device


def torch_crf(
    image: UInt8[np.ndarray, "h w 3"],
    probabilities: np.ndarray,
    settings: CrfSettings,
    device: torch.device,
) -> np.ndarray:
    """`dense_crf` on a torch device; equal to the CPU's up to float32 rounding."""
    classes, height, width = probabilities.shape
    y, x = (axis.ravel().astype(np.float32) for axis in np.indices((height, width)))
    near = np.stack([x, y], axis=1)
    colours = image.reshape(-1, 3).astype(np.float32) / np.float32(settings.colour_sigma)
    bilateral = np.concatenate([near / np.float32(settings.bilateral_sigma), colours], axis=1)
    kernels = (
        torch_lattice(bilateral, settings.bilateral_weight, device),
        torch_lattice(near / np.float32(settings.spatial_sigma), settings.spatial_weight, device),
    )
    flat = torch.from_numpy(np.ascontiguousarray(probabilities.reshape(classes, -1).T)).to(device)
    logs = flat.clamp(settings.smallest_probability, 1).log()
    field = logs.softmax(dim=1)
    for _ in range(settings.steps):
        field = (logs + kernels[0].answer(field) + kernels[1].answer(field)).softmax(dim=1)
    return np.ascontiguousarray(field.cpu().numpy().T).reshape(classes, height, width)


def torch_lattice(features: np.ndarray, weight: float, device: torch.device) -> TorchLattice:
    """`build_lattice` by sorting. features: float32 n d, >= 0."""
    d = features.shape[1]
    low, strides = (torch.from_numpy(part).to(device) for part in packing(features.T))
    scale = torch.from_numpy(axis_scales(d)).to(device)
    cell, rank, weights = simplices(torch.from_numpy(features).to(device), scale)
    corner = torch.arange(d + 1, device=device)
    lowered = rank[:, None, :d] > d - corner[:, None]
    keys = corner + (d + 1) * ((cell[:, None, :d] - lowered.long() - low) * strides).sum(dim=2)
    distinct, vertices = keys.unique(sorted=True, return_inverse=True)
    by_vertex = vertices.ravel().argsort(stable=True)
    counts = torch.bincount(vertices.ravel(), minlength=len(distinct))
    own = (d + 1) * torch.cat([strides, strides.new_zeros(1)])
    carries = distinct % (d + 1) == d
    after = torch.stack([found(distinct, distinct + torch.where(carries, own.sum() - o - d, 1 - o)) for o in own])
    before = torch.stack([inverse(line) for line in after])
    plain = TorchLattice(
        vertices, weights, by_vertex // (d + 1), counts.cumsum(0) - counts, weights.ravel()[by_vertex],
        torch.stack([before, after], dim=1),
    )  # fmt: skip
    alpha = 1 / (1 + 2.0**-d)
    answer = alpha * plain.answer(weights.new_ones(len(features), 1))
    normal = weights * (weight * alpha) ** 0.5 / torch.sqrt(answer + float(TINY))
    return TorchLattice(vertices, normal, plain.givers, plain.bags, normal.ravel()[by_vertex], plain.neighbours)


def simplices(
    features: Float[Tensor, "n d"], scale: Float[Tensor, "d"]
) -> tuple[Int64[Tensor, "n corners"], Int64[Tensor, "n corners"], Float[Tensor, "n corners"]]:
    """Cell, rank and barycentric weights of each point, as `permutohedral.kernels.embed` finds them."""
    d = features.shape[1]
    scaled = features * scale
    running, position = torch.zeros_like(scaled[:, 0]), []
    for j in range(d, 0, -1):
        position.append(running - j * scaled[:, j - 1])
        running = running + scaled[:, j - 1]
    points = torch.stack([running, *position[::-1]], dim=1)
    inverse_size = float(np.float32(1) / np.float32(d + 1))
    cell = torch.round(points * inverse_size)
    left = points - cell * (d + 1)
    less = left[:, :, None] < left[:, None, :]
    later = torch.ones(d + 1, d + 1, dtype=torch.bool, device=features.device).triu(1)
    # A pair i < j raises i where i's difference is smaller, and otherwise j.
    rank = (less & later).sum(dim=2) + (~less & later).sum(dim=1) + cell.sum(dim=1, keepdim=True).long()
    shift = (rank < 0).long() - (rank > d).long()
    cell, rank = cell.long() + shift, rank + (d + 1) * shift
    difference = (points - (cell * (d + 1)).to(points.dtype)) / (d + 1)
    by_rank = torch.zeros_like(difference).scatter(1, rank, difference).flip(1)  # at place d - rank; ranks differ
    weights = by_rank - functional.pad(by_rank, (1, 0))[:, :-1]
    weights[:, 0] += 1 - by_rank[:, d]
    return cell, rank, weights


def found(keys: Int64[Tensor, "m"], wanted: Int64[Tensor, "m"]) -> Int64[Tensor, "m"]:
    """Place of each wanted key among the sorted ones, m where it is not there."""
    place = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
    return torch.where(keys[place] == wanted, place, len(keys))


def inverse(after: Int64[Tensor, "m"]) -> Int64[Tensor, "m"]:
    """The vertex before each, given the one after each; m where there is none."""
    before = torch.full((len(after) + 1,), len(after), device=after.device)
    before[after] = torch.arange(len(after), device=after.device)
    before[len(after)] = len(after)
    return before[:-1]
