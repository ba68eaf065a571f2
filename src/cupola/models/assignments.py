"""What the pseudo classes of a published network were found to mean: data, made by comparing with truth.

An assignment contains knowledge of the ground truth. It serves to name and to evaluate what a network says, and goes
nowhere near training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cupola.taxonomy import CITYSCAPES_19


@dataclass(frozen=True)
class Assignment:
    """Pseudo class -> class of Cityscapes' 19.

    name: of the assignment; train_ids: of each pseudo class in the standard order (stuff, then things; spec-network
    1.12); stuff: how many of them are stuff; unused: pseudo classes that the network never says.
    """

    name: str
    train_ids: tuple[int, ...]
    stuff: int
    unused: tuple[int, ...]

    @property
    def things(self) -> int:
        """How many pseudo classes are things."""
        return len(self.train_ids) - self.stuff

    def class_names(self) -> dict[str, str]:
        """Pseudo class id (as text, for JSON) -> name; without those that never occur."""
        return {
            str(pseudo): CITYSCAPES_19.names[train_id]
            for pseudo, train_id in enumerate(self.train_ids)
            if pseudo not in self.unused
        }

    def card(self) -> dict[str, Any]:
        """What a network's card says of it."""
        return {
            "name": self.name,
            "train_ids": list(self.train_ids),
            "unused": list(self.unused),
            "note": "found by comparing predictions with ground truth; for naming and evaluating, never for training",
        }


CITYSCAPES19 = Assignment(
    "cityscapes19",
    train_ids=(7, 4, 2, 4, 2, 6, 2, 0, 5, 8, 0, 2, 9, 10, 3, 8, 1, 2, 0, 0, 0, 0, 11, 13, 18, 15, 14),
    stuff=22,
    unused=(18, 19, 20, 21),
)
"""Of `cups.ckpt` (spec-network 4.3)."""

ASSIGNMENTS = {CITYSCAPES19.name: CITYSCAPES19}
"""Published assignments by name."""
