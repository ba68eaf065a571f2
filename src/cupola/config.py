"""Settings are frozen dataclasses beside the code that uses them; this module saves them with every result."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cupola.io import write_text


@dataclass(frozen=True)
class OneOf:
    """Marks an argument as one of several settings dataclasses: `Annotated[Protocol, OneOf(METHODS)]`.

    methods: short name -> dataclass, which carries that name as a class variable `name`. The command line then takes
    `--argument NAME --argument.setting VALUE`, YAML `argument: {name: NAME, setting: VALUE}`.
    """

    methods: Mapping[str, type]


def plain(value: Any) -> Any:
    """Settings as plain dictionaries, lists, numbers and strings: what YAML and JSON hold. A method (see `OneOf`) has
    its name first."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        settings = {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        name = getattr(type(value), "name", None)
        return settings if "name" in settings or not isinstance(name, str) else {"name": name, **settings}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    return value


def indifferent(value: Any, prefix: str = "") -> frozenset[str]:
    """Dotted names of the settings in `value` (settings, or a dictionary of them) that results do not depend on, such
    as the device: a dataclass lists its own in a class variable `may_differ`."""
    inner: Mapping[str, Any]
    own: tuple[str, ...] = ()
    if isinstance(value, Mapping):
        inner = value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        inner = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        own = getattr(type(value), "may_differ", ())
    else:
        return frozenset()
    deeper = (indifferent(item, f"{prefix}{name}.") for name, item in inner.items())
    return frozenset({f"{prefix}{name}" for name in own}).union(*deeper)


def save_config(path: Path, **arguments: Any) -> None:
    """Writes the arguments of a command as YAML; `cupola VERB --config PATH` repeats it. Raises `DiskError`."""
    write_text(path, yaml.safe_dump(plain(arguments), sort_keys=False, allow_unicode=True))
