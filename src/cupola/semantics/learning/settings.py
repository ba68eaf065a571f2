"""How the head and the probe are learnt: three recipes with the same settings (spec-stage1 5.5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from cupola.config import OneOf
from cupola.errors import ConfigError

CROPS = 5
"""Views of an image: its four corners and its centre (spec-stage1 5.5)."""


@dataclass(frozen=True)
class TermSettings:
    """One term of the loss, `weight * l(F, C, shift)`.

    Args:
        weight: of the term; 0 leaves it out.
        shift: likeness above which codes are pulled together, and below which apart.
    """

    weight: float = 1.0
    shift: float = 0.3

    def __post_init__(self) -> None:
        if not 0 <= self.weight < float("inf"):
            raise ConfigError(f"the weight of a term must not be negative, but is {self.weight}")
        if not -1 <= self.shift <= 1:
            raise ConfigError(f"the shift of a term must lie in -1 .. 1, as cosines do, but is {self.shift}")


@dataclass(frozen=True)
class DepthSettings:
    """The term of the depth.

    Args:
        weight: of the term; 0 leaves it out.
        shift: likeness in depth above which codes are pulled together.
        temperature: logarithm of the ratio of two depths at which their likeness has fallen to 1/e.
        correlation: log_ratio compares depths; constant is what the published code does by mistake: all pairs of
            positions are alike (spec-stage1 5.5, defect S49).
        decay: weight and shift are multiplied by this ...
        decay_every: ... every so many steps.
    """

    weight: float = 0.09
    shift: float = 0.03
    temperature: float = 0.1
    correlation: Literal["log_ratio", "constant"] = "log_ratio"
    decay: float = 0.8
    decay_every: int = 400

    def __post_init__(self) -> None:
        TermSettings(self.weight, self.shift)
        if not self.temperature > 0:
            raise ConfigError(f"the temperature of the depth term must be positive, but is {self.temperature}")
        if not 0 < self.decay <= 1 or self.decay_every < 1:
            raise ConfigError(
                f"the depth term's decay must lie in 0 .. 1 and come every 1 or more steps, not {self.decay} every "
                f"{self.decay_every}"
            )

    def at(self, step: int) -> TermSettings:
        """Weight and shift in a step, counted from 0 in batches (the published counter runs three times as fast and
        changes the stored settings; defects S51, S52)."""
        factor = self.decay ** (step // self.decay_every)
        return TermSettings(self.weight * factor, self.shift * factor)


@dataclass(frozen=True)
class SmallRecipe:
    """The published terms in fewer and smaller batches: minutes on a laptop's processor. For a backbone whose features
    mean something, such as DINO's.

    Args:
        classes: pseudo classes to form (2 .. 254).
        code_channels: length of a code.
        steps: batches to learn from.
        batch: views in a batch, each with one positive.
        side: of the square views [px]; rounded down to whole cells of the backbone.
        positions: where a view is looked at: this number squared of positions.
        sampling: random positions, or the farthest points of the depth.
        neighbours: the positive of a view is one of this many views most like it ...
        neighbours_from: ... of other images, or (where there are many short sequences) of other sequences.
        negatives: permutations of the batch that serve as negatives.
        intra: the term of a view with itself.
        inter: the term of a view with its positive.
        negative: the term of a view with views of other places in the batch.
        depth: the term of the depth.
        pointwise: compare likeness with its mean at each position.
        standardise: give each feature mean 0 and deviation 1 over the data.
        dropout: share of the feature channels left out of each view at random.
        learning_rate: of the head (Adam).
        probe_learning_rate: of the probe's centres (Adam).
        probe_start: share of the steps after which the probe begins, at centres found by k-means on the codes.
        cache_gigabytes: features are kept on the disk, below --out, if they need no more; else computed each time.
        checkpoint_seconds: time between two saved states [s]; a kill loses at most this.
    """

    classes: int = 27
    code_channels: int = 70
    steps: int = 400
    batch: int = 16
    side: int = 224
    positions: int = 11
    sampling: Literal["random", "farthest"] = "random"
    neighbours: int = 7
    neighbours_from: Literal["images", "sequences"] = "images"
    negatives: int = 5
    intra: TermSettings = TermSettings(0.95, 0.39)
    inter: TermSettings = TermSettings(1.02, 0.25)
    negative: TermSettings = TermSettings(0.57, 0.26)
    depth: DepthSettings = DepthSettings()
    pointwise: bool = False
    standardise: bool = False
    dropout: float = 0.1
    learning_rate: float = 5e-4
    probe_learning_rate: float = 5e-3
    probe_start: float = 0.5
    cache_gigabytes: float = 30.0
    checkpoint_seconds: float = 30.0

    name: ClassVar[str] = "small"
    may_differ: ClassVar[tuple[str, ...]] = ("cache_gigabytes", "checkpoint_seconds")

    def __post_init__(self) -> None:
        if not 2 <= self.classes <= 254:
            raise ConfigError(f"settings.classes must lie in 2 .. 254, but is {self.classes}")
        for name, least in (("code_channels", 2), ("steps", 1), ("batch", 2), ("side", 16), ("positions", 2),
                            ("neighbours", 1), ("negatives", 1)):  # fmt: skip
            if getattr(self, name) < least:
                raise ConfigError(f"settings.{name} must be at least {least}, but is {getattr(self, name)}")
        for name in ("learning_rate", "probe_learning_rate"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"settings.{name} must be positive, but is {getattr(self, name)}")
        if not any(term.weight for term in (self.intra, self.inter, self.negative, self.depth)):
            raise ConfigError("all terms have the weight 0, so that there is nothing to learn; give one a weight")
        for name in ("dropout", "probe_start"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"settings.{name} must lie in [0, 1), but is {getattr(self, name)}")


@dataclass(frozen=True)
class CityscapesRecipe(SmallRecipe):
    """The published recipe for Cityscapes with DINO ViT-B/8 (spec-stage1 5.5). Its 7000 steps were 2334 batches, since
    the published counter advances by three in each (defect S51)."""

    code_channels: int = 100
    steps: int = 2334
    batch: int = 32

    name: ClassVar[str] = "cityscapes"


@dataclass(frozen=True)
class DepthOnlyRecipe(SmallRecipe):
    """Only the term of the depth, at full weight, on standardised features: for a backbone of random weights. Likeness
    of random features says little, so that the other terms do harm there (docs/learn-semantics.md)."""

    steps: int = 200
    intra: TermSettings = TermSettings(0.0, 0.39)
    inter: TermSettings = TermSettings(0.0, 0.25)
    negative: TermSettings = TermSettings(0.0, 0.26)
    depth: DepthSettings = DepthSettings(weight=1.0, shift=0.2, decay=1.0)
    standardise: bool = True

    name: ClassVar[str] = "depth-only"


RECIPES: Mapping[str, type] = {recipe.name: recipe for recipe in (SmallRecipe, CityscapesRecipe, DepthOnlyRecipe)}
"""What `--settings NAME` can be."""

AnyRecipe = Annotated[SmallRecipe, OneOf(RECIPES)]
