"""Whose gain is it: the halves of a jointly trained model, beside those of its base."""

import json
import re

import numpy as np
import pytest

from benchmarks import halves
from tests.support.command_line import wamrl
from wamrl.recipes.find import build
from wamrl.runs.folder import open_model
from wamrl.study import Cell, StudyConfig

NAME = "tests.support.tiny_study:study"


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A study of one cell and its base, called twice: only the first call asks for the models."""
    out = tmp_path_factory.mktemp("halves") / "study"
    words = ("study", NAME, "--out", out, "--only", "near/wamrl/1")
    # the base in this process, which saves one; the arm in a process of the runner's
    for more in (["--cell", "near/base/1"], ["--keep-models"], []):
        code, _, error = wamrl(*words, *more)
        assert code == 0, error
    return out


def test_models_that_were_kept_on_request_outlive_a_call_without_it(kept):
    checkpoints = kept / "near/wamrl/seed1/checkpoints"
    assert {p.name for p in checkpoints.iterdir()} == {"best", "final"}


@pytest.fixture
def models(kept):
    """Configuration, base and trained model of the cell, as `play` takes them."""
    cell = Cell("near", "wamrl", 1)
    return (
        build(NAME, StudyConfig).config(cell),
        cell.base.folder(kept) / "checkpoints/base",
        cell.folder(kept) / "checkpoints/final",
    )


def test_each_half_is_whose_it_is_said_to_be(models):
    cfg, base, trained = models
    whole = {"base": open_model(cfg, base), "trained": open_model(cfg, trained)}
    assert not same(whole["base"].world, whole["trained"].world)
    assert not same(whole["base"].actor, whole["trained"].actor)
    for (world, actor), wam in halves.halves(cfg, base, trained):
        assert same(wam.world, whole[world].world) and same(wam.actor, whole[actor].actor)
        assert wam.sampler == whole["trained"].sampler


def same(one, other) -> bool:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return all(mine.equal(its) for mine, its in pairs)


def test_undivided_models_do_as_the_study_says(kept, models, capsys):
    found = halves.play(*models)
    arms = json.loads((kept / "near/wamrl/seed1/summary.json").read_text())["arms"]
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


@pytest.mark.parametrize(
    ("task", "said"), [("press-once", "run the cell with --keep-models"), ("nothing", "nothing")]
)
def test_a_cell_that_is_not_there_is_refused_before_anything_is_played(
    tmp_path, monkeypatch, task, said
):
    monkeypatch.setattr("sys.argv", ["halves", str(tmp_path), task, "wamrl", "0"])
    with pytest.raises(SystemExit, match=said):
        halves.main()
