"""Does a long run with faults wear out?
The online loop on the point mass, for minutes or hours, with a fault every so often: a worker
killed, one that hangs (stopped), the state read back from the last checkpoint as after a crash, the
tracker removed and opened again.

    python -m benchmarks.soak --minutes 30 --fault-every-s 20

Reported at every fault, as a JSON line: resident memory, open descriptors, threads, processes,
mappings of shared memory, iterations, episodes, lost episodes, control steps. At the end: what grew
between the second and the last quarter. The exit code is 1 if anything did that must not.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import tyro

from benchmarks.memory import resident_mb, tiny
from wamrl.data.clips import ClipDataset
from wamrl.data.demos import collect
from wamrl.data.recording import InMemory
from wamrl.online.state import TrainingState
from wamrl.pool.pool import Pool
from wamrl.runs.phases import fresh_model
from wamrl.runtime import checkpoint
from wamrl.runtime.log import Logger, new_run
from wamrl.train import iterate
from wamrl.types import Outcome

MIDDLE = 5  # answers of the pool after which episodes have made a chunk and not ended
GROWTH = 0.03  # of resident memory from the second to the last quarter; more is a leak


@dataclass(frozen=True, kw_only=True)
class Options:
    """How long, and how often something goes wrong."""

    minutes: float = 120.0
    fault_every_s: float = 60.0
    timeout_s: float = 5.0  # after which a worker that makes no step counts as hung


@dataclass(frozen=True, kw_only=True)
class Look:
    """What there is of the process at one moment; counters since its start."""

    seconds: float
    fault: str
    resident_mb: float
    descriptors: int
    threads: int
    children: int
    shared_mappings: int
    iterations: int
    episodes: int
    lost: int
    control_steps: int
    checkpoints: int


class Soak:
    """The run, its counters, and the ways in which it can be hurt."""

    def __init__(self, o: Options, root: Path) -> None:
        cfg = tiny()
        self.cfg = replace(cfg, pool=replace(cfg.pool, timeout_s=o.timeout_s))
        torch.set_num_threads(1)
        model = cfg.model
        self.demos = ClipDataset(
            InMemory(collect(replace(cfg.demos("demo"), n_workers=0))),
            model.history_offsets,
            model.frame_offsets,
            model.chunk,
            only_success=True,
        )
        self.run = new_run(root, "soak", self.cfg)
        self.iterations = 0
        self.episodes = 0
        self.lost = 0
        self.control_steps = 0
        self.begin = time.monotonic()
        self.faults: dict[str, Callable[[Pool, TrainingState, Logger], None]] = {
            "worker killed": lambda pool, *_: self._hurt_later(pool, 0, signal.SIGKILL),
            "worker stopped": lambda pool, *_: self._hurt_later(pool, 1, signal.SIGSTOP),
            "state read back": self._read_back,
            "tensorboard removed": self._remove_board,
        }

    def iterate(self, state: TrainingState, pool: Pool, logger: Logger) -> None:
        """One iteration, logged and saved."""
        before = state.steps_used
        metrics, rollout = iterate(state, pool)
        state.require_finite()
        logger.log(state.iteration, metrics)
        checkpoint.save_step(
            self.run, state.iteration, state.state_dict(), state.buffer.own_state(), keep=2
        )
        assert state.steps_used > before, "the budget went back"
        self.iterations += 1
        self.episodes += len(rollout.starts)
        self.lost += rollout.lost
        self.control_steps += state.steps_used - before

    def look(self, fault: str) -> Look:
        """Before the fault is done."""
        return Look(
            seconds=round(time.monotonic() - self.begin, 1),
            fault=fault,
            resident_mb=round(resident_mb(), 1),
            descriptors=len(os.listdir("/proc/self/fd")),
            threads=len(os.listdir("/proc/self/task")),
            children=len(Path("/proc/thread-self/children").read_text().split()),
            shared_mappings=Path("/proc/self/maps").read_text().count("wamrl-pool"),
            iterations=self.iterations,
            episodes=self.episodes,
            lost=self.lost,
            control_steps=self.control_steps,
            checkpoints=len(checkpoint.steps(self.run)),
        )

    def _hurt_later(self, pool: Pool, worker: int, how: int) -> None:
        """In the next rollout, in the middle of its episodes: others would be begun again."""
        receive = pool.receive
        left = MIDDLE

        def hurt() -> Outcome:
            nonlocal left
            left -= 1
            if not left:
                pool.receive = receive
                os.kill(pool.pids[worker], how)
            return receive()

        pool.receive = hurt

    def _read_back(self, pool: Pool, state: TrainingState, logger: Logger) -> None:
        last, faults = checkpoint.newest_sound(self.run)
        assert not faults, faults
        state.load_state_dict(checkpoint.load(last), checkpoint.load_parts(last))

    def _remove_board(self, pool: Pool, state: TrainingState, logger: Logger) -> None:
        shutil.rmtree(self.run / "tensorboard", ignore_errors=True)


def soak(o: Options, root: Path) -> Iterator[Look]:
    """A look before each fault; raises where the run does not survive one."""
    this = Soak(o, root)
    names = itertools.cycle(this.faults)
    with this.cfg.build_pool() as pool:
        state = TrainingState(this.cfg, fresh_model(this.cfg), this.demos, pool.spec.horizon)
        this.begin = time.monotonic()
        for name in names:
            due = time.monotonic() + o.fault_every_s
            with Logger(this.run) as logger:
                this.iterate(state, pool, logger)
                while time.monotonic() < due:
                    this.iterate(state, pool, logger)
                yield this.look(name)
                if time.monotonic() - this.begin > 60 * o.minutes:
                    return
                this.faults[name](pool, state, logger)


def worn(looks: list[Look]) -> list[str]:
    """What must not have grown and did, or went back, a sentence each."""
    found = []
    quarter = max(1, len(looks) // 4)
    early = looks[quarter : 2 * quarter] or looks
    late = looks[-quarter:]
    for name in ("resident_mb", "descriptors", "threads", "children", "shared_mappings"):
        before = statistics.median(getattr(look, name) for look in early)
        after = statistics.median(getattr(look, name) for look in late)
        room = 1 + GROWTH if name == "resident_mb" else 1
        print(f"{name}: median {before:g} in the second quarter, {after:g} in the last")
        if after > before * room:
            found.append(f"{name} grew from {before:g} to {after:g}")
    for name in ("iterations", "episodes", "lost", "control_steps"):
        values = [getattr(look, name) for look in looks]
        if values != sorted(values):
            found.append(f"{name} went back")
    return found


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    options = tyro.cli(Options, args=argv, description=__doc__)
    with tempfile.TemporaryDirectory() as root:
        looks = []
        for look in soak(options, Path(root)):
            print(json.dumps(asdict(look)), flush=True)
            looks.append(look)
    last = looks[-1]
    print(
        f"{last.seconds / 60:.1f} min, {len(looks) - 1} faults, {last.iterations} iterations, "
        f"{last.episodes} episodes, {last.lost} lost"
    )
    if faults := worn(looks):
        sys.exit("; ".join(faults))


if __name__ == "__main__":
    main()
