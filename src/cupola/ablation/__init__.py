"""What each part of stage 1 is worth: the rows of the paper's ablation tables, measured on data with truth.

`rows` says which rows there are, `kept` lets them share what they have in common, `measure` scores them,
`ablation_report` shows them beside the paper's figures.
"""

from cupola.ablation.command import Ablation, ablate_pseudo_labels
from cupola.ablation.rows import Row, ablation_rows
from cupola.ablation.settings import AblationWeights

__all__ = ["Ablation", "AblationWeights", "Row", "ablate_pseudo_labels", "ablation_rows"]
