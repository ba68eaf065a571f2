"""What errors of the pseudo labels cost the network: truth takes the place of their classes, then of their masks too.

    cupola demo --out runs/demo
    python benchmarks/label_errors.py runs/demo --out runs/label-errors [--steps 1500] [--only NAME]

Of the streets that stage 1 has labelled in a demo, classes become those of the truth; masks stay, or become what truly
moves. What stands still is unmarked in any case. Each form goes through `cupola.import_labels` and stage 2, and is
judged with its network on the demo's held-out streets, as the demo's own table does with labels in which nothing is the
truth's.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from cupola.evaluation import Evaluation
from cupola.experiment import HELD_OUT, HELD_OUT_LABELS, LABELS, STREET, judge_labels, judge_network
from cupola.io import write_ids
from cupola.progress import progress
from cupola.pseudo_labels import FusionSettings, LabelStore, import_labels
from cupola.pseudo_labels.published import INSTANCE, SEMANTIC, without_gaps, write_classes
from cupola.taxonomy import CITYSCAPES_19
from cupola.training import train

FUSION = FusionSettings(sizes=0, movable=0.0)
"""True classes tell things apart, and have no finer parts."""

FORMS = {"true classes": False, "true classes and masks": True}
"""Whether masks are the truth's as well."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path, help="directory of a finished `cupola demo`")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=FORMS)
    arguments = parser.parse_args()
    for name, true_masks in FORMS.items():
        if arguments.only in (None, name):
            out = arguments.out / name.replace(" ", "-")
            measure(name, true_masks, arguments.demo, out, arguments.steps, arguments.seed)


def measure(name: str, true_masks: bool, demo: Path, out: Path, steps: int, seed: int) -> None:
    """Prints a line for the labels of a form and one for the network that learns from them."""
    out.mkdir(parents=True, exist_ok=True)
    for data, labels in ((STREET, LABELS), (HELD_OUT, HELD_OUT_LABELS)):
        source = LabelStore.open(demo / labels)
        write_labels(source, true_masks, out / f"files-{labels}")
        if not (out / data).exists():
            (out / data).symlink_to((demo / data).resolve(), target_is_directory=True)
        import_labels(
            out / f"files-{labels}",
            data=out / data,
            out=out / labels,
            classes=len(CITYSCAPES_19),
            statistics="images",
            classes_from=None if labels == LABELS else out / LABELS,
            fusion=FUSION,
        )
    tell(f"{name}: labels", judge_labels(out))
    train(out / LABELS, out=out / "network", steps=steps, seed=seed)
    tell(f"{name}: network", judge_network(out, out / "network", out / "predictions"))


def write_labels(source: LabelStore, true_masks: bool, out: Path) -> None:
    """The store's labels as the published code keeps them, with what is the truth's."""
    out.mkdir(parents=True, exist_ok=True)
    for key in progress(source.keys, f"writing {out.name}"):
        record = source.record(key)
        truth, moving = source.dataset.truth(record, CITYSCAPES_19), source.dataset.moving(record)
        if truth is None or moving is None:
            raise SystemExit(f"{record.left} has no truth; give the directory of a demo")
        masks = np.where(np.isin(truth.instances, list(moving)), truth.instances, 0)
        write_classes(out / (key + SEMANTIC), truth.classes.astype(np.int16))
        write_ids(out / (key + INSTANCE), without_gaps(masks if true_masks else source.instance_map(key)), bits=8)


def tell(name: str, result: Evaluation) -> None:
    """Prints the figures [%] and the number of false objects."""
    careful, objects = result.careful.standard, result.objects
    shares = {
        "PQ": result.matched.standard.all.pq,
        "careful": careful.all.pq,
        "things": careful.things.pq,
        "stuff": careful.stuff.pq,
        "moving": objects.moving.share,
        "standing": objects.standing.share,
        "small": objects.small.share,
    }
    told = "  ".join(f"{what} {100 * share:.1f}" for what, share in shares.items())
    print(f"{name:32} {told}  false {objects.false_objects}", flush=True)


if __name__ == "__main__":
    main()
