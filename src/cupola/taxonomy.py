"""Class systems: Cityscapes label ids and what evaluates against them (spec-network 4.4, 6.1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int16

from cupola.types import VOID


@dataclass(frozen=True)
class Taxonomy:
    """Classes 0..n-1 with names, colours (RGB, 0..255) and which of them are things."""

    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    is_thing: tuple[bool, ...]
    label_ids: tuple[int, ...]
    """Cityscapes label id of each class."""

    def __len__(self) -> int:
        return len(self.names)

    def from_label_ids(self) -> Int16[np.ndarray, "256"]:
        """Table: Cityscapes label id (0..255) -> class of this taxonomy, `VOID` where it has none."""
        table = np.full(256, VOID, np.int16)
        table[list(self.label_ids)] = np.arange(len(self), dtype=np.int16)
        return table


# id, name, colour, in the 19-class system?; from id 24 on: things
_CITYSCAPES = (
    (7, "road", (128, 64, 128), True),
    (8, "sidewalk", (244, 35, 232), True),
    (9, "parking", (250, 170, 160), False),
    (10, "rail track", (230, 150, 140), False),
    (11, "building", (70, 70, 70), True),
    (12, "wall", (102, 102, 156), True),
    (13, "fence", (190, 153, 153), True),
    (14, "guard rail", (180, 165, 180), False),
    (15, "bridge", (150, 100, 100), False),
    (16, "tunnel", (150, 120, 90), False),
    (17, "pole", (153, 153, 153), True),
    (18, "polegroup", (153, 153, 153), False),
    (19, "traffic light", (250, 170, 30), True),
    (20, "traffic sign", (220, 220, 0), True),
    (21, "vegetation", (107, 142, 35), True),
    (22, "terrain", (152, 251, 152), True),
    (23, "sky", (70, 130, 180), True),
    (24, "person", (220, 20, 60), True),
    (25, "rider", (255, 0, 0), True),
    (26, "car", (0, 0, 142), True),
    (27, "truck", (0, 0, 70), True),
    (28, "bus", (0, 60, 100), True),
    (29, "caravan", (0, 0, 90), False),
    (30, "trailer", (0, 0, 110), False),
    (31, "train", (0, 80, 100), True),
    (32, "motorcycle", (0, 0, 230), True),
    (33, "bicycle", (119, 11, 32), True),
)
_FIRST_THING_ID = 24


def _cityscapes(rows: tuple[tuple[int, str, tuple[int, int, int], bool], ...]) -> Taxonomy:
    return Taxonomy(
        names=tuple(name for _, name, _, _ in rows),
        colors=tuple(color for _, _, color, _ in rows),
        is_thing=tuple(label_id >= _FIRST_THING_ID for label_id, _, _, _ in rows),
        label_ids=tuple(label_id for label_id, _, _, _ in rows),
    )


CITYSCAPES_27 = _cityscapes(_CITYSCAPES)
CITYSCAPES_19 = _cityscapes(tuple(row for row in _CITYSCAPES if row[3]))
