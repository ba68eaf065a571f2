"""Stage 1 by name: the arguments of `pseudo_label` that make it the paper's, from a folder of weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cupola.correspondence import RaftCorrespondence
from cupola.motion import PublishedSf2se3Segmenter, Sf2se3Segmenter
from cupola.pseudo_labels.detail import AS_FOUND
from cupola.pseudo_labels.fuse import PAPER_FUSION
from cupola.semantics import DepthgSemantics, PublishedDepthgSemantics

SMURF, DEPTHG = "raft_smurf.pt", "depthg.ckpt"
"""Names under which the paper's weights are published (docs/weights.md)."""


def paper(weights: Path) -> dict[str, Any]:
    """Stage 1 as the paper means it: SMURF, SF2SE3 run eight times, DepthG with its CRF, and fusion by class.

    weights: folder that holds `raft_smurf.pt` and `depthg.ckpt`.
    """
    return {
        "correspondence": RaftCorrespondence(weights / SMURF),
        "motion": Sf2se3Segmenter(),
        "semantics": DepthgSemantics(weights / DEPTHG),
        "detail": AS_FOUND,
        "fusion": PAPER_FUSION,
    }


def published(weights: Path) -> dict[str, Any]:
    """Stage 1 as the published code runs it, with its defects (spec-stage1 7.2). weights: as for `paper`."""
    return {
        **paper(weights),
        "motion": PublishedSf2se3Segmenter(),
        "semantics": PublishedDepthgSemantics(weights / DEPTHG),
        "fusion": replace(PAPER_FUSION, ignore_thing_without_instance=False),
    }


PRESETS: Mapping[str, Callable[[Path], dict[str, Any]]] = {"paper": paper, "published": published}
"""What `cupola pseudo-label --preset NAME` can be."""
