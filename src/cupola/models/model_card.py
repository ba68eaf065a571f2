"""The page that goes with a network: what it is, where it comes from, what may be done with it, how good it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

FRONT = {
    "library_name": "cupola",
    "pipeline_tag": "image-segmentation",
    "tags": ["panoptic-segmentation", "unsupervised"],
}
"""What the Hugging Face hub reads: how a network is found there."""

LICENCES = {"CC BY-NC-SA 4.0": "cc-by-nc-sa-4.0", "Apache-2.0": "apache-2.0"}
"""The hub's words for licences; any other is `other`."""


def model_card_text(card: Mapping[str, Any], num_things: int, num_stuff: int) -> str:
    """README.md of a network in Markdown.

    card: as in model.json. Used of it: `source` (file, sha256, which, url, licence, training), `class_names`,
    `assignment`, `figures`, `note`, `training`, `things`, `stuff`; each may be missing.
    """
    source = card.get("source") or {}
    licence = source.get("licence") or card.get("licence")
    front = {**FRONT, **({"license": LICENCES.get(licence, "other")} if licence else {})}
    name = source.get("name") or source.get("file") or "A network of cupola"
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---",
        f"# {name}",
        f"A panoptic network with {num_things} thing and {num_stuff} stuff pseudo classes, in the format of cupola.",
        "```python\nimport cupola\n\nprediction = cupola.load('THIS FOLDER OR REPOSITORY')('photo.jpg')\n```",
        *_section("Note", [str(card["note"])] if card.get("note") else []),
        *_section("Source", _source_lines(source, licence)),
        *_section("Training", _training_lines(card.get("training") or {})),
        *_section("Figures, by its publisher or the paper; not measured again here", card.get("figures") or []),
        *_section("Classes", _class_lines(card)),
    ]
    return "\n\n".join(parts) + "\n"


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return [f"## {title}", "\n".join(f"- {line}" for line in lines)] if lines else []


def _source_lines(source: Mapping[str, Any], licence: str | None) -> list[str]:
    known = {
        "file": source.get("file"),
        "SHA-256": source.get("sha256"),
        "network": source.get("which"),
        "address": source.get("url"),
        "page": source.get("page"),
        "licence": licence or ("unknown; ask its publisher" if source else None),
    }
    lines = [f"{name}: {value}" for name, value in known.items() if value]
    return lines + [f"{name}: {value}" for name, value in (source.get("training") or {}).items()]


def _training_lines(training: Mapping[str, Any]) -> list[str]:
    told = ("steps", "frames", "objects", "self_labels", "seed", "precision", "image_size", "backbone")
    return [f"{name.replace('_', ' ')}: {training[name]}" for name in told if training.get(name) is not None]


def _class_lines(card: Mapping[str, Any]) -> list[str]:
    """One line a pseudo class where names are known; else the ids alone."""
    names = card.get("class_names") or {}
    things, stuff = card.get("things") or [], card.get("stuff") or []
    if not names:
        return [f"things: {_ids(things)}", f"stuff: {_ids(stuff)}"]
    kinds = {int(c): "thing" for c in things} | {int(c): "stuff" for c in stuff}
    lines = [f"{c}: {names.get(str(c), 'never occurs or has no name')} ({kind})" for c, kind in sorted(kinds.items())]
    about = card.get("assignment")
    return [f"names: {about['name']}; {about['note']}", *lines] if about else lines


def _ids(ids: Sequence[int]) -> str:
    return ", ".join(map(str, ids)) or "none"
