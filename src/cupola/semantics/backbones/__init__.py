"""Networks that say what each patch of an image is like: DINO, and whatever timm knows. None of them is downloaded.

`load_backbone` gives a frozen `torch.nn.Module` with `.patch` [px a cell] and `.channels`; called with normalised
images it returns features on the grid of cells. torch is imported when the first backbone is built.
"""

from __future__ import annotations

from cupola.semantics.backbones.loading import load_backbone, normalised, random_backbone
from cupola.semantics.backbones.settings import BackboneSettings, VitSizes

__all__ = ["BackboneSettings", "VitSizes", "load_backbone", "normalised", "random_backbone"]
