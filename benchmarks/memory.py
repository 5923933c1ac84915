"""Does a long run leak?
Many cycles of rollout + reward + update of a tiny model in the point environment.

Reported: growth of resident memory (least squares over the cycles after the warm-up), open file
descriptors and child processes before and after, and what is left of a run that `kill -9` ends in
the middle: processes, shared memory.
"""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.side_by_side import finish, options, single
from wamrl.config import Config
from wamrl.data.clips import ClipDataset
from wamrl.data.demos import collect
from wamrl.data.recording import InMemory
from wamrl.envs.point import PointConfig
from wamrl.models.action_head import ActionHeadConfig
from wamrl.models.video_dit import VideoDiTConfig
from wamrl.online.state import TrainingState
from wamrl.pool.pool import PoolConfig
from wamrl.recipes.point import point
from wamrl.runs.phases import fresh_model
from wamrl.train import iterate

RUN = (
    "from benchmarks.memory import cycles; cycles(10_000, lambda i, pool: print(*pool.pids, "
    "flush=True))"
)


def tiny() -> Config:
    """The `point` recipe, smaller still;
    the buffer of clips is full after a few cycles, so that it cannot grow.
    """
    cfg = point()
    world = VideoDiTConfig(width=32, depth=2, heads=2, patch=8, taps=(1, 2))
    train = replace(
        cfg.train,
        groups=4,
        learner=replace(cfg.train.learner, epochs=1, value_warmup=0),
        world=replace(cfg.train.world, steps=2, batch=8, capacity=32),
    )
    return replace(
        cfg,
        env=PointConfig(image_size=16),
        train=train,
        pool=PoolConfig(n_envs=8, n_workers=2),
        threads=1,
        model=replace(cfg.model, world=world, actor=ActionHeadConfig(width=32, heads=2)),
        data=replace(cfg.data, episodes=4),
    )


def cycles(count: int, each) -> None:
    """`count` iterations of the method; `each(i, pool)` is called after every one of them."""
    import torch

    cfg = tiny()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    episodes = InMemory(collect(replace(cfg.demos("demo"), n_workers=0)))
    model = cfg.model
    demos = ClipDataset(
        episodes, model.history_offsets, model.frame_offsets, model.chunk, only_success=True
    )
    with cfg.build_pool() as pool:
        state = TrainingState(cfg, fresh_model(cfg), demos, pool.spec.horizon)
        for i in range(count):
            iterate(state, pool)
            each(i, pool)


def resident_mb() -> float:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def slope(values: list[float]) -> float:
    """Least squares, per step."""
    return float(np.polyfit(np.arange(len(values)), values, 1)[0])


def children(pid: int) -> int:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return len(path.read_text().split())


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def shared_memory() -> set[str]:
    return set(os.listdir("/dev/shm")) if Path("/dev/shm").is_dir() else set()


def killed() -> tuple[int, int]:
    """Start a run, kill it without warning while it works;
    workers and shared-memory segments that are still there.
    """
    before = shared_memory()
    run = subprocess.Popen([sys.executable, "-c", RUN], stdout=subprocess.PIPE, text=True)
    pids = [int(pid) for pid in run.stdout.readline().split()]
    assert pids and all(Path(f"/proc/{pid}").exists() for pid in pids), "the run has no workers"
    run.send_signal(signal.SIGKILL)
    run.wait()
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    return sum(alive(pid) for pid in pids), len(shared_memory() - before)


def alive(pid: int) -> bool:
    """Runs, and is not a zombie that only waits for somebody to look at it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def growth(count: int, warmup: int) -> list[dict]:
    """What `count` cycles leave behind in this process;
    memory and descriptors count from cycle `warmup` on.
    """
    sizes, fds, kids = [], [descriptors()], [children(os.getpid())]
    inside: list[int] = []

    def look(i: int, pool) -> None:
        sizes.append(resident_mb())
        inside.append(descriptors())

    cycles(count, look)
    gc.collect()
    fds.append(descriptors())
    kids.append(children(os.getpid()))
    note = f"{sizes[warmup]:.0f} MB after {warmup} cycles, {sizes[-1]:.0f} MB after {count}"
    return [
        single("memory growth", [slope(sizes[warmup:])], "MB per cycle", note),
        single("file descriptors gained while cycling", [inside[-1] - inside[warmup]], ""),
        single("file descriptors left", [fds[1] - fds[0]], "", f"{fds[0]} before"),
        single("processes left", [kids[1] - kids[0]], ""),
    ]


def crash() -> list[dict]:
    workers, segments = killed()
    return [
        single("processes left after kill -9", [workers], ""),
        single("shared-memory segments left after kill -9", [segments], ""),
    ]


if __name__ == "__main__":
    o = options()
    finish("memory", growth(*(20, 5) if o.quick else (300, 50)) + crash(), o)
