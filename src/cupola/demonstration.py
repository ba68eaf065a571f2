"""`cupola demo`: the whole of cupola on a rendered street, from nothing to a network that finds what nobody marked.

render -> stage 1 on the training street -> stage 2 -> the network and stage 1 on streets neither has seen -> report
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cupola.data import StereoDataset, open_dataset
from cupola.data.synthetic import render
from cupola.demo_report import write_demo_report
from cupola.errors import StoreError
from cupola.evaluation import Evaluation, EvaluationSettings
from cupola.io import write_json
from cupola.prediction import load, predict_sources
from cupola.pseudo_labels import LabelStore, pseudo_label
from cupola.scoring import evaluate
from cupola.training import train

HELD_OUT_SEED = 1_000_003
"""Added to the seed for the held-out street: no training street is drawn from it."""

MIN_THING_AREA = 64
"""True things of fewer pixels are void in the demo's scores, as in findings-demo [px]."""


@dataclass(frozen=True)
class DemoSize:
    """How much the demo does. sequences: streets to learn from and to test on; frames: of each street;
    height, width: of the images [px]; network, steps: of stage 2."""

    sequences: int
    held_out: int
    frames: int
    height: int
    width: int
    network: Literal["small", "tiny"]
    steps: int


SIZES = {
    "small": DemoSize(sequences=100, held_out=30, frames=3, height=192, width=384, network="small", steps=1800),
    "tiny": DemoSize(sequences=12, held_out=3, frames=3, height=128, width=256, network="tiny", steps=100),
}
"""`small` fits ten minutes of two cores: many streets of few frames, since 120 frames taught as much as 480
(findings-demo); `tiny` only shows that every part runs."""


SECONDS, LEAST_TRAINING = 570.0, 60.0
"""The demo should take no longer [s], so training ends early on a slow machine, but not before this [s]. Results then
depend on its speed; one that needs less than nine tenths of the time left for training always gives the same."""

AFTER_TRAINING = 0.4
"""What comes after training takes about this share of what came before (30 streets against 100, and the report)."""


@dataclass(frozen=True)
class DemoResult:
    """labels, network: stage 1 and the network on the same held-out frames; seconds: wall time of each part [s]; steps,
    planned: of training, as many as there was time for and as many as there should be."""

    out: Path
    labels: Evaluation
    network: Evaluation
    seconds: dict[str, float]
    steps: int
    planned: int
    report: Path

    def table(self) -> str:
        """Both results side by side, as text."""
        columns, rows = score_rows(self.labels, self.network)
        widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]
        lines = [
            "  ".join(
                cell.rjust(width) if i else cell.ljust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in [columns, *rows]
        ]
        spent = ", ".join(f"{part} {value:.0f} s" for part, value in self.seconds.items())
        if self.steps < self.planned:
            lines += ["", cut_short(self.steps, self.planned)]
        return "\n".join([*lines, "", f"{len(self.labels.keys)} held-out frames; {spent}"])


def cut_short(steps: int, planned: int) -> str:
    """What to know of a network that had less time than it should have."""
    return (
        f"Training ended after {steps} of {planned} steps to keep to ten minutes on this machine; a faster one gives "
        "better figures."
    )


def score_rows(labels: Evaluation, network: Evaluation) -> tuple[list[str], list[list[str]]]:
    """Column names and a row each for the pseudo labels and the network; figures in percent."""
    columns = ["held-out frames", "PQ", "SQ", "RQ", "PQ things", "PQ stuff", "mIoU", "moving", "standing", "false"]
    return columns, [[name, *_figures(result)] for name, result in (("pseudo labels", labels), ("network", network))]


def _figures(result: Evaluation) -> list[str]:
    scores, objects = result.matched.standard, result.objects
    shares = [
        scores.all.pq, scores.all.sq, scores.all.rq, scores.things.pq, scores.stuff.pq,
        result.matched.semantic_standard.miou,
        *(recall.share if recall else float("nan") for recall in (objects.moving, objects.standing)),
    ]  # fmt: skip
    return [f"{100 * share:.1f}" for share in shares] + [str(objects.false_objects)]


def demo(*, out: Path = Path("runs/demo"), size: Literal["small", "tiny"] = "small", seed: int = 0) -> DemoResult:
    """The whole of cupola, from nothing: renders a stereo street, makes pseudo labels from its video, trains a network
    on them, and shows on streets it has never seen that it finds objects which no label marked.

    Needs no data, no weights, no network and no GPU. Run the same command again to go on after a stop.

    Args:
        out: directory for everything; report.html in it is the thing to open.
        size: small takes under ten minutes on two cores; tiny takes under two and only shows that all parts run.
        seed: another seed gives other streets and another network.
    """
    recipe = SIZES[size]
    _claim(out, size, seed)
    seconds: dict[str, float] = {}
    with _timed(seconds, "render"):
        for name, count, offset in (("street", recipe.sequences, 0), ("held-out", recipe.held_out, HELD_OUT_SEED)):
            render(
                out / name, seed=seed + offset, frames=recipe.frames, sequences=count,
                height=recipe.height, width=recipe.width,
            )  # fmt: skip
    with _timed(seconds, "pseudo labels"):
        pseudo_label(out / "street", out=out / "labels", seed=seed)
    left = max(LEAST_TRAINING, SECONDS - (1 + AFTER_TRAINING) * sum(seconds.values()))
    with _timed(seconds, "training"):
        trained = train(
            out / "labels", out=out / "network", network=recipe.network, steps=recipe.steps, seed=seed, time_limit=left
        )
    with _timed(seconds, "held-out frames"):
        held_out = open_dataset(out / "held-out")
        store = pseudo_label(out / "held-out", out=out / "held-out-labels", classes_from=out / "labels", seed=seed)
        _predict_held_out(out, held_out, store)
        labels, network = (
            evaluate(out / folder, out / "held-out", settings=EvaluationSettings(MIN_THING_AREA), out=out / folder)
            for folder in ("held-out-labels", "predictions")
        )
    report = out / "report.html"
    with _timed(seconds, "report"):
        warning = cut_short(trained.steps, recipe.steps) if trained.steps < recipe.steps else ""
        scores = score_rows(labels, network)
        write_demo_report(report, out, held_out, store, labels, network, scores, seconds, warning)
    return DemoResult(out, labels, network, seconds, trained.steps, recipe.steps, report)


def _claim(out: Path, size: str, seed: int) -> None:
    """Refuses to mix two demos in one directory. Raises `StoreError`."""
    marker = out / f"demo-{size}-{seed}.json"
    others = [path for path in out.glob("demo-*.json") if path != marker]
    if others:
        raise StoreError(f"{out} holds the demo {others[0].stem}; choose another --out or remove it")
    write_json(marker, {"size": size, "seed": seed})


@contextmanager
def _timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[part] = time.perf_counter() - start


def _predict_held_out(out: Path, dataset: StereoDataset, store: LabelStore) -> None:
    """The network on exactly the frames that the held-out pseudo labels cover."""
    predictor = load(out / "network")
    sources = [(key, str(store.record(key).left), lambda key=key: store.image(key)) for key in store.keys]
    predict_sources(sources, predictor, out / "predictions", batch=4, facts={"model": str(out / "network")})
