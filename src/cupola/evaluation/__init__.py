"""Scores of panoptic maps against truth, usable alone on arrays: matching of pseudo classes, PQ, mIoU, AP, recall.

confusion = ConfusionMatrix(pseudo_classes, len(true_is_thing))
quality = PanopticQuality(true_is_thing)
for prediction, target in maps:                  # H x W x 2: (class, instance) of each pixel; outside 0..n-1 is void
    confusion.update(prediction, target)
    quality.update(prediction, target)
assignment = match_classes(confusion.counts, pseudo_is_thing, true_is_thing)
quality.compute(assignment=assignment).all.pq
average_precision(quality.images, quality.is_thing, assignment).ap
"""

from cupola.evaluation.average_precision import AveragePrecision, agnostic_average_precision, average_precision
from cupola.evaluation.contingency import Contingency, contingency
from cupola.evaluation.matching import match_classes
from cupola.evaluation.object_recall import ObjectCounts, Recall, count_objects
from cupola.evaluation.panoptic_quality import PanopticMeans, PanopticQuality, PanopticScores, panoptic_scores
from cupola.evaluation.semantic import ConfusionMatrix, SemanticScores
from cupola.evaluation.summary import Evaluation, EvaluationSettings, Judged, MatchedScores, evaluate_maps

__all__ = [
    "AveragePrecision",
    "ConfusionMatrix",
    "Contingency",
    "Evaluation",
    "EvaluationSettings",
    "Judged",
    "MatchedScores",
    "ObjectCounts",
    "PanopticMeans",
    "PanopticQuality",
    "PanopticScores",
    "Recall",
    "SemanticScores",
    "agnostic_average_precision",
    "average_precision",
    "contingency",
    "count_objects",
    "evaluate_maps",
    "match_classes",
    "panoptic_scores",
]
