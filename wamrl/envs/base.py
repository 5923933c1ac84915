"""What an environment is. Rendering is apart from stepping:
only frames that somebody looks at are drawn.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np


@dataclass(frozen=True, kw_only=True)
class EnvSpec:
    """Static facts of an environment."""

    name: str  # e.g. "metaworld/button-press"
    instruction: str  # what the model is told
    views: tuple[str, ...]  # cameras, in the order of the V axis
    image_hw: tuple[int, int]
    action_dim: int  # actions are float32 within `bounds`; `step` clips
    proprio_dim: int
    horizon: int  # control steps after which the episode is truncated
    stages: int = 1  # sub-goals; success means all, in order
    counters: tuple[str, ...] = ()  # names of what is counted in an episode
    action_low: tuple[float, ...] = ()  # per action dim, in the environment's own units; empty: -1
    action_high: tuple[float, ...] = ()  # empty: +1
    control_hz: float | None = None  # control steps per second of its world; None: not known

    # Of a suite (wamrl/envs/suite.py), else empty: the names of its tasks, what each is told, and
    # whose turn it is from one initial state of a split to the next.
    tasks: tuple[str, ...] = ()
    instructions: tuple[str, ...] = ()
    turns: tuple[int, ...] = ()

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest action, float32 (A,) each."""
        low = self.action_low or (-1.0,) * self.action_dim
        high = self.action_high or (1.0,) * self.action_dim
        return np.array(low, np.float32), np.array(high, np.float32)

    def told(self, index: int) -> str:
        """The instruction of the episodes from the initial state `index` of any split."""
        if not self.turns:
            return self.instruction
        return self.instructions[self.turns[index % len(self.turns)]]

    def clip(self, action: np.ndarray) -> np.ndarray:
        """The action (A,) within the bounds, float32."""
        return np.clip(action, *self.bounds).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What one control step led to."""

    success: bool  # the simulator's own success, in this step
    terminated: bool  # the task ended
    truncated: bool  # the clock ran out (never True together with terminated)
    stages: int  # sub-goals completed so far
    # one count per name in `spec.counters`, so far in the episode: they start at 0, never go back
    counters: tuple[int, ...] = ()


class Expert(ABC):
    """A scripted policy bound to one environment;
    it may read privileged state and recovers from disturbances.
    """

    @abstractmethod
    def action(self) -> np.ndarray:
        """The action for the environment's present state, float32 (A,) within the bounds."""


def no_expert(spec: EnvSpec) -> ValueError:
    """What is raised where somebody asks for an expert and there is none."""
    return ValueError(f"{spec.name} has no scripted expert: bring demonstrations of your own")


class Env(ABC):
    """One simulated episode at a time.
    After `reset(seed)` everything is a function of the seed and the actions.
    """

    spec: EnvSpec

    @property
    def instruction(self) -> str:
        """What the model is told in the present episode."""
        return self.spec.instruction

    @abstractmethod
    def reset(self, seed: int) -> None:
        """Put the initial state that belongs to `seed`;
        exactly reproducible, whatever happened before.
        """

    @abstractmethod
    def step(self, action: np.ndarray) -> StepResult:
        """Execute one control step; float32 (A,), clipped to the bounds.
        Must not be called after the episode's end.
        """

    @abstractmethod
    def render(self) -> np.ndarray:
        """The present frame of every view, uint8 (V, H, W, 3), upright."""

    @abstractmethod
    def proprio(self) -> np.ndarray:
        """The robot's own state, float32 (P,).
        No privileged object state, save a goal that no camera can see.
        """

    def expert(self) -> Expert:
        """A scripted policy bound to this environment; ValueError if there is none."""
        raise no_expert(self.spec)

    def describe(self) -> tuple[str, ...]:
        """What `wamrl check` shows beside the spec, a line each: what counts as success, and what
        had to be invented.
        """
        return ()

    def close(self) -> None:
        """Free what the environment holds."""


@dataclass(frozen=True, kw_only=True)
class EnvConfig(ABC):
    """Subclass per environment family,
    frozen and picklable (it travels to the worker processes).
    """

    # False where there is only a spec, as of a dataset, and no episode can be played
    playable: ClassVar[bool] = True

    @property
    def imports(self) -> tuple[str, ...]:
        """The modules that `build` imports because a field names them."""
        return ()

    @abstractmethod
    def validate(self) -> None:
        """Raise ValueError with one sentence that says what to do."""

    @abstractmethod
    def build(self) -> Env:
        """The environment; ValueError of one sentence if it cannot be made here."""
