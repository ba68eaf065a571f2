from importlib import import_module
from pathlib import Path

import pytest

from cupola.cli import VERBS, _parse, main, module_of, split_verb


def test_help_lists_every_verb(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert "pseudo-label" in out
    assert "train" in out


def test_a_mistyped_verb_gets_the_nearest(capsys):
    assert main(["pseudolabel"]) == 2
    assert "did you mean `pseudo-label`?" in capsys.readouterr().err


@pytest.fixture
def two_words(monkeypatch):
    monkeypatch.setitem(VERBS, "make tea-pots", "a verb of two words")


def test_a_verb_may_have_two_words(two_words):
    assert split_verb(["make", "tea-pots", "now"]) == ("make tea-pots", ["now"])
    assert split_verb(["train", "labels"]) == ("train", ["labels"])
    assert split_verb(["make"]) == (None, ["make"])
    assert module_of("make tea-pots") == "cupola.cli.make_tea_pots"


def test_half_a_verb_explains_itself(two_words, capsys):
    assert main(["make", "--help"]) == 0
    assert "`make` needs to know what: `cupola make tea-pots`" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["make"], ["make", "teapots"]])
def test_half_a_verb_of_two_words_asks_for_the_other(two_words, words, capsys):
    assert main(words) == 2
    assert "`make` needs to know what: `cupola make tea-pots`" in capsys.readouterr().err


def test_two_mistyped_words_get_the_nearest(two_words, capsys):
    assert main(["maek", "teapots"]) == 2
    assert "there is no verb `maek`; did you mean `make tea-pots`?" in capsys.readouterr().err


def test_an_optional_word_may_be_left_out():
    command = import_module(module_of("ablate pseudo-labels")).command
    for words, data in ((["--out", "o"], None), (["D", "--out", "o"], Path("D")), (["--out", "o", "D"], Path("D"))):
        assert _parse("ablate pseudo-labels", command, words)["data"] == data


@pytest.mark.parametrize("verb", ["--version"])
def test_version(verb, capsys):
    from cupola import __version__

    assert main([verb]) == 0
    assert capsys.readouterr().out.strip() == __version__


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["doctor", "--uot", "x"], "no option --uot; did you mean --out?"),
        (["doctor", "--out"], "expected one argument"),
        (["predict", "a.png", "--out", "o", "--model", "m", "--batch", "two"], "batch must be of type int, but is two"),
        (["predict", "--out", "o", "--model", "m"], "the following arguments are required: images"),
    ],
)
def test_a_bad_option_is_one_sentence_and_exit_code_2(arguments, sentence, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert len(error.strip().splitlines()) == 1


def test_doctor_reports_versions(capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "torchvision operators" in out
    assert "jsonargparse" in out


def test_help_of_a_verb_teaches_its_arguments(capsys):
    with pytest.raises(SystemExit) as end:
        main(["doctor", "--help"])
    assert end.value.code == 0
    assert "a directory whose disk is examined" in capsys.readouterr().out


def _brew(leaves: list[str], *, strong: bool = False, sugar: bool = True) -> None:
    """Makes tea.

    Args:
        leaves: what goes in.
        strong: more of it.
        sugar: sweeten it.
    """


@pytest.mark.parametrize(
    ("words", "strong", "sugar"),
    [
        (["a"], False, True),
        (["a", "--strong"], True, True),
        (["--strong", "a"], True, True),
        (["a", "--strong", "--sugar", "false"], True, False),
        (["--strong", "false", "a"], False, True),
    ],
)
def test_a_switch_without_a_value_is_on(words, strong, sugar):
    assert _parse("brew", _brew, words) == {"leaves": ["a"], "strong": strong, "sugar": sugar}
