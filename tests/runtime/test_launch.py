"""Ranks that a verb starts by itself: they learn what one learns,
end together, and complain in one sentence.
"""

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.runtime.test_dist import distance
from tests.support import tiny
from tests.support.processes import wait_for_end
from tests.test_cli import refused
from wamrl.commands import runs
from wamrl.runtime import checkpoint, cores, dist, launch

ROOT = Path(__file__).parents[2]
WAMRL = [sys.executable, "-m", "wamrl.cli"]
ARRIVE = (
    "import os, sys, time; from wamrl import dist, launch\nwith launch.local_ranks(2, []):\n    "
)


def rank(code: str) -> list[str]:
    """The command of another rank, which arrives and then runs `code`."""
    return [sys.executable, "-c", ARRIVE + code]


def wamrl(*args) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*WAMRL, *map(str, args)], cwd=ROOT, capture_output=True, text=True, timeout=200
    )


def test_two_ranks_leave_what_one_leaves(tmp_path):
    weights = []
    for n in (1, 2):
        done = wamrl(
            "sft", "point", "--smoke", "--threads", 1, "--ranks", n, "--out", tmp_path / str(n)
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.count("run folder:") == 1
        (run,) = (tmp_path / str(n)).iterdir()
        weights.append(checkpoint.load(run / "checkpoints" / "base"))
    assert (
        distance(*weights) < 2e-5
    )  # 20 steps at the full rate: see tests/support/ranks.py on Adam


def test_bad_input_is_one_sentence_on_any_number_of_ranks(tmp_path):
    done = wamrl(
        "train", "point", "--smoke", "--ranks", 2, "--base", tmp_path / "none", "--out", tmp_path
    )
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 1 and len(lines) == 1 and "there is no checkpoint at" in lines[0], (
        done.stderr
    )
    done = wamrl("demos", "point", "--ranks", 2)
    assert done.returncode == 1 and "demos runs on one rank" in done.stderr
    done = wamrl("sft", "point", "--ranks", -1)
    assert done.returncode == 1 and "ranks=-1 is not possible" in done.stderr


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
            while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
                time.sleep(0.05)
            raise KeyboardInterrupt
    wait_for_end([(tmp_path / "pid").read_text()], 1.0)
    assert dict(os.environ) == before and torch.get_num_threads() == threads


def test_the_others_end_when_the_first_is_killed(tmp_path):
    other = rank(f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(600)")
    first = (
        f"import time; from wamrl import launch\nwith launch.local_ranks(2, {other!r}):\n    "
        "time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", first], cwd=ROOT)
    deadline = time.monotonic() + 60
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.kill()
    process.wait()
    wait_for_end([(tmp_path / "pid").read_text()])


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
    assert runs.usual_ranks(cfg) == 3  # a group for each
    for taken in (
        replace(cfg, threads=1),
        replace(cfg, pool=replace(cfg.pool, n_workers=2)),
        replace(cfg, pool=replace(cfg.pool, backend="ray")),
        replace(cfg, train=replace(cfg.train, env_steps=9999)),
    ):
        assert runs.usual_ranks(taken) == 1
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert runs.usual_ranks(cfg) == 1


def test_torchrun_decides_where_it_has_started_us(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    with launch.local_ranks(5, ["no such program"]):
        assert dist.world() == 1


def test_torchrun_and_ranks_contradict_each_other(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "torchrun has started 2 ranks: leave out --ranks 3" in refused(
        "sft", "point", "--ranks", "3"
    )
