"""The rows of the paper's table 7c: each adds one part of training to the row before, or to the last that is worth
it. One more tells what stage 2 makes of the time of stage 3, so that this does not pass for what the teacher gives."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from cupola.models import NetworkSettings, small, tiny
from cupola.training import BootstrapSettings
from cupola.training.copy_paste import CopyPasteSettings
from cupola.training.self_labels import SelfLabelSettings

Rule = Literal["all", "drop_loss", "drop_loss_published", "ignore_aware"]

PLAIN, SELF_TRAINED = "plain training", "+ self-training"


@dataclass(frozen=True)
class TrainingRow:
    """A row. folder: of its results; paper: the paper's PQ [%], None where it has no such row; before: the row to which
    it adds something, None for the first; settings: of stage 2, None where it is stage 3 on the network of `before`;
    longer: stage 2 takes as long as both stages together elsewhere."""

    name: str
    folder: str
    paper: float | None
    before: str | None
    network: NetworkSettings
    settings: BootstrapSettings | None
    longer: bool = False


def training_rows(network: Literal["small", "tiny"]) -> tuple[TrainingRow, ...]:
    """All rows, in the order of the table. The forms of DropLoss are three rows; the next adds to the last of them.
    What adds to copy-paste does so to it alone, for self-enhancement costs more than it brings here."""
    sizes = small() if network == "small" else tiny()
    usual = BootstrapSettings()
    no_paste = replace(usual, copy_paste=CopyPasteSettings(pastes=(0, 0)))
    enhanced = replace(usual, self_labels=SelfLabelSettings())

    def by(rule: Rule) -> NetworkSettings:
        return replace(sizes, negatives=replace(sizes.negatives, rule=rule))

    ours, paste = "+ DropLoss, ignore-aware", "+ copy-paste"
    return (
        TrainingRow(PLAIN, "plain", 24.1, None, by("all"), no_paste),
        TrainingRow("+ DropLoss, published code", "drop-published", None, PLAIN, by("drop_loss_published"), no_paste),
        TrainingRow("+ DropLoss, paper", "drop-paper", 25.3, PLAIN, by("drop_loss"), no_paste),
        TrainingRow(ours, "drop-ignore-aware", None, PLAIN, by("ignore_aware"), no_paste),
        TrainingRow(paste, "copy-paste", 26.3, ours, by("ignore_aware"), usual),
        TrainingRow("+ self-enhanced", "self-enhanced", 26.6, paste, by("ignore_aware"), enhanced),
        TrainingRow("longer, no teacher", "longer", None, paste, by("ignore_aware"), usual, longer=True),
        TrainingRow(SELF_TRAINED, "self-trained", 27.8, paste, by("ignore_aware"), None),
    )
