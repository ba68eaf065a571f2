"""Every cupola command shown in the README and the docs parses: no renamed verb, option or setting goes unnoticed."""

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

from cupola.cli import _parse, module_of, split_verb

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def _commands():
    for page in PAGES:
        for block in re.findall(r"```console\n(.*?)```", page.read_text(), re.S):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words and words[0] == "cupola":
                    yield pytest.param(words[1:], id=f"{page.stem}: {' '.join(words)}")


@pytest.mark.parametrize("words", _commands())
def test_shown_commands_parse(words):
    verb, rest = split_verb(words)
    assert verb is not None
    module = import_module(module_of(verb))
    _parse(verb, module.command, rest, getattr(module, "presets", None))


def test_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
            if not target.startswith("https://"):
                assert (page.parent / target).exists(), f"{page.name} links to {target}"
