"""Published files become safetensors with a card: networks, backbones, optical flow, DepthG."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from cupola.correspondence.raft.weights import read_raft
from cupola.errors import CheckpointError, StoreError
from cupola.io import content_hash, read_checkpoint, write_bytes, write_text
from cupola.models.backbone_files import is_trunk, read_trunk, to_torchvision
from cupola.models.checkpoint import CARD, save_network
from cupola.models.hub import README
from cupola.models.model_card import model_card_text
from cupola.models.published import FOREIGN, Which, is_network, network_from
from cupola.semantics.backbones.weights import named_tensors
from cupola.semantics.depthg.checkpoint import read_depthg, save_depthg
from cupola.weights.known import Kind, KnownFile, find_known
from cupola.weights.records import Converted

FORMAT = "cupola backbone 1"
"""Mark of the backbones that are written here."""

_MARKS: dict[Kind, Callable[[str], bool]] = {
    "depthg": lambda name: name.startswith(("net.cluster1.", "cluster_probe.")),
    "raft": lambda name: "feature_encoder.convnormrelu." in name or "fnet.conv1." in name,
    "transformer": lambda name: name.endswith("patch_embed.proj.weight"),
}
"""Kind -> whether a parameter is one that only files of this kind have; asked in this order."""

_DIGITS = 8
"""Digits of a hash that tell two files of one name apart."""


def kind_of(content: Any, source: Path) -> Kind:
    """What a file holds, by the names of its parameters. Raises `CheckpointError` for anything else."""
    if is_network(content):
        return "network"
    names = _names(content)
    for kind, is_mark in _MARKS.items():
        if any(is_mark(name) for name in names):
            return kind
    if is_trunk(content):
        return "backbone"
    held = ", ".join(names[:3]) or f"a {type(content).__name__}"
    raise CheckpointError(
        f"{source} holds no weights that cupola knows, but {held}; `cupola weights list` shows what it knows"
    )


def convert(source: Path, out: Path, which: Which = "student", assignment: str = "auto") -> Converted:
    """Writes `source` as safetensors with a card into the directory `out`.

    A network becomes model.safetensors, model.json and README.md; anything else <stem>.safetensors and <stem>.md, which
    the options that take the published file take as well. Raises `CheckpointError`, `ConfigError`, `DiskError`, and
    `StoreError` where `out` holds another network.
    """
    content = read_checkpoint(source, settings=FOREIGN)
    kind = kind_of(content, source)
    entry = find_known(source.name)
    if kind == "network":
        return _network(content, source, out, which, assignment, entry)
    about = _WRITERS[kind](content, source, out / f"{source.stem}.safetensors")
    page = out / f"{source.stem}.md"
    write_text(page, _page(source, about, entry))
    return Converted(kind, (about.file, page), about.text, about.ignored)


def source_facts(source: Path, entry: KnownFile | None) -> dict[str, Any]:
    """What a card says of where a file comes from."""
    facts = {"file": source.name, "sha256": content_hash(source)}
    if entry is None:
        return facts
    found = {"name": entry.name, "url": entry.url, "page": entry.page, "licence": entry.licence}
    return facts | {name: value for name, value in found.items() if value is not None}


def _network(
    content: Any, source: Path, out: Path, which: Which, assignment: str, entry: KnownFile | None
) -> Converted:
    published = network_from(content, source, which=which, assignment=assignment)
    card = dict(published.card)
    card["source"] = card["source"] | source_facts(source, entry)
    if entry is not None and entry.figures:
        card["figures"] = list(entry.figures)
    _require_free(out, card["source"])
    network = published.network
    save_network(out, network, card)
    write_text(out / README, model_card_text(card, network.num_things, network.num_stuff))
    about = f"{which} with {network.num_things} thing and {network.num_stuff} stuff pseudo classes"
    named = f", named by {card['assignment']['name']}" if "assignment" in card else ""
    files = (out / "model.safetensors", out / CARD, out / README)
    return Converted("network", files, about + named, published.ignored)


def _require_free(out: Path, source: Mapping[str, Any]) -> None:
    """Raises `StoreError` where `out` holds another network than that of the source."""
    path = out / CARD
    if not path.exists():
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))["card"]["source"]
    except (OSError, ValueError, KeyError, TypeError):
        before = {}
    if (before.get("sha256"), before.get("which")) != (source["sha256"], source["which"]):
        raise StoreError(f"{out} holds another network already; choose another --out")


@dataclass(frozen=True)
class _Written:
    file: Path
    text: str
    ignored: tuple[str, ...] = ()


def _backbone(content: Any, source: Path, path: Path) -> _Written:
    """In torchvision's names, which all readers of backbones know."""
    state, report = read_trunk(content, source)
    _save({to_torchvision(name): tensor for name, tensor in state.items()}, source, path)
    return _Written(path, f"a ResNet in {report.naming} names, now in torchvision's", report.ignored)


def _transformer(content: Any, source: Path, path: Path) -> _Written:
    state = named_tensors(content, source)
    _save(state, source, path)
    return _Written(path, f"a transformer of {state['patch_embed.proj.weight'].shape[0]} channels")


def _depthg(_: Any, source: Path, path: Path) -> _Written:
    network = read_depthg(source)
    card = {**network.card, "source": source_facts(source, find_known(source.name))}
    save_depthg(path, network.backbone, network.head, network.probe, card)
    return _Written(path, f"DepthG with {len(network.probe.clusters)} pseudo classes")


def _raft(_: Any, source: Path, path: Path) -> _Written:
    """RAFT's reader keeps what it converts, under a name of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    variant, _state = read_raft(source, cache=path.parent)
    kept = path.with_name(f"{source.stem}-{content_hash(source)[:_DIGITS]}.safetensors")
    return _Written(kept, f"RAFT, {variant.value}")


_WRITERS: dict[Kind, Callable[[Any, Path, Path], _Written]] = {
    "backbone": _backbone,
    "transformer": _transformer,
    "depthg": _depthg,
    "raft": _raft,
}


def _save(state: Mapping[str, Tensor], source: Path, path: Path) -> None:
    from safetensors.torch import save

    about = {"format": FORMAT, "source": source.name, "sha256": content_hash(source)}
    write_bytes(path, save({name: tensor.contiguous() for name, tensor in state.items()}, metadata=about))


def _page(source: Path, written: _Written, entry: KnownFile | None) -> str:
    facts = source_facts(source, entry)
    lines = [f"- {name}: {value}" for name, value in facts.items()]
    lines += [] if entry else ["- licence: unknown; ask its publisher"]
    what = entry.what if entry else written.text
    return "\n".join([f"# {written.file.name}", "", f"{what[:1].upper()}{what[1:]}; converted from:", "", *lines, ""])


def _names(content: Any) -> list[str]:
    """Names of the tensors, or of what else there is, innermost container."""
    for key in ("teacher", "state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    return [str(name) for name in content] if isinstance(content, Mapping) else []
