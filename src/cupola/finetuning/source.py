"""The network that fine-tuning begins with: a trained one, wherever it is, or an untrained one by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cupola.errors import CheckpointError, ConfigError
from cupola.finetuning.adapting import adapted, untrained
from cupola.finetuning.annotated import Annotated
from cupola.finetuning.task import Trainable
from cupola.io import content_hash
from cupola.models import PRESETS, NetworkSettings, PanopticNetwork, load_backbone_weights
from cupola.models.architectures import architecture_of
from cupola.prediction import Predictor
from cupola.prediction.classes import class_system
from cupola.weights.finding import find_network

_ONLY_A_CASCADE = "only a cascade can be fine-tuned"


@dataclass(frozen=True)
class Source:
    """The network to begin with. settings: of an untrained one, which has no predictor; backbone: file of weights for
    its trunk; stamp: tells it from others."""

    name: str
    predictor: Predictor | None
    card: Mapping[str, Any]
    settings: NetworkSettings | None
    backbone: Path | None
    stamp: str

    @staticmethod
    def open(model: Path, backbone: Path | None, trainable: Trainable) -> Source:
        """Raises `CheckpointError` where it is no network that can be fine-tuned, `ConfigError` where the arguments
        contradict each other."""
        name = str(model)
        preset = None if model.exists() else next((make for known, make in PRESETS.items() if known == name), None)
        if preset is not None:
            settings = preset()
            if not isinstance(settings, NetworkSettings):
                raise ConfigError(f"{name} is of the architecture {architecture_of(settings)}; {_ONLY_A_CASCADE}")
            if trainable == "heads":
                raise ConfigError(
                    f"{name} is an untrained network, in which there is nothing worth freezing; add --trainable all, "
                    "or name a trained network"
                )
            stamp = "" if backbone is None else content_hash(_existing(backbone))
            return Source(name, None, {}, settings, backbone, f"{name} {stamp}")
        if backbone is not None:
            raise ConfigError(f"--backbone is for an untrained network; {name} has a trunk already")
        network, card = find_network(model)
        if not isinstance(network, PanopticNetwork):
            raise CheckpointError(
                f"{name} is of the architecture {architecture_of(network.settings)}; {_ONLY_A_CASCADE}"
            )
        predictor = Predictor(network, class_system(card), torch.device("cpu"))
        return Source(name, predictor, card, None, None, predictor.fingerprint())

    def network(self, train: Annotated, seed: int) -> PanopticNetwork:
        """Made ready for the classes of the truth."""
        if self.predictor is not None:
            assert isinstance(self.predictor.network, PanopticNetwork)
            return adapted(self.predictor.network, self.card, train.taxonomy, seed)
        assert self.settings is not None
        new = untrained(self.settings, train.taxonomy, seed)
        if self.backbone is not None:
            load_backbone_weights(new, self.backbone)
        return new


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist; give --backbone the file of a trunk's weights (docs/weights.md)")
    return path
