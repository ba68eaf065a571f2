"""From a name to a network: a path, a name of `cupola weights list`, or a repository of the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from cupola.errors import CheckpointError, DownloadError
from cupola.models import PanopticModel, load_network
from cupola.models.checkpoint import CARD, WEIGHTS
from cupola.models.hub import PretrainedNetwork
from cupola.models.published import read_published
from cupola.weights.cache import cache_folder, path_of, read_record
from cupola.weights.convert import convert
from cupola.weights.fetching import fetch
from cupola.weights.known import KNOWN, KnownFile, find_known

REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
"""How names on the hub look: user/name."""

_DIGITS = 8
"""Digits of a hash that tell two versions of a file apart."""


def find_network(name: str | Path) -> tuple[PanopticModel, dict[str, Any]]:
    """The network of that name on the CPU, in evaluation mode, and its card.

    In this order: a directory that cupola wrote; a published checkpoint; a name of `cupola weights list`, which is
    fetched and converted once; a repository of the Hugging Face hub. Raises `CheckpointError` where it is none of
    these or holds no network, `DownloadError` where it cannot be fetched.
    """
    path = Path(name)
    text = path.as_posix()
    if path.is_dir():
        return load_network(path)
    if path.name == WEIGHTS and (path.parent / CARD).is_file():
        return load_network(path.parent)
    if path.is_file():
        published = read_published(path)
        return published.network, published.card
    entry = find_known(text)
    if entry is not None and entry.kind == "network":
        return load_network(_converted(entry))
    names = ", ".join(e.name for e in KNOWN if e.kind == "network")
    if entry is not None:
        raise CheckpointError(f"{text} is {entry.what}, no panoptic network; networks are {names}")
    if not REPOSITORY.fullmatch(text):
        raise CheckpointError(
            f"{text} does not exist; give the directory of a trained network, one of {names}, or a Hugging Face "
            "repository as user/name"
        )
    try:
        found = PretrainedNetwork.from_pretrained(text)
    except DownloadError as error:
        raise DownloadError(f"there is no directory {text}, and {error}") from error
    return found.network, found.card


def _converted(entry: KnownFile) -> Path:
    """The directory of a known network, made where it is missing."""
    networks = cache_folder() / "networks"
    record = read_record(path_of(entry))
    if record is not None:
        directory = networks / f"{entry.name}-{record.sha256[:_DIGITS]}"
        if (directory / CARD).is_file():
            return directory
    path, record = fetch(entry)
    directory = networks / f"{entry.name}-{record.sha256[:_DIGITS]}"
    convert(path, directory)
    return directory
