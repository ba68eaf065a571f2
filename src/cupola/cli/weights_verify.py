"""`cupola weights verify`."""

from __future__ import annotations

from cupola.weights import Verified, verify_weights

command = verify_weights

HELD_TO = {
    "published": "as published",
    "recorded": "as when it was fetched",
    "nothing": "there is no hash to compare with",
}


def show(result: list[Verified]) -> None:
    """Prints each file that is whole."""
    for item in result:
        print(f"{item.path}: whole, {item.content}; SHA-256 {item.sha256} ({HELD_TO[item.held_to]})")
    if not result:
        print("nothing was fetched yet; `cupola weights list` shows what there is")
