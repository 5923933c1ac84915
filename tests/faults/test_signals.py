"""Ended by a signal: said in one line, with the usual exit code; what is saved is whole and the run
goes on to the end that it would have had.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.command_line import POINT
from tests.support.processes import until, wait_for_end
from tests.test_cli import same_apart_from_time
from wamrl.models.saved import load_state
from wamrl.runtime import checkpoint

ROOT = Path(__file__).parents[2]
CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGKILL: -signal.SIGKILL}


def started(*args) -> subprocess.Popen:
    """`wamrl quickstart` on the point mass, as a group of processes of its own."""
    command = [sys.executable, "-m", "wamrl.cli", "quickstart", *POINT, *map(str, args)]
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True, **streams)


def children(pid: int) -> list[int]:
    """Processes that a process has started, theirs included."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += [int(child), *children(int(child))]
    return found


def ended(process: subprocess.Popen, how: int) -> str:
    """Its stderr, after the signal; none of its processes is left."""
    family = children(process.pid)
    process.send_signal(how)
    said = process.communicate(timeout=60)[1]
    wait_for_end(family)
    assert process.returncode == CODES[how], (process.returncode, said)
    return said


def whole(run: Path) -> None:
    """Every checkpoint can be read."""
    for folder in (run / "checkpoints").glob("[!.]*"):
        if (folder / "config.json").exists():
            load_state(folder)
        else:
            checkpoint.load(folder)


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.faults)])
def test_sigterm_is_told_and_nothing_is_left(tmp_path, ranks):
    process = started("--ranks", ranks, "--out", tmp_path, "--sft.steps", 100_000)
    until(lambda: [*tmp_path.glob("*/checkpoints/sft-resume")], seconds=120)
    lines = ended(process, signal.SIGTERM).strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("wamrl: stopped"), lines
    (run,) = tmp_path.iterdir()
    whole(run)
    assert not list(run.rglob(".*.tmp"))


@pytest.mark.faults
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("how", list(CODES), ids=lambda how: how.name)
def test_runs_that_are_ended_at_random_moments_go_on_to_the_same_end(how, point_run, tmp_path):
    """WAMRL_FAULTS runs for every signal, each ended up to three times."""
    number = int(os.environ.get("WAMRL_FAULTS", "3"))
    rng = random.Random(int(how))
    seconds = 12.0
    ends = 0
    for trial in range(number):
        out = tmp_path / str(trial)
        process = started("--ranks", 1, "--out", out)
        until(lambda out=out: [*out.glob("*/config.json")], seconds=120)
        (run,) = out.iterdir()
        for _ in range(3):
            time.sleep(rng.uniform(0, seconds))
            if process.poll() is not None:
                break
            said = ended(process, how)
            ends += 1
            assert how == signal.SIGKILL or said.startswith("wamrl: stopped"), said
            whole(run)
            process = started("--ranks", 1, "--resume", run)
            time.sleep(5)  # it starts
        said = process.communicate(timeout=300)[1]
        assert process.returncode == 0, said
        same_apart_from_time(point_run, run)
        assert not list(run.rglob(".*.tmp")) and not list(run.rglob(".*.old"))
    print(f"{how.name}: {number} runs, ended {ends} times in all, same end: {number}")
