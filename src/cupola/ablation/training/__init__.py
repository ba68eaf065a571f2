"""What each part of training is worth: the rows of the paper's table 7c on the rendered street, over several seeds.

`rows` says which rows there are, `command` trains and judges them, `training_report` shows them.
"""

from cupola.ablation.training.command import TrainingAblation, ablate_training

__all__ = ["TrainingAblation", "ablate_training"]
