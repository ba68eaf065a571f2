"""Learning DepthG's head and cluster probe without any label, on the features of a frozen backbone (spec-stage1 5.5).

The papers: "Unsupervised Semantic Segmentation Through Depth-Guided Feature Correlation and Sampling" (DepthG, CVPR
2024) on "Unsupervised Semantic Segmentation by Distilling Feature Correspondences" (STEGO, ICLR 2022).
"""

from cupola.semantics.learning.command import LearnedSemantics, learn_semantics
from cupola.semantics.learning.settings import (
    RECIPES,
    CityscapesRecipe,
    DepthSettings,
    SmallRecipe,
    TermSettings,
)

__all__ = [
    "RECIPES",
    "CityscapesRecipe",
    "DepthSettings",
    "LearnedSemantics",
    "SmallRecipe",
    "TermSettings",
    "learn_semantics",
]
