"""Demonstrations by an environment's scripted expert,
and replays of episodes, in parallel processes.

Example:
    episodes = collect(DemoConfig(env=PointConfig(), episodes=40))
    save(episodes, spec, Path("runs/demos"));  episodes = load(Path("runs/demos"), spec)
Saving and loading live in `wamrl/data/episodes.py`; they are named here for convenience.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Annotated

import numpy as np
from annotated_types import Ge, Le

from wamrl.data.episodes import load, load_spec, save
from wamrl.data.record import Recorder, perform
from wamrl.envs.base import Env, EnvConfig
from wamrl.envs.checked import CheckedEnv
from wamrl.runtime.processes import WorkerLost, WorkerProcess, stop
from wamrl.runtime.ranges import Count, CountOrZero, Processes, check_ranges
from wamrl.types import SPLITS, Episode, InitialState, Split

__all__ = ["DemoConfig", "collect", "demonstrate", "load", "load_spec", "replay", "save"]


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """`episodes` demonstrations from the starts first, first + 1, ... of a split."""

    env: EnvConfig
    episodes: Count = 40
    first: CountOrZero = 0  # index of the first start in its split
    split: Split = "demo"
    # std of the Gaussian disturbance of executed actions (in half-ranges of the action bounds)
    noise: Annotated[float, Ge(0), Le(2)] = 0.3
    keep_failures: bool = True  # False: fewer than `episodes` may come back
    n_workers: Processes = 2  # processes; 0: in this process, for debugging

    def validate(self) -> None:
        """Raise ValueError with one sentence that says what to do."""
        self.env.validate()
        check_ranges(self)
        if self.split not in SPLITS:
            raise ValueError(f"split={self.split!r} is not possible: choose one of {SPLITS}")

    @property
    def starts(self) -> list[InitialState]:
        """Initial states of the episodes, in the order of the recording."""
        return [InitialState(split=self.split, index=self.first + i) for i in range(self.episodes)]


def demonstrate(env: Env, seed: int, act: Callable[[Env], np.ndarray]) -> Episode:
    """One episode of a policy of your own, from `env.reset(seed)` to its end: `act(env)` gives the
    action (A,) for the environment's present state. ValueError names what the environment does
    wrong.

    Example: `demonstrate(env, InitialState(split="demo", index=0).seed, lambda env: teleop.read())`
    """
    return Episode(**perform(CheckedEnv(env), seed, act))


def collect(cfg: DemoConfig, progress: Callable[[int], None] = lambda n: None) -> list[Episode]:
    """The episodes in the order of their starts, the same whatever `n_workers`;
    `progress(1)` after each.

    ValueError when the environment cannot be built, has no expert, or no episode is left.
    """
    cfg.validate()
    episodes = _play(
        cfg.env, cfg.n_workers, [(start.seed, cfg.noise) for start in cfg.starts], progress
    )
    kept = [episode for episode in episodes if cfg.keep_failures or episode.success]
    if not kept:
        raise ValueError(
            f"the expert failed in all {cfg.episodes} episodes: lower the noise or raise the "
            "horizon"
        )
    return kept


def replay(
    env: EnvConfig,
    n_workers: int,
    played: Sequence[tuple[InitialState, np.ndarray]],
    progress: Callable[[int], None] = lambda n: None,
) -> list[Episode]:
    """Episodes that were played before, with every frame:
    from each start the executed actions, float32 (S, A).

    ValueError where the environment does not repeat itself.
    """
    episodes = _play(env, n_workers, [(start.seed, actions) for start, actions in played], progress)
    for episode, (start, actions) in zip(episodes, played, strict=True):
        if len(episode.actions) != len(actions):
            raise ValueError(
                f"the environment does not repeat itself: the episode of {start} became shorter"
            )
    return episodes


def _play(
    env: EnvConfig,
    n_workers: int,
    jobs: list[tuple[int, float | np.ndarray]],
    progress: Callable[[int], None],
) -> list[Episode]:
    gather = _in_processes if n_workers else _in_place
    return [Episode(**fields) for fields in gather(env, n_workers, jobs, progress)]


def _in_place(config: EnvConfig, _: int, jobs: list, progress: Callable[[int], None]) -> list[dict]:
    recorder = Recorder()
    recorder.build(config)
    rows = []
    try:
        for seed, policy in jobs:
            rows.append(recorder.play(seed, policy))
            progress(1)
    finally:
        recorder.close()
    return rows


def _in_processes(
    config: EnvConfig, n_workers: int, jobs: list, progress: Callable[[int], None]
) -> list[dict]:
    """Whoever has finished an episode gets the next one."""
    workers: list[WorkerProcess] = []
    busy: dict[WorkerProcess, int] = {}  # which job; every worker has one as long as there are any
    rows: list[dict] = [{} for _ in jobs]
    begun = min(n_workers, len(jobs))
    try:
        for job in range(begun):
            workers.append(WorkerProcess("wamrl.data.record"))
            workers[job].send("build", config)
            workers[job].send("play", *jobs[job])
            busy[workers[job]] = job
        for worker in workers:
            worker.receive()  # it is built
        while busy:
            for worker in wait(list(busy)):
                rows[busy.pop(worker)] = worker.receive()
                progress(1)
                if begun < len(jobs):
                    worker.send("play", *jobs[begun])
                    busy[worker] = begun
                    begun += 1
    except WorkerLost as error:
        raise RuntimeError(
            f"{error} while it recorded: look at its message above and the free memory"
        ) from error
    finally:
        stop(workers)
    return rows
