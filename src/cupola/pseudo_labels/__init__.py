"""Stage 1c: moving objects and pseudo classes of every frame become panoptic labels in a store.

`pseudo_label` runs all of stage 1; `LabelStore` reads what it wrote; `align`, `split_classes` and `fuse` are its steps
as pure functions on arrays. `import_labels` and `export_labels` exchange labels with the published code.
"""

from cupola.pseudo_labels.align import align, classes_of_masks
from cupola.pseudo_labels.exporting import ExportedLabels, export_labels
from cupola.pseudo_labels.fuse import FusionSettings, fuse
from cupola.pseudo_labels.importing import import_labels
from cupola.pseudo_labels.pipeline import Parts, label_with, pseudo_label
from cupola.pseudo_labels.statistics import ClassStatistics, ThingStuffSplit, count_classes, split_classes
from cupola.pseudo_labels.store import LabelStore

__all__ = [
    "ClassStatistics",
    "ExportedLabels",
    "FusionSettings",
    "LabelStore",
    "Parts",
    "ThingStuffSplit",
    "align",
    "classes_of_masks",
    "count_classes",
    "export_labels",
    "fuse",
    "import_labels",
    "label_with",
    "pseudo_label",
    "split_classes",
]
