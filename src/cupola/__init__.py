"""cupola: a panoptic network from nothing but stereo video.

Each command of the command line has the same name and arguments here; importing this package pulls in no torch.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "AblationWeights": "cupola.ablation",
    "CrfSettings": "cupola.semantics.crf",
    "Prediction": "cupola.prediction",
    "ablate_pseudo_labels": "cupola.ablation",
    "ablate_training": "cupola.ablation",
    "convert_weights": "cupola.weights",
    "demo": "cupola.demonstration",
    "dense_crf": "cupola.semantics.crf",
    "doctor": "cupola.diagnosis",
    "evaluate": "cupola.scoring",
    "export_labels": "cupola.pseudo_labels",
    "export_onnx": "cupola.export",
    "finetune": "cupola.finetuning",
    "get_weights": "cupola.weights",
    "import_labels": "cupola.pseudo_labels",
    "inspect": "cupola.inspection",
    "learn_semantics": "cupola.semantics.learning",
    "list_weights": "cupola.weights",
    "load": "cupola.prediction",
    "open_dataset": "cupola.data",
    "predict": "cupola.prediction",
    "pseudo_label": "cupola.pseudo_labels",
    "render": "cupola.data.synthetic",
    "self_train": "cupola.training",
    "semantic_maps": "cupola.semantics.command",
    "train": "cupola.training",
    "verify_weights": "cupola.weights",
}
"""Where each public name lives; it is imported when first asked for."""

__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'cupola' has no attribute {name!r}")
