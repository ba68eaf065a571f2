"""A result directory belongs to one run: `config.yaml` says which."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml

from cupola.config import indifferent, plain, save_config
from cupola.errors import StoreError

CONFIG = "config.yaml"


def claim(directory: Path, free: Collection[str], **arguments: Any) -> None:
    """Writes config.yaml, or checks that the one that is there asks for the same. Raises `StoreError`.

    free: arguments that may differ between the two, such as where results lie and which device runs. Settings that are
    `indifferent` may differ too.
    """
    path = directory / CONFIG
    if not path.is_file():
        save_config(path, **arguments)
        return
    try:
        before = yaml.safe_load(path.read_text(encoding="utf-8"))
        before = _flat(before if isinstance(before, dict) else {})
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise StoreError(f"{path} cannot be read; delete {directory} or choose another --out") from error
    now = _flat({name: value for name, value in plain(arguments).items() if name not in free})
    without_effect = indifferent(arguments)
    for name, value in now.items():
        if name not in without_effect and (name not in before or before[name] != value):
            there = before.get(name, "no such setting")
            raise StoreError(
                f"{directory} holds a run of other settings ({name}: {there} there, {value} now); choose another "
                "--out, or delete it to begin anew"
            )


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted name."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
