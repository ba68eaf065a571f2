"""`cupola import-labels`."""

from __future__ import annotations

from cupola.pseudo_labels import LabelStore, import_labels

command = import_labels


def show(store: LabelStore) -> None:
    """Prints what was read and what it is good for."""
    masks = sum(len(store.entries[key].scores) for key in store.keys)
    empty = sum(not store.entries[key].scores for key in store.keys)
    print(f"{len(store.keys)} labels with {masks} masks; {empty} have none")
    print(f"images: {store.run['data']} at scale {store.run['scale']:.4g}")
    split, ratio = store.rule.split, store.rule.counts.ratio
    print(f"{store.num_classes} pseudo classes: {len(split.things)} of things, {len(split.stuff)} of stuff")
    for class_id in split.things:
        print(f"  class {class_id} is of things: {100 * ratio[class_id]:.1f} % of its pixels are in masks")
    print(f"report: {store.path / 'report.html'}")
    print(f"next: cupola train {store.path} --out NETWORK")
