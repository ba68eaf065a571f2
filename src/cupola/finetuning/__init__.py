"""A few labels: a network of pseudo classes learns true ones from annotated images (the paper's Fig. 5), and the
supervised upper bound, on the training loop of the other stages.

`annotated` reads images with truth, `subsets` draws from them, `adapting` gives the network its new class predictors,
`scored` judges it without matching, and `command` does it all.
"""

from cupola.finetuning.command import FinetuneResult, FinetuneSettings, finetune
from cupola.finetuning.scored import Tuned

__all__ = ["FinetuneResult", "FinetuneSettings", "Tuned", "finetune"]
