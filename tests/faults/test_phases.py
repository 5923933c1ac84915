"""SIGTERM and SIGINT in every phase of a run, one after the other: each is told in one line, what
is there is whole, and the run that goes on comes to the end of one that was never stopped.
"""

from __future__ import annotations

import itertools
import os
import signal
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest

from tests.faults.test_signals import CODES, children, tiny_run, whole
from tests.support.command_line import wamrl
from tests.support.processes import wait_for_end
from tests.test_cli import same_apart_from_time

RECEIVE = "wamrl.pool.pool.Pool.receive"
WORLD = ("--train.world.demo-share", "1")  # it learns without any success, too


@dataclass(frozen=True)
class Phase:
    """A moment of a run: the call with this number of `function`, within `phase` if that is given;
    both as dotted names.
    """

    name: str
    function: str
    call: int = 1
    phase: str = ""


PHASES = (
    Phase("recording", "wamrl.data.demos.wait", 2),
    Phase("recording what is held out", "wamrl.data.demos.wait", 5),
    Phase("fine-tuning", "wamrl.sft.joint_loss", 10),
    Phase("its checkpoint", "wamrl.runtime.checkpoint.save_file"),
    Phase(
        "the base model", "wamrl.runtime.checkpoint.save_tensors", 1, "wamrl.runs.phases.save_wam"
    ),
    Phase("choosing the sampler", RECEIVE, 3, "wamrl.runs.phases.deploy"),
    Phase("evaluation before", RECEIVE, 3, "wamrl.runs.phases.measure"),
    Phase("videos before", "wamrl.runs.videos.film", 2),
    Phase("rollout", RECEIVE, 3, "wamrl.train.collect"),
    Phase("score", "wamrl.rewards.reward.Reward.forward"),
    Phase("value update", "wamrl.rl.value.Critic._gradients", 2),
    Phase("world update", "wamrl.rl.world_update.WorldUpdate._step"),
    Phase("a look", RECEIVE, 3, "wamrl.train.look"),
    Phase("the log", "wamrl.runtime.trackers.Trackers.log", 2),
    Phase("step checkpoint", "wamrl.runtime.checkpoint.save_file", 2, "wamrl.train.iterate"),
    Phase("policy update", "wamrl.rl.policy.ClippedPolicy._gradients"),
    Phase("diagnostics", "wamrl.report.diagnostics_figure"),
    Phase("evaluation after", RECEIVE, 2, "wamrl.commands.runs.measure_after"),
    Phase("videos after", "wamrl.runs.videos.film", 1, "wamrl.commands.runs.measure_after"),
    Phase("the summary", "wamrl.report.write_summary"),
)
FEW = ("fine-tuning", "rollout", "step checkpoint", "policy update")
ALL = tuple(phase.name for phase in PHASES)


def patch(monkeypatch, name: str, before) -> None:
    """`before()` is called before every call of the function of this dotted name."""
    place, _, attribute = name.rpartition(".")
    module, _, kind = place.rpartition(".")
    if kind.islower():
        home = import_module(place)
    else:
        home = getattr(import_module(module), kind)
    function = getattr(home, attribute)

    def wrapped(*args, **kwargs):
        before()
        return function(*args, **kwargs)

    monkeypatch.setattr(home, attribute, wrapped)


def stop_in(phase: Phase, how: int, monkeypatch) -> list[int]:
    """Send the signal to this process there, once; the processes that it had then."""
    seen = {"inside": not phase.phase, "calls": 0}
    family: list[int] = []
    others = set(children(os.getpid()))  # of tests before this one, in the same process

    def enter() -> None:
        seen["inside"] = True

    def count() -> None:
        seen["calls"] += seen["inside"]
        if seen["calls"] == phase.call and not family:
            family.extend([0, *(c for c in children(os.getpid()) if c not in others)])
            os.kill(os.getpid(), how)

    patch(monkeypatch, phase.function, count)
    if phase.phase:
        patch(monkeypatch, phase.phase, enter)
    return family


@pytest.fixture
def hears_sigint():
    """A shell's background jobs do not."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("hears_sigint")
@pytest.mark.timeout(0)
@pytest.mark.parametrize(
    ("first", "ranks", "names"),
    [
        pytest.param(signal.SIGTERM, 1, FEW, id="few"),
        pytest.param(signal.SIGTERM, 1, ALL, id="SIGTERM first", marks=pytest.mark.faults),
        pytest.param(signal.SIGINT, 1, ALL, id="SIGINT first", marks=pytest.mark.faults),
        pytest.param(signal.SIGTERM, 2, FEW, id="two ranks", marks=pytest.mark.faults),
    ],
)
def test_a_signal_in_every_phase(first, ranks, names, tmp_path, monkeypatch):
    command = [*tiny_run(tmp_path / "whole"), *WORLD, "--ranks", str(ranks)]
    assert wamrl(*command)[0] == 0
    (reference,) = (tmp_path / "whole").iterdir()
    command[command.index("--out") + 1] = str(tmp_path / "stopped")
    both = (first, signal.SIGTERM + signal.SIGINT - first)
    chosen = [phase for phase in PHASES if phase.name in names]
    for phase, how in zip(chosen, itertools.cycle(both), strict=False):
        with monkeypatch.context() as patched:
            family = stop_in(phase, how, patched)
            code, _, err = wamrl(*command)
        assert family, f"{phase.name} never came"
        assert code == CODES[how], (phase.name, err)
        wait_for_end(family[1:])
        (said,) = err.strip().splitlines()
        if phase.name == "recording":  # nothing was there yet, and nothing is left
            assert said == "wamrl: stopped" and not list((tmp_path / "stopped").iterdir())
            continue
        (run,) = (tmp_path / "stopped").iterdir()
        resume = f"wamrl quickstart --resume {run}"
        assert said == f"wamrl: stopped; go on with: {resume}", (phase.name, said)
        whole(run)
        assert not list(run.rglob(".*.tmp")) and not list(run.rglob(".*.old")), phase.name
        command = [*resume.split()[1:], "--ranks", str(ranks)]
    code, _, err = wamrl(*command)
    assert code == 0, err
    same_apart_from_time(reference, run)
    assert files(reference) == files(run)
    print(f"{len(chosen)} signals in {len(chosen)} phases, {ranks} ranks: the same end")


def files(run: Path) -> set[str]:
    """Its files; not those that a resumed run has beside."""
    found = (path.relative_to(run) for path in run.rglob("*") if path.is_file())
    beside = ("tensorboard", "metrics-dropped.jsonl", "checkpoints/sft-resume")
    return {str(p) for p in found if not str(p).startswith(beside)}
