"""The public API: what the page shows runs, a name costs nothing before it is used, faults are
one sentence."""

from __future__ import annotations

import ast
import inspect
import json
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import wamrl
from tests.support import tiny
from tests.support.saved_runs import TINY, saved_run

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
NOTEBOOK = ROOT / "examples" / "api.ipynb"


def lines(block: str) -> int:
    return sum(1 for line in block.splitlines() if line.strip())


def code_cells() -> list[str]:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


@pytest.fixture
def here(point_run, tmp_path, monkeypatch):
    """A folder with runs/NAME, where the page's blocks are run."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "NAME").symlink_to(point_run)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names() -> dict:
    """What the page's reader has: an observation."""
    seen = {"picture": np.zeros((48, 64, 3), np.uint8), "state": np.zeros(4, np.float32)}
    return seen | {"observation": {"pixels": seen["picture"], "agent_pos": seen["state"]}}


def test_what_the_page_shows_runs(here, capsys):
    """Its last block is in the notebook too, which another test runs."""
    known = names()
    for block in BLOCKS[:-1]:
        exec(compile(block, "docs/api.md", "exec"), known)
    assert known["actions"].shape == (8, 2) and known["action"].shape == (2,)
    assert known["frames"].dtype == np.uint8 and known["frames"].shape == (2, 1, 32, 32, 3)
    assert re.search(r"^\d/5 = [\d.]+%, 95 % interval", capsys.readouterr().out, re.MULTILINE)
    assert known["rows"][-1]["eval/success"] is not None
    assert known["figure"]._repr_png_().startswith(b"\x89PNG")
    assert known["metrics"]["rollout/steps"] > 0
    assert [path.name for path in (here / "runs").iterdir()] == ["NAME"], "nothing was written"
    shown = {ast.unparse(statement) for cell in code_cells() for statement in ast.parse(cell).body}
    assert {ast.unparse(statement) for statement in ast.parse(BLOCKS[-1]).body} <= shown


def test_load_and_act_is_short():
    assert "wamrl.load" in BLOCKS[0] and ".act(" in BLOCKS[0] and lines(BLOCKS[0]) <= 4
    (block,) = [block for block in BLOCKS if "Trainer(" in block]
    assert ".step()" in block and lines(block) <= 5


def test_importing_is_cheap_and_names_come_when_they_are_used():
    code = """
import sys, time
begin = time.process_time()
import wamrl
seconds = time.process_time() - begin
assert not {'torch', 'numpy', 'tyro', 'matplotlib'} & set(sys.modules), 'too much is imported'
assert seconds < 0.1, seconds
assert set(wamrl.__all__) <= set(dir(wamrl))
try:
    wamrl.nothing
except AttributeError as error:
    print(error)
import wamrl.train
assert callable(wamrl.train) and wamrl.load is wamrl.load
from wamrl.sft import SFT
assert wamrl.sft.__name__ == 'sft' and 'torch' in sys.modules
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "module 'wamrl' has no attribute 'nothing'\n"


def test_every_public_name_is_there_explained_and_typed():
    tree = ast.parse((ROOT / "wamrl" / "__init__.py").read_text())
    typed = {a.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for a in n.names}
    public = set(wamrl.__all__) - {"__version__"}
    assert public == typed - {"ModuleType", "api"} == set(import_module("wamrl.api").__all__)
    assert (ROOT / "wamrl" / "py.typed").is_file()
    for name in public:
        found = getattr(wamrl, name)
        parts = [(name, found)]
        if inspect.isclass(found):
            members = inspect.getmembers(found, inspect.isfunction)
            parts += [(f"{name}.{n}", f) for n, f in members if not n.startswith("_")]
        for where, part in parts:
            assert part.__doc__, f"{where} has no docstring"
            assert f"`{name}" in PAGE or f"{name}(" in PAGE or name in ("Evaluation",), name
            if inspect.isfunction(part):
                signature = inspect.signature(part)
                assert signature.return_annotation is not inspect.Signature.empty, where
                untyped = [
                    p.name
                    for p in signature.parameters.values()
                    if p.annotation is p.empty and p.name != "self"
                ]
                assert not untyped, (where, untyped)


def test_the_functions_stay_where_modules_have_their_names():
    for name in ("train", "sft"):
        module = import_module(f"wamrl.{name}")
        assert inspect.ismodule(module) and inspect.isfunction(getattr(wamrl, name))


def test_a_recipe_is_changed_by_dotted_names():
    config = wamrl.recipe("point", {"train.learner.lr": 1e-4, "eval.episodes": 3})
    assert config.train.learner.lr == 1e-4 and config.eval.episodes == 3
    assert wamrl.recipe(config) == config and wamrl.recipe(lambda: config) == config
    assert wamrl.recipe("point", small=True).train.iterations == 2
    for changes, sentence in (
        ({"train.learner.speed": 1}, "no option 'train.learner.speed': 'speed' is none of"),
        ({"seed.x": 1}, "no option 'seed.x': 'x' is none of nothing"),
        ({"flow.noise": 0.0}, "flow.noise=0"),
    ):
        with pytest.raises(ValueError, match=sentence):
            wamrl.recipe("point", changes)
    with pytest.raises(ValueError, match="gives a Config, not a int"):
        wamrl.recipe(lambda: 3)


def test_a_trainer_learns_and_its_model_can_be_saved(tmp_path):
    base = wamrl.sft(tiny.CONFIG, out=tmp_path / "sft")
    assert base.sampler == "zero", "nobody has chosen one yet"
    before = {name: value.clone() for name, value in base.model.state_dict().items()}
    with wamrl.Trainer(tiny.CONFIG, base=base.path / "checkpoints" / "base") as trainer:
        metrics = trainer.step()
        assert metrics["rollout/success"] > 0 and trainer.state.iteration == 1
        saved = trainer.save(tmp_path / "saved")
    learned = trainer.state.wam.state_dict()
    assert not tiny.changed(base.model, before), "the base stays as it was"
    assert {"world.head.weight", "actor.head.weight"} <= tiny.changed(saved.model, before)
    assert not tiny.changed(saved.model, learned)
    data = wamrl.demonstrate(tiny.CONFIG, out=tmp_path / "demos")
    with wamrl.Trainer(tiny.CONFIG, base=saved, data=data) as trainer:
        assert not tiny.changed(trainer.state.wam, learned)


def test_a_trainer_needs_demonstrations(tmp_path):
    run = wamrl.load(saved_run(tmp_path))
    with pytest.raises(ValueError, match="holds no demonstrations: give data="):
        wamrl.Trainer(run.config, base=run)


def test_a_curve_without_evaluations_is_refused(tmp_path):
    run = wamrl.load(saved_run(tmp_path))
    with pytest.raises(ValueError, match="no episode to draw"):
        run.plot()
    with pytest.raises(ValueError, match="episodes=0"):
        run.evaluate(0)


def test_an_evaluation_has_its_interval_and_can_be_played_again(tmp_path):
    from wamrl.types import InitialState

    run = wamrl.load(str(saved_run(tmp_path, flow__deploy="explore")))
    assert run.sampler == "explore" and "sampler 'explore'" in repr(run)
    found = run.evaluate(3)
    low, high = found.interval
    assert found.states.tolist() == [0, 1, 2] and 0 <= low <= found.rate <= high <= 1
    env = run.config.env.build()
    env.reset(InitialState(split="eval", index=2).seed)
    run.reset(2)
    steps = 0
    ended = False
    while not ended:
        obs = {"pixels": env.render()[0], "agent_pos": env.proprio()}
        result = env.step(run.select_action(obs))
        steps += 1
        ended = result.terminated or result.truncated
    assert steps == found.length[2] and result.success == found.success[2]


def test_a_model_of_another_size_is_refused(tmp_path):
    run = saved_run(tmp_path)
    with pytest.raises(ValueError, match="was made with another model"):
        wamrl.load(run, recipe="point")
    assert wamrl.load(run, recipe=wamrl.recipe("point", TINY)).spec.name == "point"


def test_the_notebook_runs_as_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    known: dict = {}
    for number, cell in enumerate(code_cells()):
        exec(compile(cell, f"api.ipynb, code cell {number}", "exec"), known)
    assert known["run"].path.parent == Path("runs") and os.listdir(tmp_path) == ["runs"]
    assert known["run"].metrics()[-1]["step"] == 1
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert '"image/png"' in text, "the notebook is kept with its output"
    assert str(ROOT) not in text and "/tmp" not in text


def test_a_checkpoint_knows_the_log_of_its_run(tmp_path):
    run = saved_run(tmp_path)
    (run / "metrics.jsonl").write_text('{"step": 1, "rollout/success": 0.5}\n')
    for path in (run, run / "checkpoints" / "final"):
        assert [row["step"] for row in wamrl.load(path).metrics()] == [1]
