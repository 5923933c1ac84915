"""A model folder of somebody else: its configuration imports nothing and connects to nothing."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

import wamrl
from tests.support.command_line import refused
from tests.support.saved_runs import saved_run
from wamrl.recipes.find import build_saved
from wamrl.runtime.files import sha256
from wamrl.serve.saved import read_config

GYM = {"class": "wamrl.envs.gymnasium.env:GymConfig", "id": "Thing-v0", "instruction": "go"}
GYM |= {"module": "", "kwargs": [], "image_size": 64, "views": [], "image_keys": []}
GYM |= {"state_keys": [], "success_key": "is_success", "stages": 1, "stages_key": "stages"}
GYM |= {"horizon": None, "rebuild": False}


@pytest.fixture
def alone(tmp_path) -> Path:
    """A model folder whose run is elsewhere."""
    run = saved_run(tmp_path / "runs")
    shutil.copytree(run / "checkpoints" / "final", tmp_path / "model")
    return tmp_path / "model"


def rewrite(folder: Path, change) -> None:
    """Change the carried configuration, with a manifest that fits."""
    content = json.loads((folder / "config.json").read_text())
    change(content["run"])
    (folder / "config.json").write_text(json.dumps(content))
    names = json.loads((folder / "manifest.json").read_text())
    digests = {name: sha256(folder / name) for name in names}
    (folder / "manifest.json").write_text(json.dumps(digests))


@pytest.mark.parametrize("field", [{"module": "evil"}, {"id": "evil:Thing-v0"}])
def test_a_module_that_its_environment_names_is_not_imported(alone, field, tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text("raise SystemExit('executed')")
    monkeypatch.syspath_prepend(tmp_path)
    rewrite(alone, lambda said: said.update(env=GYM | field))
    for load in (wamrl.load, build_saved):
        with pytest.raises(ValueError, match="imports evil: import that yourself first"):
            load(alone)
    assert "imports evil" in refused("serve", alone)
    assert "imports evil" in refused("eval", "--base", alone, code=2)
    monkeypatch.setitem(sys.modules, "evil", sys)
    assert read_config(alone).env.imports == ("evil",)


def test_no_cluster_is_connected_to(alone):
    more = {"backend": "ray", "ray_address": "ray://elsewhere:10001"}
    rewrite(alone, lambda said: said["pool"].update(more))
    for read in (read_config, build_saved):
        pool = read(alone).pool
        assert (pool.backend, pool.ray_address) == ("processes", "auto")


def test_a_name_is_no_path(alone):
    rewrite(alone, lambda said: said.update(name="../../up"))
    with pytest.raises(ValueError, match="it becomes a folder's name"):
        wamrl.load(alone)


def test_a_run_imports_nothing_that_came_with_it(tmp_path, monkeypatch):
    run = saved_run(tmp_path)
    (run / "evil.py").write_text("raise SystemExit('executed')")
    monkeypatch.syspath_prepend(run)
    content = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(content | {"env": GYM | {"module": "evil"}}))
    for place in (run, run / "checkpoints" / "final"):
        with pytest.raises(ValueError, match="imports evil, which lies in the run itself"):
            wamrl.load(place)


def test_in_its_own_run_it_is_believed(tmp_path):
    run = saved_run(tmp_path, pool__backend="ray")
    assert read_config(run / "checkpoints" / "final").pool.backend == "ray"
    assert read_config(run).pool.backend == "ray"
