"""`cupola ablate training`: every row of the paper's table 7c trained from the labels of stage 1 and judged, over
seeds.

OUT/seed-N/                      street, held-out and their labels, see `cupola.experiment`
OUT/seed-N/rows/ROW/network      the row's network; OUT/seed-N/rows/ROW/predictions: of the held-out frames
OUT/ablation.json, OUT/report.html
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cupola.ablation.training.measured import MeasuredRow, measured_rows
from cupola.ablation.training.rows import TrainingRow, training_rows
from cupola.ablation.training.training_report import NOTE, as_text, table_of, write_training_report
from cupola.diagnosis import installed_versions
from cupola.engines import choose_engine
from cupola.errors import ConfigError
from cupola.evaluation import Evaluation
from cupola.experiment import LABELS, STREET, Streets, judge_labels, judge_network, label_streets, render_streets
from cupola.io import write_json
from cupola.progress import progress
from cupola.pseudo_labels.completion import mapped
from cupola.runs.directory import claim
from cupola.training import self_train, train


@dataclass(frozen=True)
class Size:
    """How much is done. steps: of stage 2, self_training: of stage 3, longer: of stage 2 in the time of both."""

    streets: Streets
    network: Literal["small", "tiny"]
    steps: int
    self_training: int
    longer: int


SIZES = {
    "small": Size(Streets(250, 200, 30, 3, 192, 384), "small", 900, 300, 1500),
    "tiny": Size(Streets(4, 8, 2, 3, 96, 192), "tiny", 12, 4, 16),
}
"""`small` takes an hour of two cores for three seeds: the streets of the demo, half of its training; `tiny` only shows
that every part runs."""


@dataclass(frozen=True)
class TrainingAblation:
    """What `ablate_training` found. labels: of stage 1, for each seed; rows: in the order of the table."""

    out: Path
    labels: tuple[Evaluation, ...]
    rows: tuple[MeasuredRow, ...]
    report: Path

    def table(self) -> str:
        """The table as text."""
        return f"{as_text(table_of(self.labels, self.rows))}\n\n{NOTE}"


def ablate_training(
    *, out: Path, size: Literal["small", "tiny"] = "small", seeds: int = 3, seed: int = 0, workers: int = 0
) -> TrainingAblation:
    """What each part of training is worth: the paper's table 7c on rendered streets, with the labels of stage 1.

    Plain training, DropLoss in three forms, copy-paste, self-enhancement and self-training, each judged on streets
    that it has not seen. Run the same command again to go on after a stop.

    Args:
        out: directory for everything; report.html in it is the thing to open.
        size: small takes about an hour of two cores; tiny takes a minute and only shows that all parts run.
        seeds: how often all is done, each time with other streets and networks.
        seed: the first seed.
        workers: processes, each trains a network of its own; 0 takes as many as there are cores.

    Raises:
        ConfigError: a number is out of range.
        StoreError: `out` holds an ablation of another size.
    """
    if seeds < 1:
        raise ConfigError(f"the ablation needs at least one seed, not {seeds}")
    recipe = SIZES[size]
    claim(out, ("out", "seeds", "seed", "workers"), out=out, size=size, seeds=seeds, seed=seed, workers=workers)
    numbers = range(seed, seed + seeds)
    for number in progress(numbers, "streets and labels"):
        render_streets(out / f"seed-{number}", recipe.streets, number, workers)
        label_streets(out / f"seed-{number}", recipe.streets, number, workers)
    rows = training_rows(recipe.network)
    bootstrapped = sorted((row for row in rows if row.settings is not None), key=lambda row: not row.longer)
    first = [(row, number) for row in bootstrapped for number in numbers]  # long ones first: none is waited for
    second = [(row, number) for number in numbers for row in rows if row.settings is None]
    found: dict[tuple[str, int], Evaluation] = {}
    with choose_engine(workers, len(first)) as engine:
        for items, title in ((first, "stage 2"), (second, "stage 3")):
            done = mapped(engine, TrainRow(out, recipe, rows), items, title, len(items))
            found |= {(row.name, number): result for (row, number), result in done}
    labels = tuple(judge_labels(out / f"seed-{number}") for number in numbers)
    measured = measured_rows(rows, [[found[row.name, number] for number in numbers] for row in rows])
    _write(out, size, numbers, labels, measured)
    return TrainingAblation(out, labels, measured, out / "report.html")


@dataclass(frozen=True)
class TrainRow:
    """Item: a row and a seed; result: what its network, trained where it is not there yet, says of the held-out
    frames."""

    out: Path
    size: Size
    rows: tuple[TrainingRow, ...]

    def __call__(self, item: tuple[TrainingRow, int]) -> Evaluation:
        row, seed = item
        streets = self.out / f"seed-{seed}"
        folder = streets / "rows" / row.folder
        if row.settings is not None:
            train(
                streets / LABELS, out=folder / "network", network=row.network, settings=row.settings, seed=seed,
                steps=self.size.longer if row.longer else self.size.steps,
            )  # fmt: skip
        else:
            (before,) = [other for other in self.rows if other.name == row.before]
            self_train(
                streets / STREET, model=streets / "rows" / before.folder / "network", out=folder / "network",
                steps=self.size.self_training, seed=seed,
            )  # fmt: skip
        return judge_network(streets, folder / "network", folder / "predictions")


def _write(out: Path, size: str, numbers: range, labels: tuple[Evaluation, ...], rows: tuple[MeasuredRow, ...]) -> None:
    """ablation.json and report.html: equal runs write equal bytes of the first."""
    content: dict[str, Any] = {
        "size": size,
        "seeds": list(numbers),
        "note": NOTE,
        "versions": installed_versions(),
        "labels": MeasuredRow.figures_of(labels),
        "rows": [one.to_dict() for one in rows],
    }
    write_json(out / "ablation.json", content)
    facts = {
        "size": f"{size} ({json.dumps(SIZES[size].__dict__, default=vars)})",
        "seeds": ", ".join(map(str, numbers)),
        "versions": ", ".join(f"{name} {version}" for name, version in installed_versions().items()),
    }
    write_training_report(out / "report.html", out, numbers, labels, rows, facts)
