"""run.json: what is written, what is read back, and what a resumed run may have otherwise."""

from dataclasses import replace
from pathlib import Path

import pytest

from wamrl.recipes.find import build_recorded
from wamrl.recipes.gym import pusht
from wamrl.recipes.point import point
from wamrl.runs import record as records
from wamrl.runs.folder import next_command
from wamrl.runs.options import Options
from wamrl.runs.record import changes, digest, new_record, read_record, write_record
from wamrl.runtime.log import resolved


def a_record(config=None, **more):
    config = point() if config is None else config
    record = new_record(["wamrl", "sft", "point"], "point", config, None, None)
    return replace(record, **more)


def test_a_record_comes_back(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "a").write_text("1")
    record = new_record(["wamrl", "sft", "point", "--smoke"], "point", point(), data, data)
    write_record(tmp_path, record)
    assert read_record(tmp_path) == record and record.verb == "sft"
    assert record.data.path == str(data) and record.config == resolved(point())
    assert {"python", "wamrl", "torch", "numpy", "safetensors"} <= record.versions.keys()
    assert record.machine["cores"] >= 1 and record.machine["cpu"] and record.started
    assert all(len(commit.partition("-")[0]) == 40 for commit in record.commit.values())
    assert read_record(data) is None


@pytest.mark.parametrize(
    "broken",
    ["{", "[]", '{"format": "other"}', '{"format": "wamrl-run", "version": 1, "command": []}'],
)
def test_a_broken_record_is_refused_in_a_sentence(broken, tmp_path):
    (tmp_path / "run.json").write_text(broken)
    with pytest.raises(ValueError, match="run.json.*name another run folder"):
        read_record(tmp_path)


def test_a_recipe_that_lies_around_the_run_is_not_imported(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "runs" / "stolen"
    run.mkdir(parents=True)
    (run / "evil.py").write_text("raise SystemExit('executed')")
    with pytest.raises(ValueError, match="lies around it"):
        build_recorded(a_record(recipe="runs.stolen.evil:f"), run)
    with pytest.raises(ValueError, match="does not say that it returns a Config"):
        build_recorded(a_record(recipe="os:getcwd"), run)
    assert build_recorded(a_record(recipe="wamrl.recipes.point:point"), run) == point()


def test_a_module_that_came_with_the_run_is_not_imported(tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text("raise SystemExit('executed')")
    monkeypatch.syspath_prepend(tmp_path)
    config = replace(pusht(), env=replace(pusht().env, module="evil"))
    with pytest.raises(ValueError, match="imports evil, which lies in the run itself"):
        build_recorded(a_record(config, recipe="pusht"), tmp_path)


def test_a_run_begun_from_python_needs_no_recipe(tmp_path):
    config = replace(point(), seed=7)
    assert build_recorded(a_record(config, recipe=""), tmp_path) == config
    begun = Options(config=config, verb="sft")
    assert next_command("train", begun, "--base", Path("runs/A")) == "wamrl train --base runs/A"


def test_the_digest_is_of_the_content(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "sub" / "large").write_bytes(bytes(3 << 20))
        (tmp_path / name / "small").write_text("x")
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    with open(tmp_path / "b" / "sub" / "large", "r+b") as file:
        file.seek(-1, 2)
        file.write(b"1")
    assert digest(tmp_path / "a") != digest(tmp_path / "b")
    (tmp_path / "c").mkdir()
    assert digest(tmp_path / "a" / "small") != digest(tmp_path / "c")


def test_what_a_resumed_run_may_have_otherwise(tmp_path):
    config = point()
    saved = resolved(config)
    free = replace(
        config,
        threads=3,
        pool=replace(config.pool, n_envs=2, n_workers=1),
        eval=replace(config.eval, episodes=5),
        train=replace(config.train, iterations=9),
    )
    found = changes(saved, resolved(free), force=False, run=tmp_path)
    assert found["pool.n_envs"] == [16, 2] and found["eval.episodes"] == [50, 5]
    assert found.keys() == {
        "threads",
        "pool.n_envs",
        "pool.n_workers",
        "eval.episodes",
        "train.iterations",
    }
    rates = replace(config, sft=replace(config.sft, lr=0.5))
    with pytest.raises(ValueError, match=r"config.sft.lr is .* 0.5 here; --force"):
        changes(saved, resolved(rates), force=False, run=tmp_path)
    assert changes(saved, resolved(rates), force=True, run=tmp_path)["sft.lr"][1] == 0.5
    other = replace(config, seed=1)
    with pytest.raises(ValueError, match="config.seed is 0 there and 1 here"):
        changes(saved, resolved(other), force=True, run=tmp_path)


def test_where_a_record_is_found(tmp_path):
    write_record(tmp_path, a_record())
    for place in (tmp_path, tmp_path / "checkpoints" / "base"):
        place.mkdir(parents=True, exist_ok=True)
        assert records.record_of(place).recipe == "point"
    assert records.record_of(tmp_path.parent) is None
