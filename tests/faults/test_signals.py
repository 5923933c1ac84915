"""Ended by a signal: said in one line, with the usual exit code; what is saved is whole and the run
goes on to the end that it would have had.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest

from tests.support import forked
from tests.support.command_line import POINT
from tests.support.processes import until, wait_for_end
from tests.support.saved_runs import TINY
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
@pytest.mark.timeout(0)
@pytest.mark.parametrize("how", list(CODES), ids=lambda how: how.name)
def test_runs_that_are_ended_at_random_moments_go_on_to_the_same_end(how, tmp_path):
    """WAMRL_FAULTS ends for every signal. A moment is one of processor time, so that a busy machine
    moves none of them.
    """
    number = int(os.environ.get("WAMRL_FAULTS", "5"))
    rng = random.Random(int(how))
    undisturbed = tmp_path / "undisturbed"
    process = forked.start(tiny_run(undisturbed), tmp_path / "said")
    seconds = spent_until(process, 1e9)
    assert process.exitcode == 0, (tmp_path / "said").read_text()
    (reference,) = undisturbed.iterdir()
    ends = 0
    runs = 0
    while ends < number:
        runs += 1
        ends += disturbed(how, tmp_path / str(runs), reference, lambda: rng.uniform(0.2, seconds))
        print(f"{how.name}: {runs} runs, ended {ends} times, the same end", flush=True)


def tiny_run(out: Path) -> list[str]:
    model = [word for name, value in TINY.items() for word in option(name, value)]
    return ["quickstart", *POINT, *model, "--ranks", "1", "--out", str(out)]


def option(name: str, value: object) -> list[str]:
    values = value if isinstance(value, tuple) else (value,)
    return [f"--{name}", *map(str, values)]


def disturbed(how: int, out: Path, reference: Path, moment: Callable[[], float]) -> int:
    """A run that is ended at a moment, as processor seconds, and resumed, until it comes to its
    end, which is that of `reference`; how often it was ended.
    """
    said = out.with_suffix(".said")
    process = forked.start(tiny_run(out), said)
    ends = 0
    while True:
        spent_until(process, moment())
        if not process.is_alive():
            assert process.exitcode == 0, said.read_text()
            break
        family = children(process.pid)
        os.kill(process.pid, how)
        process.join(120)
        wait_for_end(family)
        if process.exitcode == 0:  # it came too late
            break
        assert process.exitcode == CODES[how], (process.exitcode, said.read_text())
        ends += 1
        begun = [config.parent for config in out.glob("*/config.json")]
        if how != signal.SIGKILL:
            lines = said.read_text().strip().splitlines()
            assert len(lines) == 1 and lines[0].startswith("wamrl: stopped"), lines
        if not begun:
            process = forked.start(tiny_run(out), said)
            continue
        (run,) = begun
        whole(run)
        process = forked.start(["quickstart", "--ranks", 1, "--resume", run], said)
    (run,) = out.glob("*/summary.json")
    same_apart_from_time(reference, run.parent)
    assert not list(out.rglob(".*.tmp")) and not list(out.rglob(".*.old"))
    shutil.rmtree(out)
    return ends


def spent_until(process: ForkServerProcess, moment: float) -> float:
    """Wait until it has spent so many processor seconds, or has ended; what it had spent."""
    spent = 0.0
    while process.is_alive() and spent < moment:
        time.sleep(0.01)
        spent = max(spent, forked.spent_s(process.pid))
    return spent
