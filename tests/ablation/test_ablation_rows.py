"""Which rows there are, and what they need."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cupola.ablation import AblationWeights, ablation_rows
from cupola.ablation.ablation_report import as_text, percent, table_of
from cupola.ablation.kept import kept
from cupola.ablation.measure import DEPTHS, Measured, depth_ranges
from cupola.ablation.rows import OWN_TABLE, THRESHOLDS, folder_name
from cupola.motion import EgoMotionSegmenter, Sf2se3Segmenter
from cupola.pseudo_labels import FusionSettings
from cupola.pseudo_labels.detail import AS_FOUND, DetailSettings
from cupola.pseudo_labels.fuse import PAPER_FUSION
from cupola.types import Instances

MOTIONS = [EgoMotionSegmenter(), Sf2se3Segmenter(), Sf2se3Segmenter(runs=3)]
FILE = Path(__file__)
"""Stands for any file of weights: naming a row's store reads no more of it than its hash."""

NAMES = [field.name for field in fields(AblationWeights)]


@given(st.sets(st.sampled_from(NAMES)))
@settings(deadline=None, max_examples=30)
def test_exactly_the_rows_without_a_file_are_missing(given_names):
    rows = ablation_rows(AblationWeights(**dict.fromkeys(given_names, FILE)), EgoMotionSegmenter())
    text = " ".join(row.missing for row in rows)
    for name in NAMES:
        assert (f"--weights.{name} " in text) == (name not in given_names)
    for row in rows:
        assert bool(row.missing) == any(option.part is None for option in row.options)


@given(st.sets(st.sampled_from(NAMES)), st.sampled_from(MOTIONS))
@settings(deadline=None, max_examples=30)
def test_rows_have_names_of_their_own_and_the_thresholds_share_a_store(given_names, motion):
    rows = ablation_rows(AblationWeights(**dict.fromkeys(given_names, FILE)), motion)
    assert len({(row.table, row.name) for row in rows}) == len(rows)
    thresholds = [row for row in rows if row.table == 6]
    assert [row.fusion.threshold for row in thresholds] == list(THRESHOLDS)
    assert len({row.store for row in thresholds}) == 1
    of_parts = {}
    for row in rows:
        parts = tuple(option.part for option in row.options)
        assert of_parts.setdefault(row.store, parts) == parts


def test_the_own_rows_lead_from_the_defaults_to_the_paper_one_by_one():
    rows = [row for row in ablation_rows(AblationWeights(), EgoMotionSegmenter()) if row.table == OWN_TABLE]
    first, *others, last = [vars(row.detail) | vars(row.fusion) for row in rows]
    assert first == vars(DetailSettings()) | vars(FusionSettings())
    assert last == vars(AS_FOUND) | vars(PAPER_FUSION)
    changed = [{name for name in first if row[name] != first[name]} for row in others]
    assert sorted(changed, key=str) == sorted(({name} for name in first if last[name] != first[name]), key=str)
    for row, chosen in zip(rows[1:-1], others, strict=True):
        assert all(chosen[name] in (first[name], last[name]) for name in first)
        assert (row.store == rows[0].store) == (row.detail == rows[0].detail)
    assert rows[-1].store != rows[0].store


def test_the_weights_given_decide_the_usual_parts():
    def usual(**weights):
        rows = ablation_rows(AblationWeights(**weights), EgoMotionSegmenter())
        return [option.name for option in next(row for row in rows if row.table == 6).options]

    assert usual() == ["classical", "ego-motion", "offline"]
    assert usual(raft=Path("r")) == ["classical", "ego-motion", "offline"]
    assert usual(smurf=Path("s"), depthg=Path("d")) == ["smurf", "ego-motion", "depthg-depth-guided"]


def test_a_changed_setting_changes_the_folder():
    row = ablation_rows(AblationWeights(), Sf2se3Segmenter())[0]
    other = replace(row.motion, part=Sf2se3Segmenter(runs=5))
    assert folder_name(row.motion) != folder_name(other)
    assert folder_name(row.motion) == folder_name(replace(row.motion))


def test_a_changed_file_of_weights_changes_the_store(tmp_path):
    def store():
        rows = ablation_rows(AblationWeights(depthg=tmp_path / "w"), EgoMotionSegmenter())
        return next(row.store for row in rows if row.name == "high")

    (tmp_path / "w").write_bytes(b"one")
    first = store()
    (tmp_path / "w").write_bytes(b"other")
    assert store() != first


def test_a_row_that_was_not_run_says_why():
    rows = [Measured(row) for row in ablation_rows(AblationWeights(), EgoMotionSegmenter())]
    text = as_text(table_of(9, rows))
    (line,) = [line for line in text.splitlines() if line.startswith("SMURF")]
    assert line.split() == ["SMURF", "18.1", *"-" * 9, *["not", "run:", "needs", "--weights.smurf", "FILE"]]
    assert (percent(None), percent(float("nan")), percent(0.1234)) == ("-", "-", "12.3")


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 3), st.integers(1, 4), st.booleans(), st.booleans())
def test_what_is_kept_comes_back_as_it_was(tmp_path_factory, count, size, compress, damage):
    path = tmp_path_factory.mktemp("kept") / "x.npz"
    rng = np.random.default_rng([count, size])
    made = []

    def find():
        made.append(Instances(rng.random((count, size, 2)) < 0.5, rng.random(count).astype(np.float32)))
        return made[-1]

    first = kept(path, Instances, find, compress=compress)
    if damage:
        path.write_bytes(path.read_bytes()[:-30])
    second = kept(path, Instances, find, compress=compress)
    assert len(made) == 1 + damage
    assert first is made[0]
    np.testing.assert_array_equal(second.masks, made[-1].masks)
    np.testing.assert_array_equal(second.scores, made[-1].scores)
    assert second.motions is None


@given(st.floats(0.125, 200, width=32), st.floats(1, 1000), st.booleans())
def test_ranges_of_depths_follow_the_depth(disparity, scale, known):
    field = np.full((1, 2), disparity, np.float32)
    field[0, 1] = np.nan
    found = depth_ranges(field, np.array([[known, False]]), scale)
    metres = scale / float(field[0, 0])
    assert found.tolist() == [[1 + sum(metres >= edge for edge in DEPTHS) if known else 0, 0]]
