"""The rows of the paper's tables 5, 6, 9, 10 and 11 (spec-stage1 6.7), and of a table of what cupola does beyond the
paper: what each switches, and the paper's figure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from cupola.ablation.settings import AblationWeights
from cupola.config import indifferent, plain
from cupola.correspondence import ClassicalCorrespondence, FileCorrespondence, RaftCorrespondence
from cupola.motion import MaskCutSegmenter, MotionSegmenter, Sf2se3Segmenter
from cupola.pseudo_labels import FusionSettings
from cupola.pseudo_labels.detail import AS_FOUND, DetailSettings
from cupola.pseudo_labels.fuse import PAPER_FUSION
from cupola.pseudo_labels.pipeline import HasHashes
from cupola.semantics import DepthgSemantics, OfflineSemantics

OWN_TABLE = 0
"""The table that the paper has not."""

TITLES: dict[int, str] = {
    5: "Table 5: what the parts add",
    6: "Table 6: threshold of things",
    9: "Table 9: flow and disparity",
    10: "Table 10: semantics at two scales",
    11: "Table 11: moving objects",
    OWN_TABLE: "Beyond the paper: what cupola does by default",
}
"""In the order in which they are shown."""

THRESHOLDS = {0.04: 17.8, 0.06: 18.1, 0.08: 18.1, 0.10: 18.1, 0.12: 17.7, 0.14: 16.7}
"""Thing threshold -> the paper's PQ (table 6)."""


@dataclass(frozen=True)
class Option:
    """One value of a switch. part: of stage 1, None where it lacks its file; needs: the option that would give it."""

    name: str
    part: Any = None
    needs: str = ""


@dataclass(frozen=True)
class Row:
    """A row of a table. paper: the paper's PQ [%], None where it has no such row."""

    table: int
    name: str
    paper: float | None
    correspondence: Option
    motion: Option
    semantics: Option
    fusion: FusionSettings = PAPER_FUSION
    detail: DetailSettings = AS_FOUND

    @property
    def options(self) -> tuple[Option, Option, Option]:
        """Correspondence, motion and semantics."""
        return self.correspondence, self.motion, self.semantics

    @property
    def missing(self) -> str:
        """Why the row cannot be run, or nothing."""
        needs = [option.needs for option in self.options if option.part is None]
        return f"needs {' and '.join(needs)}" if needs else ""

    @property
    def store(self) -> str:
        """Name of the label store that the row is read from: rows that differ in fusion alone share one."""
        name = folder_name(*self.options)
        if self.detail == AS_FOUND:
            return name
        return f"{name}_rows-{self.detail.rows}{'_outlines' if self.detail.outlines else ''}"


def folder_name(*options: Option) -> str:
    """A name for results of these parts: what they are called, and a digest of their settings and files of weights."""
    described = [
        [
            {name: value for name, value in (plain(one.part) or {}).items() if name not in indifferent(one.part)},
            one.part.hashes() if isinstance(one.part, HasHashes) else {},
        ]
        for one in options
    ]
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:8]
    return "_".join([*(option.name for option in options), digest])


def ablation_rows(weights: AblationWeights, motion: MotionSegmenter) -> tuple[Row, ...]:
    """All rows, in the order of the tables. motion: of the rows that do not switch it."""
    usual = _Usual.of(weights, motion)
    rows = (_parts, _thresholds, _correspondences, _scales, _motions, _own)
    return tuple(row for table in rows for row in table(weights, usual))


@dataclass(frozen=True)
class _Usual:
    """The parts of rows that switch something else."""

    correspondence: Option
    motion: Option
    semantics: Option

    @staticmethod
    def of(weights: AblationWeights, motion: MotionSegmenter) -> _Usual:
        given = _raft("smurf", weights.smurf)
        sf2se3 = motion == Sf2se3Segmenter()
        return _Usual(
            Option("classical", ClassicalCorrespondence()) if given.part is None else given,
            ENSEMBLE if sf2se3 else Option(str(getattr(type(motion), "name", type(motion).__name__)), motion),
            OFFLINE if weights.depthg is None else _depthg(weights.depthg, "depth-guided"),
        )

    def row(self, table: int, name: str, paper: float | None, **changed: Any) -> Row:
        """A row of these parts but for those that are named."""
        return replace(Row(table, name, paper, self.correspondence, self.motion, self.semantics), **changed)


ENSEMBLE = Option("sf2se3", Sf2se3Segmenter())
SINGLE = Option("sf2se3-single", Sf2se3Segmenter.single())
OFFLINE = Option("offline", OfflineSemantics())


def _given(name: str, needs: str, path: Path | None, make: Callable[[Path], Any]) -> Option:
    return Option(name, None if path is None else make(path), needs)


def _raft(name: str, path: Path | None) -> Option:
    return _given(name, f"--weights.{name} FILE", path, RaftCorrespondence)


def _fields(name: str, option: str, path: Path | None) -> Option:
    return _given(name, f"--weights.{option} FOLDER of its fields", path, FileCorrespondence)


def _depthg(path: Path | None, scales: Literal["depth-guided", "mean", "low", "high"], crf: bool = True) -> Option:
    """DepthG at these scales. The paper's single low pass mirrors nothing (spec-stage1 5.2)."""
    name = f"depthg-{scales}{'' if crf else '-without-crf'}"

    def make(weights: Path) -> DepthgSemantics:
        return DepthgSemantics(weights, scales=scales, crf=crf, flip_low=scales != "low")

    return _given(name, "--weights.depthg FILE", path, make)


def _parts(weights: AblationWeights, usual: _Usual) -> list[Row]:
    low = OFFLINE if weights.depthg is None else _depthg(weights.depthg, "low")
    unaligned = replace(PAPER_FUSION, align=False)
    rows = [
        usual.row(5, "SF2SE3 once, not aligned", 14.3, motion=SINGLE, semantics=low, fusion=unaligned),
        usual.row(5, "SF2SE3 once, aligned", 14.9, motion=SINGLE, semantics=low),
        usual.row(5, "ensemble of SF2SE3, not aligned", None, motion=ENSEMBLE, semantics=low, fusion=unaligned),
        usual.row(5, "ensemble of SF2SE3, aligned", 15.9, motion=ENSEMBLE, semantics=low),
        usual.row(
            5, "the same, depth-guided DepthG", 18.1, motion=ENSEMBLE, semantics=_depthg(weights.depthg, "depth-guided")
        ),
    ]
    if usual.motion == ENSEMBLE:
        return rows
    return [
        *rows,
        usual.row(5, f"{usual.motion.name}, not aligned", None, semantics=low, fusion=unaligned),
        usual.row(5, f"{usual.motion.name}, aligned", None, semantics=low),
        usual.row(5, f"{usual.motion.name}, fused as cupola does", None, semantics=low, fusion=FusionSettings()),
    ]


def _thresholds(weights: AblationWeights, usual: _Usual) -> list[Row]:
    return [
        usual.row(6, f"{threshold:.2f}", paper, fusion=replace(PAPER_FUSION, threshold=threshold))
        for threshold, paper in THRESHOLDS.items()
    ]


def _correspondences(weights: AblationWeights, usual: _Usual) -> list[Row]:
    options = [
        ("classical (SGBM and DIS)", None, Option("classical", ClassicalCorrespondence())),
        ("BrightFlow", 17.8, _fields("brightflow", "brightflow", weights.brightflow)),
        ("SMURF", 18.1, _raft("smurf", weights.smurf)),
        ("SEA-RAFT", 19.2, _fields("sea-raft", "sea_raft", weights.sea_raft)),
        ("RAFT", 20.4, _raft("raft", weights.raft)),
    ]
    return [usual.row(9, name, paper, correspondence=option) for name, paper, option in options]


def _scales(weights: AblationWeights, usual: _Usual) -> list[Row]:
    path = weights.depthg
    options = [
        ("offline (cupola's own)", None, OFFLINE),
        ("low", 15.9, _depthg(path, "low")),
        ("high", 17.9, _depthg(path, "high")),
        ("mean", 16.7, _depthg(path, "mean")),
        ("depth-guided", 18.1, _depthg(path, "depth-guided")),
        ("low, without CRF", None, _depthg(path, "low", crf=False)),
        ("depth-guided, without CRF", None, _depthg(path, "depth-guided", crf=False)),
    ]
    return [usual.row(10, name, paper, semantics=option) for name, paper, option in options]


def _motions(weights: AblationWeights, usual: _Usual) -> list[Row]:
    rows = [
        usual.row(11, "MaskCut", 9.9, motion=_given("maskcut", "--weights.dino FILE", weights.dino, MaskCutSegmenter)),
        usual.row(11, "ensemble of SF2SE3", 18.1, motion=ENSEMBLE),
        usual.row(11, "SF2SE3 once", None, motion=SINGLE),
    ]
    return rows if usual.motion == ENSEMBLE else [*rows, usual.row(11, usual.motion.name, None)]


def _own(weights: AblationWeights, usual: _Usual) -> list[Row]:
    """All that cupola does by default, each of it left out, and nothing of it, which is the paper's way."""
    detail, fusion = DetailSettings(), FusionSettings()
    variants = [
        ("all of it", detail, fusion),
        ("small images not enlarged", replace(detail, rows=AS_FOUND.rows), fusion),
        ("outlines not drawn anew", replace(detail, outlines=AS_FOUND.outlines), fusion),
        ("masks of stuff ignored", detail, replace(fusion, stuff_instances=PAPER_FUSION.stuff_instances)),
        ("movable stuff not ignored", detail, replace(fusion, movable=PAPER_FUSION.movable)),
        ("things told apart by pseudo class, not by size", detail, replace(fusion, sizes=PAPER_FUSION.sizes)),
        ("nothing of it", AS_FOUND, PAPER_FUSION),
    ]
    return [usual.row(OWN_TABLE, name, None, detail=how, fusion=rules) for name, how, rules in variants]
