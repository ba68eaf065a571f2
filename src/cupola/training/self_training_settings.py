"""How stage 3 learns: settings, and the paper's and the published code's by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from cupola.errors import ConfigError
from cupola.models import ViewSettings
from cupola.training.augment import AugmentSettings
from cupola.training.copy_paste import CopyPasteSettings
from cupola.training.loop import OptimizerSettings
from cupola.training.processes import Precision
from cupola.training.teacher_labels import TeacherLabelSettings


@dataclass(frozen=True)
class SelfTrainingSettings:
    """How stage 3 learns; the defaults suit a small network on two cores (docs/self-training.md says
    what each is worth).

    Attributes:
        batch: images a step.
        batches: the teacher labels the images of that many batches at a time.
        uses: how often the student learns from each of them, in other views and company each time, before the next are
            labelled. With one batch and one use the teacher labels new images for every step, as in the paper, which
            is most of a step's time.
        decay: share of the teacher that stays in a step; the rest comes from the student (paper: 0.9999, published
            code: 0.999).
        trained: `heads` = the parameters with `head` and without `norm` in their names, as the published code has it
            (the paper names box, mask and semantic heads; the code trains the proposals' head too); `all` = all but
            the batch norms, which stay constants in either case.
        negatives: which background counts against the student; see `cupola.models.settings.NegativeSettings`.
        views: of the teacher.
        labels: which of the teacher's predictions are learnt.
        crop: smallest and largest share of an image's sides that the student sees, drawn for every image; beyond 1 a
            margin lies around it.
        enlarge: the student will look at whole images with so many times the rows with which the network that it begins
            as does (`NetworkSettings.rows`): small objects, which the teacher finds in images no larger than it has
            learnt from, are easier to find then.
        rows: smallest and largest size of what it sees, drawn for every step, as a share of those rows: with the same
            share for crop and rows, the student sees things as large as they will be in prediction. It should often
            see nearly all of an image: what is sidewalk and what is road it otherwise forgets to tell from where
            things are.
        precision: of the student's forward pass; auto is bfloat16 where the device computes in it, and float32 else.
            The teacher always predicts in float32 (spec-network N60).
        saving_share: share of the time that may go into saving the state.
        optimizer: AdamW and its schedule.
        augment: how images are varied for the student; crop and rows take the place of its zoom.
        copy_paste: how objects of the batch's own labels are pasted.
    """

    batch: int = 4
    batches: int = 4
    uses: int = 8
    decay: float = 0.999
    trained: Literal["heads", "all"] = "all"
    negatives: Literal["all", "ignore_aware"] = "all"
    views: ViewSettings = ViewSettings((0.8, 1.0), scores="mean")  # noqa: RUF009 - frozen
    labels: TeacherLabelSettings = TeacherLabelSettings(0.5, 0.5)  # noqa: RUF009 - frozen
    crop: tuple[float, float] = (0.6, 1.05)
    enlarge: float = 4 / 3
    rows: tuple[float, float] = (0.5, 1.0)
    precision: Precision = "auto"
    saving_share: float = 0.1
    optimizer: OptimizerSettings = OptimizerSettings(learning_rate=1e-3, weight_decay=0.0, warm_up=20)  # noqa: RUF009
    augment: AugmentSettings = AugmentSettings()  # noqa: RUF009 - frozen
    copy_paste: CopyPasteSettings = CopyPasteSettings()  # noqa: RUF009 - frozen

    may_differ: ClassVar[tuple[str, ...]] = ("saving_share",)

    def student_rows(self, rows: int) -> int:
        """Rows with which the student looks at whole images, where the network that it begins as has `rows`."""
        return round(self.enlarge * rows)

    @property
    def pool(self) -> int:
        """Images that the teacher labels at a time."""
        return self.batch * self.batches

    @property
    def block(self) -> int:
        """Steps that learn from the same labels."""
        return self.batches * self.uses

    def __post_init__(self) -> None:
        for name in ("batch", "batches", "uses"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, but is {getattr(self, name)}")
        if not 0 <= self.decay <= 1:
            raise ConfigError(f"decay must be 0..1, but is {self.decay}")
        for name in ("crop", "rows"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ConfigError(f"{name} must be two rising positive numbers, not {low}, {high}")
        if not self.enlarge > 0:
            raise ConfigError(f"enlarge must be positive, but is {self.enlarge}")
        if not self.saving_share > 0:
            raise ConfigError(f"saving_share must be positive, but is {self.saving_share}")


def paper() -> SelfTrainingSettings:
    """Stage 3 as the paper has it, and where it gives no value, the published code's (spec-network 8.1, 9.1)."""
    return SelfTrainingSettings(
        batch=64,
        batches=1,
        uses=1,
        decay=0.9999,
        trained="heads",
        views=ViewSettings((0.75, 1.0, 1.25)),
        labels=TeacherLabelSettings(),
        crop=(0.5, 1.0),
        enlarge=1.0,
        rows=(0.375, 0.6875),
        optimizer=OptimizerSettings(learning_rate=1e-5, weight_decay=0.0, warm_up=0, final=1.0, clip=1.0),
        augment=AugmentSettings(flip=0.0, hue=0.1, grey=0.2, blur=0.5, blur_sigma=(0.1, 2.0)),
        copy_paste=CopyPasteSettings(scale=(0.25, 1.5), min_side=33, bottom_shift=1.0),
    )


def published() -> SelfTrainingSettings:
    """Stage 3 as the published code runs it (spec-network 3), its defects N7 and N17 mended."""
    return SelfTrainingSettings(
        batch=64,
        batches=1,
        uses=1,
        decay=0.999,
        trained="heads",
        views=ViewSettings((0.5, 0.75, 1.0)),
        labels=TeacherLabelSettings(rule="published", left_over="thing"),
        crop=(0.5, 1.0),
        enlarge=1.0,
        rows=(0.375, 0.6875),
        optimizer=OptimizerSettings(learning_rate=1e-5, weight_decay=1e-5, warm_up=0, final=1.0, clip=1.0),
        augment=AugmentSettings(flip=0.0, jitter=0.5, hue=0.1, grey=0.2, blur=1.0, blur_sigma=(0.1, 2.0)),
        copy_paste=CopyPasteSettings(scale=(0.25, 1.5), min_side=33, bottom_shift=1.0),
    )


STEPS = 1500
"""Steps of the paper and of the published code (3 rounds of 500 that change nothing; spec-network 3.5)."""

PRESETS: Mapping[str, Callable[[], SelfTrainingSettings]] = {
    "small": SelfTrainingSettings,
    "paper": paper,
    "published": published,
}
"""Settings by name; `cupola self-train --preset NAME` takes them."""
