"""`cupola weights convert`."""

from __future__ import annotations

from cupola.weights import Converted, convert_weights

command = convert_weights


def show(result: Converted) -> None:
    """Prints what was found and written."""
    print(f"{result.kind}: {result.about}")
    for file in result.files:
        print(f"    {file}")
    if result.ignored:
        print(f"of no use: {result.ignored[0]} and {len(result.ignored) - 1} other tensors")
    if result.kind == "network":
        print(f"next: cupola predict IMAGES --model {result.files[0].parent} --out PICTURES")
