"""Demonstrations by an environment's scripted expert, in parallel processes.

Example:
    episodes = collect(DemoConfig(env=PointConfig(), episodes=40))
    save(episodes, spec, Path("runs/demos"));  episodes = load(Path("runs/demos"), spec)
Saving and loading live in `wamrl/data/store.py`; they are named here for convenience.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wamrl.data.demos_worker import record, record_here
from wamrl.data.store import load, load_spec, save
from wamrl.types import SPLITS, Episode, Split, Start

if TYPE_CHECKING:
    from wamrl.envs.base import EnvConfig

__all__ = ["DemoConfig", "collect", "load", "load_spec", "save"]

_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """`episodes` demonstrations from the starts first, first + 1, ... of a split."""

    env: EnvConfig
    episodes: int = 40
    first: int = 0  # index of the first start in its split
    split: Split = "demo"
    noise: float = 0.3  # std of the Gaussian disturbance of executed actions (in half-ranges of the action bounds)
    keep_failures: bool = True  # False: fewer than `episodes` may come back
    n_workers: int = 2  # processes; 0: in this process, for debugging

    def validate(self) -> None:
        self.env.validate()
        if self.episodes < 1 or self.first < 0 or self.n_workers < 0:
            raise ValueError("demonstrations: episodes >= 1, first >= 0 and n_workers >= 0 are needed")
        if not 0 <= self.noise <= 2:
            raise ValueError(
                f"noise={self.noise} is not possible: choose a standard deviation from 0 to 2 (0.3 is usual)"
            )
        if self.split not in SPLITS:
            raise ValueError(f"split={self.split!r} is not possible: choose one of {SPLITS}")

    @property
    def starts(self) -> list[Start]:
        return [Start(split=self.split, index=self.first + i) for i in range(self.episodes)]


def collect(cfg: DemoConfig, progress: Callable[[int], None] = lambda n: None) -> list[Episode]:
    """The episodes in the order of their starts, the same whatever `n_workers`; `progress(1)` after each.

    ValueError when the environment cannot be built, has no expert, or no episode is left.
    """
    cfg.validate()
    gather = _in_processes if cfg.n_workers else _in_place
    episodes = [Episode(**fields) for fields in gather(cfg, progress)]
    kept = [episode for episode in episodes if cfg.keep_failures or episode.success]
    if not kept:
        raise ValueError(f"the expert failed in all {cfg.episodes} episodes: lower the noise or raise the horizon")
    return kept


def _in_place(cfg: DemoConfig, progress: Callable[[int], None]) -> list[dict]:
    env, rows = cfg.env.build(), []
    try:
        for start in cfg.starts:
            rows.append(record(env, start.seed, cfg.noise))
            progress(1)
    finally:
        env.close()
    return rows


def _in_processes(cfg: DemoConfig, progress: Callable[[int], None]) -> list[dict]:
    spawn = multiprocessing.get_context("spawn")  # fork is unsafe beside torch threads and EGL
    with ProcessPoolExecutor(min(cfg.n_workers, cfg.episodes), mp_context=spawn) as pool:
        try:
            with _environ(_ONE_THREAD):  # the processes start here, one by one
                todo: list[Future] = [pool.submit(record_here, cfg.env, s.seed, cfg.noise) for s in cfg.starts]
            for future in as_completed(todo):
                future.result()
                progress(1)
        except BrokenProcessPool as error:
            raise RuntimeError(
                "a demonstration process died: look for its message above, check the free memory, and call this from a "
                'module or under `if __name__ == "__main__":`'
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    return [future.result() for future in todo]


@contextlib.contextmanager
def _environ(changes: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(changes)
    try:
        yield
    finally:
        for name in changes:
            os.environ.pop(name)
        os.environ.update({name: before[name] for name in changes if name in before})
