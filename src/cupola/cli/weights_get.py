"""`cupola weights get`."""

from __future__ import annotations

from cupola.weights import Fetched, get_weights

command = get_weights


def show(result: list[Fetched]) -> None:
    """Prints where each file is and what may be done with it."""
    for item in result:
        entry = item.entry
        held = "as published" if entry.sha256 else "recorded, for there is no published one"
        print(f"{entry.name}: {item.path} ({item.record.size / 1e6:.1f} MB)")
        print(f"    SHA-256 {item.record.sha256} ({held})")
        print(f"    licence {entry.licence}")
        print(f"    for     {entry.used_by}")
