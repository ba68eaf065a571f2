"""How the kernels are compiled: cached, without the interpreter lock, IEEE arithmetic (no fast math: the same pixels
everywhere)."""

from __future__ import annotations

from numba import njit

compiled = njit(cache=True, nogil=True, error_model="numpy")
"""For functions that make arrays."""

leaf = njit(cache=True, nogil=True, error_model="numpy", _nrt=False)  # type: ignore[call-overload]
"""For functions that make none: without reference counting, whose atomic operations at each call took two thirds of the
time of shading."""

inner = njit(cache=True, nogil=True, error_model="numpy", _nrt=False, forceinline=True)  # type: ignore[call-overload]
"""For the smallest of these, called several times a pixel."""
