"""Truth in one image of ids: class and instance in one number (spec-network 6.1).

Cityscapes packs class * 1000 + n for instance n of a thing and the bare class id for stuff and for crowds; the KITTI
benchmarks pack class * 256 + n. Classes are Cityscapes label ids in both.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Integer

from cupola.data.resizing import resize_ids
from cupola.io import read_ids
from cupola.taxonomy import Taxonomy
from cupola.types import VOID, PanopticMap

INSTANCE_BASE = 1000
"""An instance id is label id * 1000 + n, whatever the files hold (Cityscapes)."""


def decode_truth(ids: Integer[np.ndarray, "h w"], taxonomy: Taxonomy, base: int = INSTANCE_BASE) -> PanopticMap:
    """Ids as stored -> classes of `taxonomy` and instance ids label id * 1000 + n.

    Classes the taxonomy lacks are `VOID`. Instance 0: stuff, and things without an instance (crowds).
    """
    label = np.where(ids >= base, ids // base, ids)
    number = np.where(ids >= base, ids % base, 0)
    known = (label >= 0) & (label < 256)
    classes = np.where(known, taxonomy.from_label_ids()[np.where(known, label, 0)], VOID).astype(np.int16)
    is_thing = np.append(np.array(taxonomy.is_thing, bool), False)  # the last entry answers for VOID = -1
    # Cityscapes counts instances from 0 (26000 is the first car), KITTI from 1 (26 * 256 is a car without instance)
    has_instance = (ids >= base) & ((number > 0) | (base == INSTANCE_BASE)) & is_thing[classes]
    instances = np.where(has_instance, label * INSTANCE_BASE + number, 0).astype(np.int32)
    return PanopticMap(classes, instances)


def read_truth(path: Path, taxonomy: Taxonomy, base: int = INSTANCE_BASE, scale: float = 1.0) -> PanopticMap:
    """Reads and decodes an image of ids, resized by `scale` to the nearest pixel. Raises `ImageError`."""
    return decode_truth(resize_ids(read_ids(path), scale), taxonomy, base)
