"""From a simulation that says what happened to an environment that keeps the contract.

A `Scene` knows its task: it puts initial states, moves, draws, and says how far the task has come.
`SimulatedEnv` adds what every environment must do alike: it clips actions, counts control steps,
ends the episode at success or at the horizon, refuses steps after the end, and counts attempts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import replace
from math import isnan
from typing import NamedTuple

import numpy as np

from wamrl.envs.attempts import COUNTERS, AttemptCounter
from wamrl.envs.base import Env, EnvSpec, Expert, StepResult, no_expert


class Progress(NamedTuple):
    """What happened in one control step, as the simulation sees it."""

    success: bool  # the simulator's own
    stages: int  # sub-goals that are completed now, or so far in the episode
    engaged: bool = False  # the robot is at its sub-goal, see `wamrl.envs.attempts`
    failed: bool = False  # the simulation itself ended the episode, lost for good
    cut: bool = False  # the simulation's own clock ran out


class Scene(ABC):
    """One simulated scene with its task.
    After `reset(seed)` everything is a function of the seed and the actions.
    """

    spec: EnvSpec
    # For counting attempts: does what the robot is at stay with it when a sub-goal is solved?
    # None: this scene never says `engaged`, so they are not counted.
    carries: bool | None = None

    @abstractmethod
    def reset(self, seed: int) -> None:
        """Put the initial state that belongs to `seed`, whatever happened before."""

    @abstractmethod
    def step(self, action: np.ndarray) -> Progress:
        """Execute one control step, float32 (A,) within the bounds."""

    @abstractmethod
    def render(self) -> np.ndarray:
        """The present frame of every view, uint8 (V, H, W, 3), upright; changes nothing."""

    @abstractmethod
    def proprio(self) -> np.ndarray:
        """The robot's own state, float32 (P,); changes nothing."""

    def expert(self) -> Expert:
        """A scripted policy bound to this scene; ValueError if there is none."""
        raise no_expert(self.spec)

    def describe(self) -> tuple[str, ...]:
        """See `Env.describe`."""
        return ()

    def close(self) -> None:
        """Free what the scene holds."""


class SimulatedEnv(Env):
    """The environment that plays `scene`, reset to seed 0.

    Example: `env = SimulatedEnv(PointScene(PointConfig())); env.reset(0); frame = env.render()`
    """

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.spec = scene.spec
        if scene.carries is not None:
            self.spec = replace(scene.spec, counters=COUNTERS)
        self._low, self._high = self.spec.bounds
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Begin an episode: the scene's initial state for `seed`, clock and counts at zero."""
        self.scene.reset(seed)
        self._steps = 0
        self._stages = 0
        self._over = False
        carries = self.scene.carries
        self._attempts = None if carries is None else AttemptCounter(carries=carries)

    def step(self, action: np.ndarray) -> StepResult:
        """One control step of the scene with the action (A,) clipped to the bounds.
        AssertionError after the episode's end, and for a NaN or a wrong shape.
        """
        assert not self._over, "the episode is over: call reset first"
        action = np.asarray(action, np.float32)
        assert action.shape == self._low.shape, f"bad action {action}"
        # np.clip takes four times as long
        action = np.minimum(np.maximum(action, self._low), self._high)
        assert not isnan(action.dot(action)), f"bad action {action}"
        progress = self.scene.step(action)
        self._steps += 1
        stages = max(self._stages, progress.stages)
        counters = ()
        if self._attempts is not None:
            self._attempts.update(progress.engaged, solved=stages > self._stages)
            counters = self._attempts.counters
        self._stages = stages
        terminated = progress.success or progress.failed
        truncated = not terminated and (progress.cut or self._steps >= self.spec.horizon)
        self._over = terminated or truncated
        return StepResult(
            success=progress.success,
            terminated=terminated,
            truncated=truncated,
            stages=stages,
            counters=counters,
        )

    def render(self) -> np.ndarray:
        """The scene's frames, uint8 (V, H, W, 3)."""
        return self.scene.render()

    def proprio(self) -> np.ndarray:
        """The scene's proprioception, float32 (P,)."""
        return self.scene.proprio()

    def expert(self) -> Expert:
        """The scene's scripted policy; ValueError if it has none."""
        return self.scene.expert()

    def describe(self) -> tuple[str, ...]:
        """What the scene says of itself."""
        return self.scene.describe()

    def close(self) -> None:
        """Free what the scene holds."""
        self.scene.close()


def require_image_size(pixels: int, least: int, most: int) -> None:
    """ValueError if a picture may not have so many pixels a side."""
    if not least <= pixels <= most:
        raise ValueError(f"image_size={pixels} is not possible: choose {least} to {most} pixels")


def require_views(views: tuple[str, ...], known: Collection[str]) -> None:
    """ValueError if there is no camera for a view, or a view is named twice."""
    if not views or len(set(views)) < len(views) or not set(views) <= set(known):
        raise ValueError(
            f"views={views} is not possible: choose one or more of {tuple(known)}, each once"
        )
