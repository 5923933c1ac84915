"""The point environment with a goal so wide that a policy
which has learned nothing sometimes reaches it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wamrl.envs.point import PointConfig, PointScene
from wamrl.envs.simulated import Progress, SimulatedEnv


@dataclass(frozen=True, kw_only=True)
class EasyConfig(PointConfig):
    image_size: int = 16
    radius: float = 0.55  # half-widths of the square; goals are at least 0.6 from the start

    def build(self) -> SimulatedEnv:
        self.validate()
        return SimulatedEnv(EasyScene(self))


class EasyScene(PointScene):
    def __init__(self, config: EasyConfig) -> None:
        self.radius = config.radius
        super().__init__(config)

    def step(self, action: np.ndarray) -> Progress:
        progress = super().step(action)
        if progress.success or np.linalg.norm(self.position - self.goal) >= self.radius:
            return progress
        self._done += 1
        return progress._replace(success=self._done == self.spec.stages, stages=self._done)
