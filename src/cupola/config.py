"""Settings are frozen dataclasses beside the code that uses them; this module saves them with every result."""

from __future__ import annotations

import dataclasses
import enum
from pathlib import Path
from typing import Any

import yaml

from cupola.io import write_text


def plain(value: Any) -> Any:
    """Settings as plain dictionaries, lists, numbers and strings: what YAML and JSON hold."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    return value


def save_config(path: Path, **arguments: Any) -> None:
    """Writes the arguments of a command as YAML; `cupola VERB --config PATH` repeats it. Raises `DiskError`."""
    write_text(path, yaml.safe_dump(plain(arguments), sort_keys=False, allow_unicode=True))
