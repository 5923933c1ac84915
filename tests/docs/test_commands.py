"""Every command that the docs show is one that the command line understands; those that take no
time are executed. `python -m tests.docs.execute` executes them all.
"""

from __future__ import annotations

import shlex
import shutil

import pytest

from tests.docs import execute
from tests.docs.pages import PAGES, ROOT, commands_of
from wamrl import cli

STANDS_FOR = {"S": "0", "RECIPE": "point", "NAME": "metaworld", "my_lab.push:my_recipe": "point"}
UNFINISHED = {"VERB", "...", "[RECIPE]", "PATTERN"}
SHOWN = [(page.name, command) for page in PAGES for command in commands_of(page)]
OURS = [(page, command) for page, command in SHOWN if command.startswith("wamrl ")]


@pytest.mark.parametrize(("page", "command"), OURS, ids=lambda text: text[:60])
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


@pytest.fixture(scope="module")
def made(point_run, tmp_path_factory):
    """What the pages take for granted, as far as it takes no time to make."""
    from tests.support.command_line import wamrl

    root = tmp_path_factory.mktemp("made")
    shutil.copytree(point_run, root / "RUN")
    code, _, err = wamrl("data", "convert", root / "RUN", root / "PLACE", "--fps", "10", "--image")
    assert code == 0, err
    execute.make_sets(root)
    return root


@pytest.mark.parametrize(
    ("name", "verbs"),
    [
        ("data.md", ("data",)),
        ("data-hdf5.md", ("data",)),
        ("report.md", ("report", "compare")),
        ("README.md", ("list", "check")),
    ],
)
def test_it_runs(name, verbs, made, tmp_path, monkeypatch):
    from tests.support.command_line import wamrl

    (page,) = (page for page in PAGES if page.name == name)
    execute.furnish(page, made, tmp_path)
    monkeypatch.chdir(tmp_path)
    ran = 0
    for command in commands_of(page):
        words = shlex.split(execute.as_run(command, name, tmp_path).rpartition("&& ")[2])
        if words[0] != "wamrl" or words[1] not in verbs or "runs/study-NAME" in words:
            continue
        shutil.rmtree("DST", ignore_errors=True)
        code, out, err = wamrl(*words[1:])
        assert code == 0, (command, out, err)
        ran += 1
    assert ran >= len(verbs)


def test_a_command_that_is_not_executed_is_one_of_a_page():
    shown = [command for _, command in SHOWN]
    for begin in (*execute.ELSEWHERE, *execute.FIRST):
        assert any(command.startswith(begin) for command in shown), begin


def test_nobody_is_told_to_install_what_no_registry_has():
    for page in PAGES:
        assert "pip install wamrl" not in page.read_text(encoding="utf-8").replace("'", "")
