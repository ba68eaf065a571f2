"""Networks on disk: `model.safetensors` holds the weights, `model.json` the settings, class numbers and a card."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, get_args, get_type_hints

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from cupola import __version__
from cupola.config import plain
from cupola.errors import CheckpointError
from cupola.io import write_bytes, write_json
from cupola.models.architectures import ARCHITECTURES, architecture_of, build_network
from cupola.models.interface import PanopticModel

WEIGHTS = "model.safetensors"
CARD = "model.json"
FORMAT = 1
"""Version of the two files; a reader refuses later ones."""


def save_network(directory: Path, network: PanopticModel, card: dict[str, Any]) -> None:
    """Writes `model.safetensors` and `model.json` into `directory`, each atomically, the card last. Raises `DiskError`.

    card: what else a reader wants to know, such as `things` and `stuff` (pseudo class of each detection class and of
    each stuff channel); plain values.
    """
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    write_bytes(directory / WEIGHTS, save_tensors(weights))
    content = {
        "format": FORMAT,
        "cupola": __version__,
        "architecture": architecture_of(network.settings),
        "num_things": network.num_things,
        "num_stuff": network.num_stuff,
        "settings": plain(network.settings),
        "card": plain(card),
    }
    write_json(directory / CARD, content)


def load_network(directory: Path) -> tuple[PanopticModel, dict[str, Any]]:
    """The network of `directory` on the CPU, in evaluation mode, and its card.

    Raises `CheckpointError` if a file is missing or damaged, or if weights and settings do not fit together.
    """
    content = _read_card(directory / CARD)
    try:
        name = str(content.get("architecture", "cascade"))  # the only one there was before the field
        if name not in ARCHITECTURES:
            raise ValueError(f"there is no architecture {name!r}, known are {', '.join(ARCHITECTURES)}")
        settings = settings_from(ARCHITECTURES[name], content["settings"])
        network = build_network(settings, int(content["num_things"]), int(content["num_stuff"]))
        card = dict(content["card"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{directory / CARD} does not describe a network ({error}); copy it again") from error
    _load_weights(directory / WEIGHTS, network)
    return network.eval(), card


def settings_from(kind: type[Any], values: dict[str, Any]) -> Any:
    """A settings dataclass from what `cupola.config.plain` made of it. Raises `ValueError` on an unknown name."""
    hints = get_type_hints(kind)
    fields = {field.name for field in dataclasses.fields(kind)}
    unknown = sorted(set(values) - fields)
    if unknown:
        raise ValueError(f"{kind.__name__} has no setting {unknown[0]!r}")
    return kind(**{name: _setting(hints[name], value) for name, value in values.items()})


def _setting(hint: Any, value: Any) -> Any:
    """One setting; where it may be one of several dataclasses, the names in it tell which."""
    kinds = [kind for kind in (get_args(hint) or (hint,)) if isinstance(kind, type) and dataclasses.is_dataclass(kind)]
    if not kinds or not isinstance(value, dict):
        return _tuples(value)
    fitting = [kind for kind in kinds if value.keys() <= {field.name for field in dataclasses.fields(kind)}]
    return settings_from(next(iter(fitting), kinds[0]), value)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _read_card(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist; give the directory of a trained network") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON; copy it again") from error
    if not isinstance(content, dict) or not isinstance(content.get("format"), int):
        raise CheckpointError(f"{path} is not the card of a network of cupola")
    if content["format"] > FORMAT:
        raise CheckpointError(f"{path} was written by a later cupola ({content.get('cupola')}); update cupola")
    return content


def _load_weights(path: Path, network: PanopticModel) -> None:
    try:
        weights = load_tensors(path.read_bytes())
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist; copy the whole directory of the network") from error
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); copy it again") from error
    expected = network.state_dict()
    for name in sorted(expected.keys() | weights.keys()):
        if name not in weights or name not in expected:
            state = "misses" if name not in weights else "holds an unknown"
            raise CheckpointError(f"{path} {state} parameter {name}; its card describes another network")
        if weights[name].shape != expected[name].shape:
            raise CheckpointError(
                f"{path}: {name} is {list(weights[name].shape)}, but {network.num_things} thing and "
                f"{network.num_stuff} stuff classes and the settings of its card need {list(expected[name].shape)}"
            )
    network.load_state_dict(weights)
