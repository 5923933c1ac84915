"""Ranks that a verb starts by itself: they learn what one learns,
end together, and complain in one sentence.
"""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.support import tiny
from tests.support.command_line import POINT, refused
from tests.support.processes import wait_for_end, written
from wamrl.models.saved import load_state
from wamrl.runs.folder import usual_ranks
from wamrl.runtime import cores, dist, launch

ROOT = Path(__file__).parents[2]
WAMRL = [sys.executable, "-m", "wamrl.cli"]
ARRIVE = """
import os, sys, time
from wamrl.runtime import dist, launch
with launch.local_ranks(2, []):
    """


def rank(code: str) -> list[str]:
    """The command of another rank, which arrives and then runs `code`."""
    return [sys.executable, "-c", ARRIVE + code]


def started(*args) -> subprocess.CompletedProcess:
    """`wamrl ARGS` in a process of its own, which is one of the ranks that it starts."""
    return subprocess.run(
        [*WAMRL, *map(str, args)], cwd=ROOT, capture_output=True, text=True, timeout=200
    )


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> tuple[Path, str]:
    """The run folder of `wamrl quickstart` on two ranks, and what it said."""
    out = tmp_path_factory.mktemp("two")
    done = started("quickstart", *POINT, "--ranks", 2, "--out", out)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    (run,) = out.iterdir()
    return run, done.stdout


def test_two_ranks_leave_what_one_leaves(shared, point_run):
    one, two = (load_state(run / "checkpoints" / "base") for run in (point_run, shared[0]))
    # 20 steps at the full rate: see tests/support/ranks.py on Adam
    assert tiny.distance(one, two) < 2e-5


def test_the_verbs_run_on_two_ranks(shared):
    run, said = shared
    after = json.loads((run / "summary.json").read_text())["arms"]["after"]
    assert after["episodes"] == len(after["starts"])
    assert sorted(after["starts"]) == list(range(after["episodes"]))
    assert said.count("run folder:") == 1 and said.count("before, sampler") == 1
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps) and (run / "checkpoints" / "best").is_dir()


def test_bad_input_is_one_sentence_on_any_number_of_ranks(tmp_path):
    done = started(
        "train", "point", "--smoke", "--ranks", 2, "--base", tmp_path / "none", "--out", tmp_path
    )
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 1 and len(lines) == 1 and "there is no model at" in lines[0], (
        done.stderr
    )
    assert "demos runs on one rank" in refused("demos", "point", "--ranks", 2, code=2)
    assert "ranks=-1 is not possible" in refused("sft", "point", "--ranks", -1, code=2)


def test_a_rank_that_dies_before_it_arrives_is_told():
    with pytest.raises(ValueError, match=r"rank 1 of this run has ended \(out of luck\): look"):
        with launch.local_ranks(2, [sys.executable, "-c", "import sys; sys.exit('out of luck')"]):
            raise AssertionError("it never arrived")


def test_a_rank_that_dies_later_is_told():
    code = "with dist.ranks():\n        sys.exit('wamrl: error: no more room')"
    with pytest.raises(ValueError, match="^no more room$"):
        with launch.local_ranks(2, rank(code)), dist.ranks():
            dist.barrier()
            dist.barrier()


def test_the_others_end_with_the_first(tmp_path):
    """However it leaves; and the environment is as it was."""
    before, threads = dict(os.environ), torch.get_num_threads()
    code = f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    with pytest.raises(KeyboardInterrupt):
        with launch.local_ranks(2, rank(code)):
            assert os.environ["WORLD_SIZE"] == "2" and torch.get_num_threads() == max(
                1, threads // 2
            )
            pid = written(tmp_path / "pid")
            raise KeyboardInterrupt
    wait_for_end([pid], 1.0)
    assert dict(os.environ) == before and torch.get_num_threads() == threads


def test_the_others_end_when_the_first_is_killed(tmp_path):
    other = rank(f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(600)")
    first = (
        "import time\nfrom wamrl.runtime import launch\n"
        f"with launch.local_ranks(2, {other!r}):\n    time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", first], cwd=ROOT)
    pid = written(tmp_path / "pid")
    process.kill()
    process.wait()
    wait_for_end([pid])


def test_the_usual_number_of_ranks(monkeypatch):
    cfg = replace(tiny.CONFIG, threads=0, pool=replace(tiny.CONFIG.pool, n_workers=0))
    cfg = replace(cfg, sft=replace(cfg.sft, batch=64), train=replace(cfg.train, groups=3))
    cfg = replace(cfg, train=replace(cfg.train, world=replace(cfg.train.world, batch=32)))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    assert cores.memory() > 1e9
    monkeypatch.setattr(cores, "memory", lambda: 7_000_000_000)
    assert cores.ranks(32) == 2
    monkeypatch.setattr(cores, "memory", lambda: 64_000_000_000)
    assert cores.ranks(32) == 4 and cores.ranks(7) == 1 and cores.ranks(1000) == 8
    assert usual_ranks(cfg) == 3  # a group for each
    for taken in (
        replace(cfg, threads=1),
        replace(cfg, pool=replace(cfg.pool, n_workers=2)),
        replace(cfg, pool=replace(cfg.pool, backend="ray")),
        replace(cfg, train=replace(cfg.train, env_steps=9999)),
    ):
        assert usual_ranks(taken) == 1
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert usual_ranks(cfg) == 1


def test_torchrun_decides_where_it_has_started_us(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    with launch.local_ranks(5, ["no such program"]):
        assert dist.world() == 1


def test_torchrun_and_ranks_contradict_each_other(second_of_two):
    assert "torchrun has started 2 ranks: leave out --ranks 3" in refused(
        "sft", "point", "--ranks", "3", code=2
    )
