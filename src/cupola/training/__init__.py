"""Stages 2 and 3: the panoptic network learns from a label store, then from itself, on one plain loop (`loop.py`).

`train` and `self_train` do it all. A sample is an image and one array of codes (`targets.py`); copy-paste and
augmentation act on that; a batch is a function of (seed, step) and of what was labelled so far, so a run that was
stopped goes on as if it had not been.
"""

from cupola.training.augment import AugmentSettings
from cupola.training.bootstrap import BootstrapSettings, TrainingResult, train
from cupola.training.copy_paste import CopyPasteSettings
from cupola.training.discoveries import DiscoverySettings
from cupola.training.loop import OptimizerSettings
from cupola.training.self_labels import SelfLabelSettings
from cupola.training.self_training import SelfTrainingResult, self_train
from cupola.training.self_training_settings import SelfTrainingSettings
from cupola.training.teacher_labels import TeacherLabelSettings

__all__ = [
    "AugmentSettings",
    "BootstrapSettings",
    "CopyPasteSettings",
    "DiscoverySettings",
    "OptimizerSettings",
    "SelfLabelSettings",
    "SelfTrainingResult",
    "SelfTrainingSettings",
    "TeacherLabelSettings",
    "TrainingResult",
    "self_train",
    "train",
]
