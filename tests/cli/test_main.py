import pytest

from cupola.cli import main


def test_help_lists_every_verb(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert "pseudo-label" in out
    assert "train" in out


def test_a_mistyped_verb_gets_the_nearest(capsys):
    assert main(["pseudolabel"]) == 2
    assert "did you mean `pseudo-label`?" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["--version"])
def test_version(verb, capsys):
    from cupola import __version__

    assert main([verb]) == 0
    assert capsys.readouterr().out.strip() == __version__
