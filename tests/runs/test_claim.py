"""A result directory takes up a run again only where what the results depend on is the same."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import ClassVar

import pytest
import yaml

from cupola.config import indifferent
from cupola.correspondence import METHODS as CORRESPONDENCES
from cupola.correspondence import RaftCorrespondence
from cupola.errors import StoreError
from cupola.motion import METHODS as MOTIONS
from cupola.runs.directory import claim
from cupola.semantics import METHODS as SEMANTICS
from cupola.semantics.learning.settings import RECIPES


@dataclass(frozen=True)
class Inner:
    size: int = 1
    device: str = "cpu"

    may_differ: ClassVar[tuple[str, ...]] = ("device",)


@dataclass(frozen=True)
class Outer:
    inner: Inner = Inner()
    batch: int = 4
    device: str = "cpu"

    may_differ: ClassVar[tuple[str, ...]] = ("batch",)


def test_settings_without_effect_are_found_at_any_depth():
    assert indifferent({"part": Outer(), "seed": 0}) == {"part.batch", "part.inner.device"}
    assert indifferent(Outer()) == {"batch", "inner.device"}
    assert indifferent(3) == indifferent(None) == frozenset()


def test_only_settings_without_effect_and_free_arguments_may_differ(tmp_path):
    def ask(part, **arguments):
        claim(tmp_path, ("out",), part=part, **arguments)

    ask(Outer(), seed=0, out=Path("a"))
    first = (tmp_path / "config.yaml").read_bytes()
    ask(Outer(Inner(device="cuda"), batch=9), seed=0, out=Path("b"))
    assert (tmp_path / "config.yaml").read_bytes() == first
    for changed, named in (
        (Outer(Inner(size=2)), "part.inner.size: 1 there, 2 now"),
        (Outer(device="cuda"), "part.device: cpu there, cuda now"),
    ):
        with pytest.raises(StoreError, match=f"other settings \\({named}"):
            ask(changed, seed=0, out=Path("a"))
    with pytest.raises(StoreError, match="seed: 0 there, 1 now"):
        ask(Outer(), seed=1, out=Path("a"))
    before = yaml.safe_load(first)
    del before["part"]["batch"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(before))
    ask(Outer(), seed=0, out=Path("a"))


@pytest.mark.parametrize(
    "method", [*CORRESPONDENCES.values(), *MOTIONS.values(), *SEMANTICS.values(), *RECIPES.values()]
)
def test_what_may_differ_are_settings_of_the_method(method):
    assert set(getattr(method, "may_differ", ())) <= {field.name for field in fields(method)}


def test_where_and_how_fast_a_network_of_flow_runs_may_differ(tmp_path):
    settings = RaftCorrespondence(Path("weights.pth"))
    claim(tmp_path, (), correspondence=settings)
    claim(tmp_path, (), correspondence=replace(settings, batch=3, device="cpu", cache=Path("cache")))
    with pytest.raises(StoreError, match=r"correspondence\.updates: 0 there, 5 now"):
        claim(tmp_path, (), correspondence=replace(settings, updates=5))
