"""`cupola semantics`."""

from __future__ import annotations

from cupola.cli import INCOMPLETE
from cupola.semantics.command import SemanticMaps, semantic_maps

command = semantic_maps


def show(result: SemanticMaps) -> int:
    """Prints what was made and what failed."""
    print(f"{len(result.keys)} class maps of {result.num_classes} pseudo classes: {result.out}/<key>.png")
    if result.failed:
        key, reason = next(iter(result.failed.items()))
        print(f"{len(result.failed)} frames have no map; the first, {key}: {reason}")
    return INCOMPLETE if result.failed else 0
