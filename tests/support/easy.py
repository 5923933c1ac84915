"""The point environment with a goal so wide that a policy
which has learned nothing sometimes reaches it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from wamrl.envs.base import StepResult
from wamrl.envs.point import PointConfig, PointEnv


@dataclass(frozen=True, kw_only=True)
class EasyConfig(PointConfig):
    image_size: int = 16
    radius: float = 0.55  # half-widths of the square; goals are at least 0.6 from the start

    def build(self) -> EasyEnv:
        self.validate()
        return EasyEnv(self)


class EasyEnv(PointEnv):
    def __init__(self, config: EasyConfig) -> None:
        self.radius = config.radius
        super().__init__(config)

    def step(self, action: np.ndarray) -> StepResult:
        result = super().step(action)
        if result.success or np.linalg.norm(self.position - self.goal) >= self.radius:
            return result
        self._done += 1
        success = self._done == self.spec.stages
        truncated = result.truncated and not success
        self._over = success or truncated
        return replace(
            result, success=success, terminated=success, truncated=truncated, stages=self._done
        )
