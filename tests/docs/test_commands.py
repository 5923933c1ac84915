"""Every command that the docs show is one that the command line understands; none is executed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from wamrl import cli

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
STANDS_FOR = {"S": "0", "RECIPE": "point", "NAME": "metaworld", "my_lab.push:my_recipe": "point"}
UNFINISHED = {"VERB", "...", "[RECIPE]", "PATTERN"}


def blocks(text: str) -> list[str]:
    """The lines of shell blocks, continued ones joined, without comments, one command each."""
    found = []
    for block in re.findall(r"```(?:bash|sh)\n(.*?)```", text, re.S):
        for line in block.replace("\\\n", " ").splitlines():
            found += re.sub(r"(^|\s)#.*", "", line).split("&&")
    return [command.strip() for command in found if command.strip()]


def spans(text: str) -> list[str]:
    """Commands within a sentence that name a verb and more than an option."""
    found = re.findall(r"(?<!`)`(wamrl [a-z-]+ [^`]+)`(?!`)", text.replace("\n", " "))
    return [command for command in found if not re.fullmatch(r"wamrl \S+ --[a-z]+", command)]


def commands() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        shown = [command for command in blocks(text) if command.startswith("wamrl ")]
        found += [(page.name, command) for command in dict.fromkeys(shown + spans(text))]
    return found


@pytest.mark.parametrize(("page", "command"), commands(), ids=lambda text: text[:60])
def test_it_is_understood(page, command, monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    words = [STANDS_FOR.get(word, word) for word in shlex.split(command)[1:]]
    words = ["runs/NAME" if word.startswith("hf://") else word for word in words]  # no network
    if UNFINISHED & set(words):
        words = words[:1]
        assert words[0] in cli.VERBS or words[0] == "VERB"
        return
    if {"-h", "--help"} & set(words):
        assert words[0] in cli.VERBS
        return
    assert callable(cli.understood(words[0], words[1:]))


def test_nobody_is_told_to_install_what_no_registry_has():
    for page in PAGES:
        assert "pip install wamrl" not in page.read_text(encoding="utf-8").replace("'", "")
