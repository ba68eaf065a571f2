"""Permutohedral lattice: a Gaussian filter in any number of dimensions."""

from __future__ import annotations

from cupola.semantics.crf.permutohedral.lattice import Corners, Lattice, build_lattice

__all__ = ["Corners", "Lattice", "build_lattice"]
