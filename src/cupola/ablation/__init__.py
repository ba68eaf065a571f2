"""What each part is worth: the rows of the paper's ablation tables, measured on data with truth.

`rows` says which rows there are, `kept` lets them share what they have in common, `measure` scores them,
`ablation_report` shows them beside the paper's figures. That is stage 1; `training` does the same for stages 2 and 3.
"""

from cupola.ablation.command import Ablation, ablate_pseudo_labels
from cupola.ablation.rows import Row, ablation_rows
from cupola.ablation.settings import AblationWeights
from cupola.ablation.training import TrainingAblation, ablate_training

__all__ = [
    "Ablation",
    "AblationWeights",
    "Row",
    "TrainingAblation",
    "ablate_pseudo_labels",
    "ablate_training",
    "ablation_rows",
]
