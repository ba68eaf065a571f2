"""Dense CRF on arrays, usable alone: class probabilities that follow the image's edges.

`dense_crf(image, probabilities, settings, device)` is fully connected mean field inference (Kraehenbuehl and Koltun
2011) on a permutohedral lattice (Adams, Baek and Davis 2010): compiled loops on the CPU, torch on any other device.
"""

from __future__ import annotations

from cupola.semantics.crf.mean_field import dense_crf
from cupola.semantics.crf.settings import CrfSettings

__all__ = ["CrfSettings", "dense_crf"]
