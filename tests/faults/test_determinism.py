"""The same run however many workers there are and in whatever order they answer, to the bit; on
other numbers of ranks to rounding (tests/runtime/test_dist.py), to the bit on the same number.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, replace

import numpy as np

from tests.support import tiny
from tests.support.easy import EasyConfig, EasyScene
from wamrl.envs.simulated import Progress, SimulatedEnv
from wamrl.online.state import TrainingState
from wamrl.train import iterate


@dataclass(frozen=True, kw_only=True)
class MoodyConfig(EasyConfig):
    """Now quick, now slow: workers answer in an order that nobody knows."""

    seconds: float = 0.0

    def build(self) -> SimulatedEnv:
        return SimulatedEnv(MoodyScene(self))


class MoodyScene(EasyScene):
    def __init__(self, config: MoodyConfig) -> None:
        self.seconds = config.seconds
        super().__init__(config)

    def step(self, action: np.ndarray) -> Progress:
        time.sleep(random.SystemRandom().uniform(0, self.seconds))
        return super().step(action)


def learned(n_workers: int, seconds: float) -> dict:
    """What an iteration makes of a model: all that a checkpoint would hold."""
    cfg = replace(
        tiny.CONFIG,
        env=MoodyConfig(seconds=seconds),
        pool=replace(tiny.CONFIG.pool, n_workers=n_workers),
    )
    state = TrainingState(cfg, tiny.lively(), tiny.demos(), 40)
    with cfg.build_pool() as pool:
        iterate(state, pool)
    return {"state": state.state_dict(), "own": state.buffer.own_state()}


def test_one_worker_or_several_quick_or_slow():
    alone = learned(1, 0.0)
    assert len(alone["own"]["places"]) > 0
    assert tiny.difference(learned(3, 0.002), alone) is None
