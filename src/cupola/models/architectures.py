"""The networks by name: presets of settings, and from settings to a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Literal

from cupola.errors import ConfigError
from cupola.models.interface import PanopticModel
from cupola.models.mask2former.settings import Mask2FormerSettings, mask2former
from cupola.models.panoptic import PanopticNetwork
from cupola.models.settings import NetworkSettings, paper, small, tiny, vit_b

ModelSettings = NetworkSettings | Mask2FormerSettings
"""Settings of any network."""

ARCHITECTURES: Mapping[str, type[ModelSettings]] = {"cascade": NetworkSettings, "mask2former": Mask2FormerSettings}
"""Name of an architecture, as model.json gives it -> its settings."""

PresetName = Literal["paper", "vit-b", "mask2former", "small", "tiny"]

PRESETS: Mapping[PresetName, Callable[[], ModelSettings]] = {
    "paper": paper,
    "vit-b": vit_b,
    "mask2former": mask2former,
    "small": small,
    "tiny": tiny,
}
"""Presets by name, as `cupola train --network` takes them."""


def architecture_of(settings: ModelSettings) -> str:
    """Its name in `ARCHITECTURES`."""
    return next(name for name, kind in ARCHITECTURES.items() if type(settings) is kind)


def build_network(settings: ModelSettings, num_things: int, num_stuff: int) -> PanopticModel:
    """An untrained network, its weights drawn by torch's own generator. Raises `ConfigError` where a Mask2Former is
    asked for and transformers is not installed."""
    if isinstance(settings, Mask2FormerSettings):
        if find_spec("transformers") is None:
            raise ConfigError("a Mask2Former needs transformers: pip install 'cupola[mask2former]'")
        from cupola.models.mask2former.network import Mask2FormerNetwork

        return Mask2FormerNetwork(settings, num_things, num_stuff)
    return PanopticNetwork(settings, num_things, num_stuff)
