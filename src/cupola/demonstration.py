"""`cupola demo`: the whole of cupola on rendered streets, from nothing to a network that finds what nobody marked.

render -> stage 1 -> stage 2 -> stage 3 -> both networks and stage 1 on streets neither has seen -> report
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cupola.data import open_dataset
from cupola.demo_report import Stage, score_table, write_demo_report
from cupola.errors import StoreError
from cupola.evaluation import Evaluation
from cupola.experiment import (
    HELD_OUT,
    HELD_OUT_LABELS,
    LABELS,
    STREET,
    Streets,
    judge_labels,
    judge_network,
    label_streets,
    render_streets,
)
from cupola.io import write_json
from cupola.pseudo_labels import LabelStore
from cupola.training import self_train, train

NETWORK, SELF_TRAINED, PREDICTIONS = "network", "self-trained", "predictions"
"""Folders of the networks of stages 2 and 3, and in each of what it says of the held-out streets."""


@dataclass(frozen=True)
class DemoSize:
    """How much the demo does. streets: to learn from and to test on; network, steps: of stage 2; self_training: steps
    of stage 3."""

    streets: Streets
    network: Literal["small", "tiny"]
    steps: int
    self_training: int


SIZES = {
    "small": DemoSize(
        Streets(sequences=400, labelled=200, held_out=30, frames=3, height=192, width=384), "small", 1800, 450
    ),
    "tiny": DemoSize(Streets(sequences=12, labelled=24, held_out=3, frames=3, height=128, width=256), "tiny", 100, 8),
}
"""`small` fits ten minutes of two cores: many streets of few frames, since 120 labelled frames taught as much as 480
(findings-demo), but stage 3, which needs no labels, gains from more; `tiny` only shows that every part runs."""


SECONDS, LEAST_TRAINING = 590.0, 60.0
"""The demo should take no longer [s], so training ends early on a slow machine, but not before this [s]. Results then
depend on its speed; one that needs less than nine tenths of the time left for training always gives the same."""

AFTER_TRAINING = 0.15
"""Judging and the report take about this share of rendering and labelling."""

BOOTSTRAP_SHARE = 0.6
"""Share of the time for training that stage 2 may take."""


@dataclass(frozen=True)
class DemoResult:
    """labels, network, self_trained: stages 1, 2, 3 on the same held-out frames; seconds: wall time of each part [s];
    steps, planned: of both trainings, as many as there was time for and as many as there should be."""

    out: Path
    labels: Evaluation
    network: Evaluation
    self_trained: Evaluation
    seconds: dict[str, float]
    steps: int
    planned: int
    report: Path

    @property
    def stages(self) -> tuple[Stage, Stage, Stage]:
        """All three, as the table shows them."""
        return (
            Stage("pseudo labels", self.out / HELD_OUT_LABELS, self.labels),
            Stage("stage 2: network", self.out / NETWORK / PREDICTIONS, self.network),
            Stage("stage 3: self-trained", self.out / SELF_TRAINED / PREDICTIONS, self.self_trained),
        )

    def table(self) -> str:
        """All results side by side, as text."""
        scores = score_table(self.stages)
        table = [scores.columns, *scores.rows]
        widths = [max(len(row[i]) for row in table) for i in range(len(scores.columns))]
        lines = [
            "  ".join(
                cell.rjust(width) if i else cell.ljust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in table
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


def demo(*, out: Path = Path("runs/demo"), size: Literal["small", "tiny"] = "small", seed: int = 0) -> DemoResult:
    """The whole of cupola, from nothing: renders stereo streets, makes pseudo labels from their video (stage 1), trains
    a network on them (stage 2), lets it teach itself (stage 3), and shows on streets it has never seen that it finds
    objects which no label marked.

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
        render_streets(out, recipe.streets, seed)
    with _timed(seconds, "stage 1"):
        label_streets(out, recipe.streets, seed)
    end = SECONDS - AFTER_TRAINING * sum(seconds.values())
    with _timed(seconds, "stage 2"):
        bootstrapped = train(
            out / LABELS, out=out / NETWORK, network=recipe.network, steps=recipe.steps, seed=seed,
            time_limit=max(LEAST_TRAINING, BOOTSTRAP_SHARE * (end - sum(seconds.values()))),
        )  # fmt: skip
    with _timed(seconds, "stage 3"):
        self_trained = self_train(
            out / STREET, model=out / NETWORK, out=out / SELF_TRAINED, steps=recipe.self_training, seed=seed,
            time_limit=max(LEAST_TRAINING, end - sum(seconds.values())),
        )  # fmt: skip
    with _timed(seconds, "held-out frames"):
        labels = judge_labels(out)
        network, final = (judge_network(out, out / name, out / name / PREDICTIONS) for name in (NETWORK, SELF_TRAINED))
    steps, planned = bootstrapped.steps + self_trained.steps, recipe.steps + recipe.self_training
    result = DemoResult(out, labels, network, final, seconds, steps, planned, out / "report.html")
    with _timed(seconds, "report"):
        warning = cut_short(steps, planned) if steps < planned else ""
        held_out, store = open_dataset(out / HELD_OUT), LabelStore.open(out / HELD_OUT_LABELS)
        networks = out / NETWORK, out / SELF_TRAINED
        write_demo_report(result.report, held_out, store, result.stages, networks, seconds, warning)
    return result


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
