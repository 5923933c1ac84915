"""Success by the goal's place: the simulator's own goals, every state once, refusals."""

import json

import numpy as np
import pytest

pytest.importorskip("metaworld", reason="needs pip install -e '.[metaworld]'")

from benchmarks import where_it_wins
from wamrl import report
from wamrl.envs.metaworld.env import MetaWorldConfig
from wamrl.runtime.log import resolved
from wamrl.stats.paired import paired_difference
from wamrl.types import InitialState

STATES = 24


def made_run(root):
    """A run whose states are won, after training, where the goal stands right of the hand."""
    env = MetaWorldConfig(task="button-press")
    right = where_it_wins.goals(env, list(range(STATES)))[:, 0] > 0
    kind = {"task": "made", "stages": 1, "seed": 3, "error_over_copy": {4: 0.5}}
    arms = {
        name: report.arm(**kind, success=won, length=np.full(STATES, 9))
        | {"starts": list(range(STATES)), "success": won.tolist()}
        for name, won in {"before": np.zeros(STATES, bool), "after": right}.items()
    }
    config = {"name": "made", "seed": 3, "env": resolved(env)}
    (root / "config.json").write_text(json.dumps(config))
    pair = paired_difference(np.zeros(STATES, bool), right)
    report.write_summary(root / "summary.json", arms, {"after - before": pair})
    return root


def test_every_state_is_where_the_simulator_puts_its_goal(tmp_path):
    outcomes = where_it_wins.Outcomes.load(made_run(tmp_path))
    scene = MetaWorldConfig(task="button-press").build()
    scene.reset(InitialState(split="eval", index=7).seed)
    assert np.allclose(outcomes.goal[7], 100 * scene.scene.sim.goal()[:2])
    won, total = outcomes.counts("after")
    assert total.sum() == STATES and (outcomes.counts("before")[0] == 0).all()
    assert np.ptp(outcomes.goal[:, 0]) > 10
    whole = outcomes.edges[:-1] > 0
    assert (won[whole] == total[whole]).all() and (won[outcomes.edges[1:] < 0] == 0).all()


def test_the_picture_and_the_table(tmp_path, monkeypatch, capsys):
    run = made_run(tmp_path)
    out = tmp_path / "map.png"
    monkeypatch.setattr("sys.argv", ["where_it_wins", str(run), "--out", str(out)])
    where_it_wins.main()
    said = capsys.readouterr().out
    assert said.count("\n| ") == 1 + where_it_wins.BANDS and "seed 3" in said
    assert out.stat().st_size > 10_000


def test_what_is_no_finished_metaworld_run_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["where_it_wins", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"no summary\.json"):
        where_it_wins.main()
    made_run(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["env"]["class"] = "wamrl.envs.point:PointConfig"
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(SystemExit, match="not a run on MetaWorld"):
        where_it_wins.main()
