"""What the pseudo classes of a network are called: by its card, a matching to true classes, or a file of names."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cupola.errors import CheckpointError, ConfigError
from cupola.io.coco_panoptic import Category
from cupola.taxonomy import CITYSCAPES_27
from cupola.types import VOID
from cupola.visualize import Color, class_palette, matched_palette


@dataclass(frozen=True)
class ClassSystem:
    """The pseudo classes of a network: names, colours and which are things, indexed by pseudo class id. Several pseudo
    classes may share a name, where one true class was found in parts."""

    names: tuple[str, ...]
    things: tuple[int, ...]
    stuff: tuple[int, ...]
    colors: tuple[Color, ...]

    def categories(self) -> list[Category]:
        """As COCO panoptic categories."""
        return [
            Category(c, self.names[c], c in self.things, self.colors[c]) for c in sorted({*self.things, *self.stuff})
        ]

    def legend(self, present: Collection[int] | None = None) -> list[tuple[str, Color]]:
        """Names and colours, each once, things first; of the classes that are `present` (ids), of all by default."""
        chosen = [c for c in (*sorted(self.things), *sorted(self.stuff)) if present is None or c in present]
        return list(dict.fromkeys((self.names[c], self.colors[c]) for c in chosen))


def class_system(card: Mapping[str, Any], names: Path | None = None) -> ClassSystem:
    """The classes of a network from its card, named by the file `names`, else by the card, else by their numbers.

    A class named as in Cityscapes has its colour there; where some are named, the others are grey. names: result.json
    of `cupola evaluate`, whose matching is taken, or YAML or JSON {id: name}.

    Raises `CheckpointError` where the card does not name its classes properly, `ConfigError` where the file does not.
    """
    things, stuff = _ids(card, "things"), _ids(card, "stuff")
    count = max((*things, *stuff), default=-1) + 1
    named = _card_names(card, count) if names is None else _file_names(names, things, stuff)
    palette = class_palette(count)
    targets = [CITYSCAPES_27.names.index(named[c]) if _is_true(named.get(c)) else VOID for c in range(count)]
    matched = matched_palette(targets, CITYSCAPES_27)
    colors = [matched[c] if named and (targets[c] >= 0 or c not in named) else palette[c] for c in range(count)]
    return ClassSystem(tuple(named.get(c, f"class {c}") for c in range(count)), things, stuff, tuple(colors))


def _is_true(name: str | None) -> bool:
    return name in CITYSCAPES_27.names


def _ids(card: Mapping[str, Any], kind: str) -> tuple[int, ...]:
    try:
        ids = tuple(int(c) for c in card[kind])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"the card of the network names no {kind} classes; train or convert it again") from error
    if any(not 0 <= c <= 0x7FFF for c in ids):
        raise CheckpointError(f"the card of the network holds impossible {kind} classes {ids}; convert it again")
    return ids


def _card_names(card: Mapping[str, Any], count: int) -> dict[int, str]:
    try:
        return {int(c): str(name) for c, name in dict(card.get("class_names") or {}).items() if 0 <= int(c) < count}
    except (TypeError, ValueError) as error:
        raise CheckpointError("class_names in the card of the network is no {id: name}; remove or mend it") from error


def _file_names(path: Path, things: tuple[int, ...], stuff: tuple[int, ...]) -> dict[int, str]:
    """Names by pseudo class from a file. Raises `ConfigError`."""
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix.lower() == ".json" else yaml.safe_load(text)
    except OSError as error:
        raise ConfigError(f"--names {path} cannot be read: {error.strerror}") from error
    except (ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"--names {path} is neither YAML nor JSON; write lines such as `7: car`") from error
    if isinstance(content, dict) and "matched" in content:
        return _matched_names(path, content, things, stuff)
    try:
        named = {int(c): str(name) for c, name in content.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise ConfigError(f"--names {path} does not map class ids to names; write lines such as `7: car`") from error
    unknown = sorted(named.keys() - {*things, *stuff})
    if unknown:
        raise ConfigError(
            f"--names {path} names class {unknown[0]}, which the network does not have; it has "
            f"{', '.join(map(str, sorted({*things, *stuff})))}"
        )
    return named


def _matched_names(
    path: Path, content: dict[str, Any], things: tuple[int, ...], stuff: tuple[int, ...]
) -> dict[int, str]:
    """Names of the true classes that pseudo classes were matched to; those matched to nothing have none."""
    try:
        names = [str(name) for name in content["classes"]]
        assignment = [int(c) for c in content["matched"]["assignment"]]
        is_thing = [bool(kind) for kind in content["pseudo_is_thing"]]
        named = {pseudo: names[target] for pseudo, target in enumerate(assignment) if target >= 0}
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ConfigError(f"--names {path} is no complete result.json of `cupola evaluate`; make it again") from error
    count = max((*things, *stuff), default=-1) + 1
    if len(assignment) != count or {c for c in range(len(is_thing)) if is_thing[c]} != set(things):
        raise ConfigError(
            f"--names {path} is of another network: {len(assignment)} pseudo classes, {sum(is_thing)} of them things, "
            f"but this network has {count} and {len(things)}; evaluate this network's predictions"
        )
    return named
