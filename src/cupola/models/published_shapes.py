"""Which network a set of published weights belongs to, read from the shapes alone (spec-network 1.13)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from cupola.errors import CheckpointError
from cupola.models.settings import NetworkSettings, TrunkSettings, paper

TRUNK = "backbone.bottom_up."
STEM = f"{TRUNK}stem.conv1.weight"
"""Every published network has this parameter; what stands before it is the wrapper's."""

SEMANTIC = "sem_seg_head."
ONE_BOX_HEAD = "roi_heads.box_head.fc1.weight"
"""Mask R-CNN's; the cascade has `roi_heads.box_head.0.fc1.weight`."""


@dataclass(frozen=True)
class NetworkShape:
    """Settings and class numbers. has_semantic_head: whether the file holds one (CutLER's detectors do not)."""

    settings: NetworkSettings
    num_things: int
    num_stuff: int
    has_semantic_head: bool


def network_shape(state: Mapping[str, Tensor], source: Path) -> NetworkShape:
    """The paper's network with the sizes found in `state` (published names, without a wrapper's prefix).

    Raises `CheckpointError`, naming `source`, where a tensor that tells a size is missing or has other axes.
    """
    if ONE_BOX_HEAD in state:
        raise CheckpointError(
            f"{source} is a Mask R-CNN with one box head, and cupola knows only the cascade of three; take the file of "
            "the cascade (CutLER: cutler_cascade_final.pth)"
        )
    things = _shape(state, "roi_heads.mask_head.predictor.bias", 1, source)[0]
    semantic = any(name.startswith(SEMANTIC) for name in state)
    stuff = _shape(state, f"{SEMANTIC}predictor.bias", 1, source)[0] - 1 if semantic else 0
    return NetworkShape(_settings(state, source, semantic), things, stuff, semantic)


def _settings(state: Mapping[str, Tensor], source: Path, semantic: bool) -> NetworkSettings:
    base = paper()
    stages = [f"{TRUNK}res{stage}" for stage in range(2, 6)]
    two, three, four, five = [_count(state, rf"{re.escape(stage)}\.(\d+)\.") for stage in stages]
    widths = [_shape(state, f"{stage}.0.conv1.weight", 4, source)[0] for stage in stages]
    stem = _shape(state, STEM, 4, source)[0]
    head = base.semantic
    if semantic:
        head = replace(head, channels=_shape(state, f"{SEMANTIC}predictor.weight", 4, source)[1])
    return replace(
        base,
        trunk=TrunkSettings(
            stem=stem,
            blocks=(two, three, four, five),
            widths=(widths[0], widths[1], widths[2], widths[3]),
        ),
        fpn_channels=_shape(state, "backbone.fpn_output2.weight", 4, source)[0],
        rpn=replace(base.rpn, channels=_shape(state, "proposal_generator.rpn_head.conv.weight", 4, source)[0]),
        box=replace(base.box, channels=_shape(state, "roi_heads.box_head.0.fc1.weight", 2, source)[0]),
        mask=replace(
            base.mask,
            convolutions=_count(state, r"roi_heads\.mask_head\.mask_fcn(\d+)\."),
            channels=_shape(state, "roi_heads.mask_head.deconv.weight", 4, source)[0],
        ),
        semantic=head,
    )


def _shape(state: Mapping[str, Tensor], name: str, axes: int, source: Path) -> tuple[int, ...]:
    if name not in state:
        raise CheckpointError(f"{source} holds no network that cupola knows: it lacks {name}")
    if state[name].ndim != axes:
        raise CheckpointError(
            f"{source} holds no network that cupola knows: {name} has the shape {tuple(state[name].shape)}, where "
            f"{axes} axes are expected"
        )
    return tuple(state[name].shape)


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    """How many different numbers stand in the group of the pattern."""
    return len({found[1] for name in state if (found := re.match(pattern, name))})
