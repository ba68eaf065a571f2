"""An experiment on rendered streets, as the demo and the ablation of training use it: streets to learn from, others to
be judged on, the labels of stage 1 on both, and what a network reaches.

OUT/street, OUT/held-out                  stereo video with truth
OUT/labels, OUT/held-out-labels           label stores with the same pseudo classes
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cupola.data.synthetic import render
from cupola.evaluation import Evaluation, EvaluationSettings
from cupola.prediction import load, predict_sources
from cupola.pseudo_labels import LabelStore, pseudo_label
from cupola.scoring import evaluate

HELD_OUT_SEED = 1_000_003
"""Added to the seed for the held-out streets: no training street is drawn from it."""

STREET, HELD_OUT, LABELS, HELD_OUT_LABELS = "street", "held-out", "labels", "held-out-labels"

JUDGED = EvaluationSettings(min_thing_area=64)
"""True things of fewer pixels are void in the scores, as in findings-demo."""


@dataclass(frozen=True)
class Streets:
    """sequences: streets to learn from; labelled: so many of their pairs get labels of stage 1, all frames are seen in
    stage 3; held_out: streets to be judged on; frames: of each; height, width: of images [px]."""

    sequences: int
    labelled: int
    held_out: int
    frames: int
    height: int
    width: int


def render_streets(out: Path, streets: Streets, seed: int, workers: int = 0) -> None:
    """Renders what is not there yet."""
    for name, count, offset in ((STREET, streets.sequences, 0), (HELD_OUT, streets.held_out, HELD_OUT_SEED)):
        render(
            out / name, seed=seed + offset, frames=streets.frames, sequences=count,
            height=streets.height, width=streets.width, workers=workers,
        )  # fmt: skip


def label_streets(out: Path, streets: Streets, seed: int, workers: int = 0) -> None:
    """Stage 1 on both; the pseudo classes are those of the streets to learn from."""
    pseudo_label(out / STREET, out=out / LABELS, limit=streets.labelled, seed=seed, workers=workers)
    pseudo_label(
        out / HELD_OUT, out=out / HELD_OUT_LABELS, classes_from=out / LABELS, seed=seed, workers=workers
    )  # fmt: skip


def judge_labels(out: Path) -> Evaluation:
    """What stage 1 says of the held-out streets, against their truth."""
    return evaluate(out / HELD_OUT_LABELS, out / HELD_OUT, settings=JUDGED, out=out / HELD_OUT_LABELS)


def judge_network(out: Path, model: Path, predictions: Path) -> Evaluation:
    """What a network says of the held-out frames that stage 1 has labelled, against their truth; kept in
    `predictions`."""
    store = LabelStore.open(out / HELD_OUT_LABELS)
    sources = [(key, str(store.record(key).left), lambda key=key: store.image(key)) for key in store.keys]
    predict_sources(sources, load(model), predictions, batch=4, facts={"model": str(model)})
    return evaluate(predictions, out / HELD_OUT, settings=JUDGED, out=predictions)
