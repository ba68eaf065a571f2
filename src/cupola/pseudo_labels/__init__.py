"""Stage 1c: moving objects and pseudo classes of every frame become panoptic labels in a store.

`pseudo_label` runs all of stage 1; `LabelStore` reads what it wrote; `align`, `split_classes` and `fuse` are its steps
as pure functions on arrays.
"""

from cupola.pseudo_labels.align import align, classes_of_masks
from cupola.pseudo_labels.fuse import FusionSettings, fuse
from cupola.pseudo_labels.pipeline import Parts, label_with, pseudo_label
from cupola.pseudo_labels.statistics import ClassStatistics, ThingStuffSplit, count_classes, split_classes
from cupola.pseudo_labels.store import LabelStore

__all__ = [
    "ClassStatistics",
    "FusionSettings",
    "LabelStore",
    "Parts",
    "ThingStuffSplit",
    "align",
    "classes_of_masks",
    "count_classes",
    "fuse",
    "label_with",
    "pseudo_label",
    "split_classes",
]
