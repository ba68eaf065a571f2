"""`cupola pseudo-label`."""

from __future__ import annotations

import sys

from cupola.cli import INCOMPLETE
from cupola.pseudo_labels import LabelStore, pseudo_label
from cupola.pseudo_labels.presets import PRESETS

command = pseudo_label
presets = PRESETS

MOSTLY_EMPTY = 0.5
"""Warn when a larger share of the frames has no moving object."""


def show(store: LabelStore) -> int:
    """Prints what was made, from what, how long it took, and what to be careful about."""
    objects = {key: len(store.entries[key].scores) for key in store.keys}
    empty = sum(count == 0 for count in objects.values())
    seconds = store.seconds()
    print(f"{len(store.keys)} frames labelled, {sum(objects.values())} moving objects; {empty} frames have none")
    if seconds:
        parts = ", ".join(f"{part} {value:.2f}" for part, value in seconds.items())
        print(f"{sum(seconds.values()):.2f} s of work a frame ({parts})")
    split, counts = store.rule.split, store.rule.counts
    print(f"{counts.num_classes} pseudo classes: {len(split.things)} of things, {len(split.stuff)} of stuff")
    for class_id in split.things:
        print(f"  class {class_id} is of things: {100 * counts.ratio[class_id]:.1f} % of its pixels move")
    if store.things != split.things:
        print("objects told apart by size: " + ", ".join(store.rule.names[k] for k in store.things))
    used = store.run["parts"]
    print("made with " + ", ".join(f"{part} {used[part]['name']}" for part in used))
    print(f"labels: {store.path / 'panoptic.json'} (COCO panoptic), raw results: {store.path}")
    print(f"report: {store.path / 'report.html'}")
    for warning in warnings(store, empty):
        print(f"warning: {warning}", file=sys.stderr)
    return INCOMPLETE if store.failures else 0


def warnings(store: LabelStore, empty: int) -> list[str]:
    """What a person should know before training on these labels."""
    found = []
    if store.failures:
        first = store.failures[0]
        found.append(
            f"{len(store.failures)} frames could not be labelled, the first, {first.key}, because {first.reason}; "
            "mend them and run the same command again"
        )
    if empty > MOSTLY_EMPTY * len(store.keys):
        found.append(
            f"{empty} of {len(store.keys)} frames have no moving object; `cupola inspect` tells how good the stereo "
            "and the flow are, and more traffic in the video helps"
        )
    if not store.things:
        found.append("no pseudo class was found to be of things, so there is no object to learn; use more video")
    return found
