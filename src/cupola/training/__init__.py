"""Stage 2: the panoptic network learns from a label store, on one plain loop (`loop.py`).

`train` does it all. A sample is an image and one array of codes (`targets.py`); copy-paste and augmentation act on
that; a batch is a function of (seed, step), so a run that was stopped goes on as if it had not been.
"""

from cupola.training.augment import AugmentSettings
from cupola.training.bootstrap import BootstrapSettings, TrainingResult, train
from cupola.training.copy_paste import CopyPasteSettings
from cupola.training.loop import OptimizerSettings
from cupola.training.self_labels import SelfLabelSettings

__all__ = [
    "AugmentSettings",
    "BootstrapSettings",
    "CopyPasteSettings",
    "OptimizerSettings",
    "SelfLabelSettings",
    "TrainingResult",
    "train",
]
