"""What hangs is named within its time limit; what is slow is waited for."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from tests.pool.test_pool import actions, build, starts
from tests.runtime.test_launch import rank
from tests.support.faulty import WalkConfig
from tests.support.pools import begin, step
from tests.support.processes import wait_for_end, written
from wamrl.pool import group
from wamrl.runtime import dist, heartbeat, launch
from wamrl.runtime.log import console


def test_a_slow_simulator_does_not_hang():
    """5 slots x 5 steps x 50 ms in one message, over twice the limit of a step."""
    with build(WalkConfig(step_s=0.05), n_workers=1, timeout_s=0.5) as pool:
        begin(pool, starts(5))
        pids = pool.pids
        before = time.monotonic()
        for number in range(2):
            outcome = step(pool, actions(number))
            assert outcome.executed.tolist() == [5] * 5 and not outcome.lost.any()
        assert time.monotonic() - before > 2.4 and pool.pids == pids


def test_a_hung_worker_is_named_with_its_setting():
    env = WalkConfig(fault="hang", bad_seeds=(starts(5)[3].seed,))
    with build(env, timeout_s=1.0) as pool, console.capture() as said:
        begin(pool, starts(5))
        pid = pool.pids[1]
        before = time.monotonic()
        assert step(pool, actions(0)).lost.tolist() == [False, False, True, True, True]
        assert pool.pids[1] != pid
    expected = f"worker {pid} hangs: no control step for 1 s (pool.timeout_s): it is replaced"
    assert expected in said.get() and time.monotonic() - before < 10


def test_a_worker_that_builds_for_long_is_waited_for(monkeypatch):
    """Five environments of 0.4 s."""
    monkeypatch.setattr(group, "_IDLE_BUILD_S", 1.0)
    with build(WalkConfig(fault="slow build"), n_workers=1) as pool:
        assert not begin(pool, starts(5)).lost.any()


def test_a_worker_that_hangs_while_it_builds_is_named(monkeypatch):
    monkeypatch.setattr(group, "_IDLE_BUILD_S", 1.5)
    before = time.monotonic()
    with pytest.raises(RuntimeError, match=r"hangs: idle for .* while it built the environments"):
        build(WalkConfig(fault="hung build"), n_workers=1)
    assert time.monotonic() - before < 60


def test_a_worker_that_never_ends_to_build_is_named(monkeypatch):
    monkeypatch.setattr(group, "_IDLE_BUILD_S", 0.5)
    monkeypatch.setattr(group, "_BUILD_AT_MOST_S", 0.5)
    with pytest.raises(RuntimeError, match="while it built the environments"):
        build(WalkConfig(fault="slow build"), n_workers=1)


def test_a_hung_rank_is_named_with_its_setting(monkeypatch, tmp_path):
    monkeypatch.setenv(heartbeat.LIMIT, "1.5")
    code = (
        f"with dist.ranks():\n        open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))"
    )
    code += "\n        os.kill(os.getpid(), 19)  # stopped: not even its threads go on"
    with pytest.raises(ValueError, match="rank 1 of this run hangs: .*WAMRL_RANK_TIMEOUT_S=1.5"):
        monkeypatch.setattr(launch, "_GOODBYE_S", 0.5)
        monkeypatch.setattr(launch, "_LAST_WORDS_S", 0.5)
        with launch.local_ranks(2, rank(code)), dist.ranks():
            dist.barrier()
    wait_for_end([written(tmp_path / "pid")], 1.0)


def test_a_slow_rank_that_makes_progress_is_waited_for(monkeypatch):
    """And collectives give what they gave without a limit."""
    monkeypatch.setenv(heartbeat.LIMIT, "1.5")
    code = "from wamrl.runtime.log import bar\n    import torch\n    with dist.ranks():\n"
    code += "        with bar('slow', 9) as advance:\n            for _ in range(10):\n"
    code += (
        "                time.sleep(0.5)\n                advance()\n            dist.barrier()\n"
    )
    code += "        dist.all_sum(torch.ones(3))\n        dist.gather_texts(['b', 'c'])\n"
    code += "        dist.broadcast_texts([])"
    with launch.local_ranks(2, rank(code)), dist.ranks():
        before = time.monotonic()
        dist.barrier()
        assert time.monotonic() - before > 4
        assert dist.all_sum(torch.arange(3.0)).tolist() == [1, 2, 3]
        assert dist.gather_texts(["a"]) == ["a", "b", "c"]
        assert dist.broadcast_texts(["x", ""]) == ["x", ""]


def test_an_impossible_limit_is_one_sentence(monkeypatch):
    for text in ("soon", "0", "nan"):
        monkeypatch.setenv(heartbeat.LIMIT, text)
        with pytest.raises(ValueError, match=f"{heartbeat.LIMIT}={text} is not possible: give"):
            heartbeat.limit_s()


def test_who_waits_for_another_rank_hears_sigterm(tmp_path):
    """The collective itself never looks up."""
    other = rank("with dist.ranks():\n        time.sleep(600)")
    first = (
        "from wamrl.runtime import dist, launch\nfrom wamrl.runtime.processes import *\n"
        "launch._GOODBYE_S = 0.5\n"
        f"with sigterm_interrupts(), launch.local_ranks(2, {other!r}), dist.ranks():\n"
        f"    open({str(tmp_path / 'here')!r}, 'w').write('x')\n    dist.barrier()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", first], env=os.environ | {"PYTHONPATH": os.getcwd()}, stderr=-1
    )
    written(tmp_path / "here")
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=20)[1].decode()
    assert "Terminated" in said.splitlines()[-1], said
