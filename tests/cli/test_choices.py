"""Methods chosen by name: command line, YAML, and what is saved."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import pytest
import yaml

from cupola.cli import _parse, main
from cupola.config import OneOf, save_config
from cupola.correspondence import METHODS, ClassicalCorrespondence, FileCorrespondence, RaftCorrespondence
from cupola.errors import ConfigError
from cupola.pseudo_labels import pseudo_label


@dataclass(frozen=True)
class Plain:
    size: int = 3
    name: ClassVar[str] = "plain"


@dataclass(frozen=True)
class Fancy:
    weights: Path
    depth: int = 2
    name: ClassVar[str] = "fancy"


def work(
    data: Path,
    *,
    first: Annotated[object, OneOf({"plain": Plain, "fancy": Fancy})] = Plain(),
    second: Annotated[object, OneOf({"plain": Plain, "fancy": Fancy})] = Plain(),
) -> None:
    """Does nothing.

    Args:
        data: somewhere.
        first: a method.
        second: another.
    """


def parsed(*arguments):
    return _parse("work", work, ["D", *arguments])


def test_without_a_name_the_default_is_taken():
    assert parsed() == {"data": Path("D"), "first": Plain(), "second": Plain()}
    assert parsed("--first.size", "5")["first"] == Plain(5)


@pytest.mark.parametrize("words", [("--second", "fancy"), ("--second=fancy",)])
def test_a_name_chooses_among_methods(words):
    found = parsed(*words, "--second.weights", "w", "--first.size=1")
    assert found == {"data": Path("D"), "first": Plain(1), "second": Fancy(Path("w"))}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--first", "fency"), "no first `fency`, known are plain, fancy; did you mean fancy?"),
        (("--first", "fancy"), "first.weights"),
        (("--first", "fancy", "--first.size", "3"), "no option --first.size"),
        (("--first",), "--first wants one of plain, fancy"),
        (("--first", "--second", "plain"), "--first wants one of plain, fancy"),
    ],
)
def test_mistakes_are_one_sentence(words, sentence):
    with pytest.raises(ConfigError) as error:
        parsed(*words)
    assert sentence in str(error.value)


@pytest.mark.parametrize("content", ["fancy", {"name": "fancy"}, {"name": "fancy", "depth": 7}])
def test_yaml_names_a_method(tmp_path, content):
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"first": content}))
    found = parsed("--config", str(tmp_path / "c.yaml"), "--first.weights", "w")
    assert found["first"] == Fancy(Path("w"), content.get("depth", 2) if isinstance(content, dict) else 2)


def test_the_command_line_goes_before_yaml(tmp_path):
    """The settings of the method that was not chosen are forgotten."""
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"first": {"name": "plain", "size": 9}, "second": {"size": 4}}))
    found = parsed(f"--config={tmp_path / 'c.yaml'}", "--first", "fancy", "--first.weights", "w")
    assert found["first"] == Fancy(Path("w"))
    assert found["second"] == Plain(4)


def test_an_unknown_name_in_yaml_is_one_sentence(tmp_path):
    (tmp_path / "c.yaml").write_text("first: {name: other}")
    with pytest.raises(ConfigError, match="no first `other`"):
        parsed("--config", str(tmp_path / "c.yaml"))


def test_what_is_saved_repeats_the_command(tmp_path):
    arguments = parsed("--first", "fancy", "--first.weights", "w", "--first.depth", "4", "--second.size", "8")
    save_config(tmp_path / "config.yaml", **arguments)
    saved = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert saved["first"] == {"name": "fancy", "weights": "w", "depth": 4}
    assert _parse("work", work, ["--config", str(tmp_path / "config.yaml")]) == arguments


def test_names_of_flow_and_disparity():
    assert {"classical": ClassicalCorrespondence, "files": FileCorrespondence, "raft": RaftCorrespondence} == METHODS

    def chosen(*words):
        return _parse("pseudo-label", pseudo_label, ["D", "--out", "O", *words])["correspondence"]

    assert chosen() == ClassicalCorrespondence()
    assert chosen("--correspondence.block", "7") == ClassicalCorrespondence(block=7)
    assert chosen("--correspondence", "files", "--correspondence.directory", "F") == FileCorrespondence(Path("F"))
    raft = chosen("--correspondence", "raft", "--correspondence.weights", "W", "--correspondence.batch", "2")
    assert raft == RaftCorrespondence(Path("W"), batch=2)


def test_help_explains_the_chosen_method(capsys):
    with pytest.raises(SystemExit):
        main(["pseudo-label", "--help", "--correspondence", "files"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "one of classical, files, raft (default: classical)" in shown
    assert "--correspondence.directory" in shown
    assert "--correspondence.block" not in shown
