"""All that is said about one set of predictions: matching, scores in both protocols, recall of objects, a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64

from cupola.errors import ConfigError
from cupola.evaluation.average_precision import AveragePrecision, agnostic_average_precision, average_precision
from cupola.evaluation.contingency import Contingency, contingency, without_small_things
from cupola.evaluation.matching import match_classes
from cupola.evaluation.object_recall import SMALL, ObjectCounts, Recall, count_objects
from cupola.evaluation.panoptic_quality import PanopticScores, panoptic_scores
from cupola.evaluation.semantic import ConfusionMatrix, SemanticScores, confusion_of
from cupola.taxonomy import Taxonomy
from cupola.types import PanopticMap


@dataclass(frozen=True)
class Judged:
    """A frame with its prediction in pseudo classes and its truth in classes of a taxonomy. moving: true instances that
    move, None = unknown; scores: of predicted instances, 1 where none is given."""

    key: str
    prediction: PanopticMap
    truth: PanopticMap
    moving: frozenset[int] | None = None
    scores: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class EvaluationSettings:
    """What counts. All areas in pixels.

    min_thing_area: smaller true things are void, neither missed nor found (the demo takes 64);
    recall_area: true things of at least this size are asked for by the recall of objects;
    minimum_iou: class overlap that a pair of the careful matching must exceed (findings-demo took 0.1).
    Raises `ConfigError` for an impossible value.
    """

    min_thing_area: int = 0
    recall_area: int = 100
    minimum_iou: float = 0.1

    def __post_init__(self) -> None:
        for name in ("min_thing_area", "recall_area"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must be a number of pixels, 0 or more, not {getattr(self, name)}")
        if not 0 <= self.minimum_iou < 1:
            raise ConfigError(f"minimum_iou must be from 0 to below 1, not {self.minimum_iou}")

    def at_density(self, density: float) -> EvaluationSettings:
        """The areas in labelled pixels, where only this share of an object's pixels is labelled."""
        least, asked = round(self.min_thing_area * density), round(self.recall_area * density)
        return replace(self, min_thing_area=least, recall_area=asked)


@dataclass(frozen=True)
class MatchedScores:
    """Scores under one matching. assignment: class of each pseudo class for PQ and AP (things and stuff apart),
    semantic_assignment: for mIoU and accuracy (all together); `VOID` = stands for nothing.

    The published protocol forgives void in the prediction, the standard one does not.
    """

    assignment: Int64[np.ndarray, "p"]
    semantic_assignment: Int64[np.ndarray, "p"]
    standard: PanopticScores
    published: PanopticScores
    semantic_standard: SemanticScores
    semantic_published: SemanticScores
    precision: AveragePrecision


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate_maps` found.

    matched: by the paper's matching (Hungarian, then largest overlap; classes absent from the truth left out);
    careful: without Hungarian pairs that hardly overlap; the difference is what the "matching trap" costs.
    agnostic: AP of things of whatever class, without a matching. fixed: the assignment was given, so `matched` and
    `careful` are the same. void_share: share of the judged pixels predicted void.
    """

    keys: tuple[str, ...]
    taxonomy: Taxonomy
    pseudo_is_thing: Bool[np.ndarray, "p"]
    settings: EvaluationSettings
    matched: MatchedScores
    careful: MatchedScores
    agnostic: AveragePrecision
    objects: ObjectCounts
    void_share: float
    fixed: bool = False

    def table(self) -> str:
        """The scores as text: both protocols, the matching trap, AP, recall, and a line a class."""
        parts = [_score_lines(self), _precision_lines(self), _recall_lines(self), _class_lines(self)]
        return "\n".join([self._heading(), "\n\n".join("\n".join(lines) for lines in parts)])

    def _heading(self) -> str:
        frames = f"{len(self.keys)} frame" + ("s" if len(self.keys) != 1 else "")
        how = "by a given assignment" if self.fixed else "as in the paper"
        return (
            f"{frames}, {len(self.pseudo_is_thing)} pseudo classes matched {how} to {len(self.taxonomy)} classes, "
            f"{100 * self.void_share:.1f} % of the pixels predicted void; all figures in %\n"
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values for JSON, figures of classes by name; undefined figures are null."""
        return {
            "frames": list(self.keys),
            "classes": list(self.taxonomy.names),
            "pseudo_is_thing": self.pseudo_is_thing.tolist(),
            "settings": asdict(self.settings),
            "assignment_given": self.fixed,
            "matched": _matched_dict(self.matched, self.taxonomy.names),
            "careful": _matched_dict(self.careful, self.taxonomy.names),
            "class_agnostic_ap": _precision_dict(self.agnostic),
            "objects": _plain({**asdict(self.objects), **_shares(self.objects)}),
            "void_share": _plain(self.void_share),
        }


def evaluate_maps(
    maps: Iterable[Judged],
    taxonomy: Taxonomy,
    pseudo_is_thing: Bool[np.ndarray, "p"],
    settings: EvaluationSettings = EvaluationSettings(),
    assignment: Int64[np.ndarray, "p"] | None = None,
) -> Evaluation:
    """Scores predictions in pseudo classes 0..p-1 against truth in the classes of `taxonomy`.

    The pseudo classes are matched over all maps together; `assignment` (class of each pseudo class) replaces the
    matching. True pixels of a thing class without instance are crowds in the standard protocol and for AP. Maps are
    taken one at a time and not kept. Raises `ValueError` where a prediction and its truth differ in size.
    """
    is_thing = np.array(taxonomy.is_thing, bool)
    keys: list[str] = []
    images: list[Contingency] = []
    moving: list[frozenset[int] | None] = []
    crowds = [(int(c), 0) for c in np.flatnonzero(is_thing)]
    for one in maps:
        size, true_size = one.prediction.classes.shape, one.truth.classes.shape
        if size != true_size:
            raise ValueError(f"{one.key}: prediction {size} and truth {true_size} differ")
        table = contingency(one.prediction.stacked(), one.truth.stacked(), crowds, one.scores)
        keys.append(one.key)
        images.append(without_small_things(table, is_thing, settings.min_thing_area))
        moving.append(one.moving)
    confusion = confusion_of(images, len(pseudo_is_thing), len(taxonomy))

    def scores(minimum_iou: float) -> MatchedScores:
        if assignment is not None:
            return _matched(images, is_thing, confusion, assignment, assignment)
        return _matched(
            images,
            is_thing,
            confusion,
            match_classes(confusion.counts, pseudo_is_thing, is_thing, drop_absent=True, minimum_iou=minimum_iou),
            match_classes(confusion.counts, drop_absent=True, minimum_iou=minimum_iou),
        )

    matched = scores(0.0)
    void = confusion.predicted_void.sum()
    judged = confusion.counts.sum() + void
    return Evaluation(
        tuple(keys),
        taxonomy,
        pseudo_is_thing,
        settings,
        matched,
        scores(settings.minimum_iou),
        agnostic_average_precision(images, is_thing, pseudo_is_thing),
        count_objects(zip(images, moving, strict=True), is_thing, pseudo_is_thing, settings.recall_area),
        float(void / judged) if judged else float("nan"),
        assignment is not None,
    )


def _matched(
    images: list[Contingency],
    is_thing: Bool[np.ndarray, "c"],
    confusion: ConfusionMatrix,
    assignment: Int64[np.ndarray, "p"],
    semantic_assignment: Int64[np.ndarray, "p"],
) -> MatchedScores:
    return MatchedScores(
        assignment,
        semantic_assignment,
        panoptic_scores(images, is_thing, "standard", assignment),
        panoptic_scores(images, is_thing, "published", assignment),
        confusion.compute(semantic_assignment, "standard"),
        confusion.compute(semantic_assignment, "published"),
        average_precision(images, is_thing, assignment),
    )


def _percent(value: float, width: int = 7) -> str:
    return f"{'-':>{width}}" if np.isnan(value) else f"{100 * value:{width}.1f}"


def _score_lines(result: Evaluation) -> list[str]:
    head = f"{'':34}{'PQ':>7}{'SQ':>7}{'RQ':>7}{'things':>9}{'stuff':>7}{'mIoU':>9}{'acc.':>7}"
    rows = [
        ("published protocol", result.matched.published, result.matched.semantic_published),
        ("standard protocol", result.matched.standard, result.matched.semantic_standard),
    ]
    if not result.fixed:
        note = f"  only pairs of IoU > {result.settings.minimum_iou:g}"
        rows.insert(1, (note, result.careful.published, result.careful.semantic_published))
        rows.append((note, result.careful.standard, result.careful.semantic_standard))
    lines = [head]
    for name, panoptic, semantic in rows:
        lines.append(
            f"{name:34}{_percent(panoptic.all.pq)}{_percent(panoptic.all.sq)}{_percent(panoptic.all.rq)}"
            f"{_percent(panoptic.things.pq, 9)}{_percent(panoptic.stuff.pq)}"
            f"{_percent(semantic.miou, 9)}{_percent(semantic.accuracy)}"
        )
    return lines


def _precision_lines(result: Evaluation) -> list[str]:
    lines = [
        f"{'mask AP of things':34}{'AP':>7}{'AP50':>7}{'AP75':>7}{'small':>9}{'medium':>9}{'large':>9}"
        f"{'true':>7}{'predicted':>11}"
    ]
    rows = [("class-agnostic", result.agnostic), ("classes matched as for PQ", result.matched.precision)]
    if not result.fixed:
        rows.append((f"  only pairs of IoU > {result.settings.minimum_iou:g}", result.careful.precision))
    for name, scores in rows:
        lines.append(
            f"  {name:32}{_percent(scores.ap)}{_percent(scores.ap50)}{_percent(scores.ap75)}"
            f"{_percent(scores.small, 9)}{_percent(scores.medium, 9)}{_percent(scores.large, 9)}"
            f"{scores.objects:7}{scores.predicted:11}"
        )
    return lines


def _recall_lines(result: Evaluation) -> list[str]:
    objects = result.objects
    lines = [f"{f'true things of {result.settings.recall_area} px or more':34}{'found':>7}{'of':>7}{'recall':>9}"]
    kinds: list[tuple[str, Recall | None]] = [
        ("all", objects.things),
        ("moving", objects.moving),
        ("standing", objects.standing),
        (f"standing, under {SMALL * result.settings.recall_area} px", objects.small),
    ]
    for name, recall in kinds:
        if recall is not None:
            lines.append(f"  {name:32}{recall.found:7}{recall.total:7}{_percent(recall.share, 9)}")
    lines.append(f"  {objects.false_objects} of {objects.predicted} predicted objects are no true thing")
    return lines


def _class_lines(result: Evaluation) -> list[str]:
    """A line for each class that occurs, in the standard protocol and the paper's matching."""
    scores, semantic = result.matched.standard, result.matched.semantic_standard
    lines = [
        f"{'class (standard protocol)':34}{'PQ':>7}{'SQ':>7}{'RQ':>7}{'IoU':>9}{'AP':>7}"
        f"{'true':>9}{'missed':>9}{'false':>7}  pseudo classes"
    ]
    for c in np.flatnonzero(scores.counted):
        pseudo = ", ".join(str(p) for p in np.flatnonzero(result.matched.assignment == c)) or "none"
        kind = "thing" if result.taxonomy.is_thing[c] else "stuff"
        lines.append(
            f"  {result.taxonomy.names[c] + ', ' + kind:32}{_percent(scores.pq[c])}{_percent(scores.sq[c])}"
            f"{_percent(scores.rq[c])}{_percent(semantic.iou[c], 9)}"
            f"{_percent(result.matched.precision.per_class[c])}"
            f"{scores.true_positives[c] + scores.false_negatives[c]:9}{scores.false_negatives[c]:9}"
            f"{scores.false_positives[c]:7}  {pseudo}"
        )
    return lines


def _matched_dict(scores: MatchedScores, names: tuple[str, ...]) -> dict[str, Any]:
    return {
        "assignment": scores.assignment.tolist(),
        "semantic_assignment": scores.semantic_assignment.tolist(),
        "standard": _panoptic_dict(scores.standard, names) | _semantic_dict(scores.semantic_standard, names),
        "published": _panoptic_dict(scores.published, names) | _semantic_dict(scores.semantic_published, names),
        "ap": _precision_dict(scores.precision, names),
    }


def _panoptic_dict(scores: PanopticScores, names: tuple[str, ...]) -> dict[str, Any]:
    figures = ("pq", "sq", "rq", "iou_sum", "true_positives", "false_positives", "false_negatives")
    return {
        **{kind: _plain(asdict(getattr(scores, kind))) for kind in ("all", "things", "stuff")},
        "per_class": {
            names[c]: {figure: _plain(getattr(scores, figure)[c].item()) for figure in figures}
            for c in np.flatnonzero(scores.counted)
        },
    }


def _semantic_dict(scores: SemanticScores, names: tuple[str, ...]) -> dict[str, Any]:
    iou = {name: _plain(value) for name, value in zip(names, scores.iou.tolist(), strict=True) if not np.isnan(value)}
    return {"miou": _plain(scores.miou), "accuracy": _plain(scores.accuracy), "iou": iou}


def _precision_dict(scores: AveragePrecision, names: tuple[str, ...] = ()) -> dict[str, Any]:
    """names: of the classes, where they are told apart."""
    content = {name: _plain(value) for name, value in asdict(scores).items() if name != "per_class"}
    if not names:
        return content
    per_class = zip(names, scores.per_class.tolist(), strict=True)
    return content | {"per_class": {name: _plain(value) for name, value in per_class if not np.isnan(value)}}


def _shares(objects: ObjectCounts) -> dict[str, Any]:
    recalls = {"things": objects.things, "moving": objects.moving, "standing": objects.standing, "small": objects.small}
    return {name: None if r is None else {**asdict(r), "share": r.share} for name, r in recalls.items()}


def _plain(value: Any) -> Any:
    """Rounded floats, null for NaN, through dictionaries."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, float):
        return None if np.isnan(value) else round(value, 6)
    return value
