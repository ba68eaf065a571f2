"""`cupola weights list`."""

from __future__ import annotations

from itertools import groupby

from cupola.weights import Listed, list_weights
from cupola.weights.cache import weights_folder

command = list_weights

KINDS = {
    "network": "panoptic networks",
    "backbone": "ResNets to begin training with",
    "raft": "optical flow",
    "depthg": "pseudo classes",
    "transformer": "DINO's transformers",
}


def show(result: list[Listed]) -> None:
    """Prints what there is by kind, its licence and where it is."""
    order = list(KINDS)
    for kind, group in groupby(sorted(result, key=lambda item: order.index(item.entry.kind)), lambda i: i.entry.kind):
        print(f"\n{KINDS[kind]}")
        for item in group:
            entry = item.entry
            print(f"  {entry.name}: {entry.what}")
            print(f"      file     {entry.file}{f', {entry.size / 1e6:.0f} MB' if entry.size else ''}")
            print(f"      from     {entry.url or f'{entry.page} (by hand)'}")
            print(f"      licence  {entry.licence}")
            print(f"      hash     {'known' if entry.sha256 else 'unknown: recorded when it is fetched'}")
            print(f"      for      {entry.used_by}")
            print(f"      here     {item.path or 'no'}")
    print(f"\n`cupola weights get NAME` fetches one into {weights_folder()}")
