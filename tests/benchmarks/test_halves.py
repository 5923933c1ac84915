"""Whose gain is it: the halves of a jointly trained model, beside those of its base."""

import json
import re

import numpy as np
import pytest

from benchmarks import halves
from tests.support.command_line import wamrl
from wamrl.recipes.find import build
from wamrl.study import Cell, StudyConfig

NAME = "tests.support.tiny_study:study"


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A study of one cell and its base, called twice: only the first call asks for the models."""
    out = tmp_path_factory.mktemp("halves") / "study"
    words = ("study", NAME, "--out", out, "--only", "near/wamrl/1")
    for more in (["--keep-models"], []):
        code, _, error = wamrl(*words, *more)
        assert code == 0, error
    return out


def test_models_that_were_kept_on_request_outlive_a_call_without_it(kept):
    checkpoints = kept / "near/wamrl/seed1/checkpoints"
    assert {p.name for p in checkpoints.iterdir()} == {"best", "final"}


def test_undivided_models_do_as_the_study_says(kept, capsys):
    cell = Cell("near", "wamrl", 1)
    cfg = build(NAME, StudyConfig).config(cell)
    found = halves.play(
        cfg,
        cell.base.folder(kept) / "checkpoints/base",
        cell.folder(kept) / "checkpoints/final",
    )
    arms = json.loads((cell.folder(kept) / "summary.json").read_text())["arms"]
    assert found["trained", "trained"].astype(int).tolist() == arms["after"]["success"]
    sampler = arms["after"]["sampler"]
    assert found["base", "base"].mean() == pytest.approx(arms["before"]["rates"][sampler])
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_a_difference_is_of_the_same_states():
    won = {
        ("base", "base"): [0, 0, 1, 1],
        ("base", "trained"): [1, 1, 1, 0],
        ("trained", "base"): [0, 0, 0, 1],
        ("trained", "trained"): [1, 1, 1, 1],
    }
    lines = list(halves.answers([{k: np.array(v, bool) for k, v in won.items()}]))
    assert [re.search(r"\(([-+.\d]+)\)$", line)[1] for line in lines] == ["+25.0", "-25.0", "+25.0"]


def test_it_says_how_to_keep_the_models(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["halves", str(tmp_path), "press-once", "wamrl", "0"])
    with pytest.raises(SystemExit, match="--keep-models"):
        halves.main()
