"""An environment whose every value is checked as it comes, where it comes from: a message about a
NaN names the environment, the seed and the control step, and never blames the policy.
No torch here: the workers import this file.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from wamrl.envs.base import Env, EnvConfig, Expert, StepResult


def build_checked(config: EnvConfig) -> CheckedEnv:
    """The environment of `config`, checked."""
    return CheckedEnv(config.build())


class CheckedEnv(Env):
    """`env`, as whoever plays it should meet it.

    ValueError of one sentence for a NaN, a wrong shape, or a result that makes no sense;
    RuntimeError for any other exception of the environment, which keeps its traceback. An episode
    that goes on after `spec.horizon` is ended there, and standard error says so once.
    """

    def __init__(self, env: Env) -> None:
        self.env = env
        self.spec = env.spec
        self._seed = 0
        self._steps = 0
        self._told = False  # that it ignores its horizon

    @property
    def instruction(self) -> str:
        return self.env.instruction

    def reset(self, seed: int) -> None:
        self._seed = seed
        self._steps = 0
        self._stages = 0
        self._counters = (0,) * len(self.spec.counters)
        with self._named():
            self.env.reset(seed)

    def step(self, action: np.ndarray) -> StepResult:
        self._steps += 1
        with self._named():
            result = self.env.step(action)
        if not isinstance(result, StepResult):
            raise self._fault(f"step() returned {type(result).__name__}, not a StepResult")
        self._check_flags(result)
        self._check_counts(result)
        late = self._steps >= self.spec.horizon
        if late and not (result.terminated or result.truncated):
            self._tell_late()
            result = replace(result, truncated=True)
        return result

    def render(self) -> np.ndarray:
        with self._named():
            frame = self.env.render()
        return self._shaped(
            frame, (len(self.spec.views), *self.spec.image_hw, 3), np.uint8, "render()"
        )

    def proprio(self) -> np.ndarray:
        with self._named():
            state = self.env.proprio()
        state = self._shaped(state, (self.spec.proprio_dim,), np.float32, "proprio()")
        finite = np.isfinite(state)
        if not finite.all():
            places = ", ".join(map(str, np.flatnonzero(~finite)[:5]))
            raise self._fault(
                f"proprio() holds NaN or infinity in dimension {places}: the simulation has "
                "diverged; mend the environment, or bound its actions"
            )
        return state

    def expert(self) -> Expert:
        return self.env.expert()

    def describe(self) -> tuple[str, ...]:
        return self.env.describe()

    def close(self) -> None:
        self.env.close()

    def _check_flags(self, result: StepResult) -> None:
        for name in ("success", "terminated", "truncated"):
            value = getattr(result, name)
            if not (isinstance(value, bool | np.bool_ | int | np.integer) and value in (0, 1)):
                raise self._fault(f"{name} is {value!r}: it must be True or False")
        if result.terminated and result.truncated:
            raise self._fault("terminated and truncated came together: the end has one cause")

    def _check_counts(self, result: StepResult) -> None:
        if not 0 <= result.stages <= self.spec.stages:
            raise self._fault(f"stages is {result.stages}: it must lie in 0..{self.spec.stages}")
        if len(result.counters) != len(self.spec.counters):
            raise self._fault(
                f"counters of step() are {result.counters}, "
                f"spec.counters names {self.spec.counters}"
            )
        before = (self._stages, *self._counters)
        now = (result.stages, *result.counters)
        for name, old, new in zip(("stages", *self.spec.counters), before, now, strict=True):
            if new < old:
                raise self._fault(f"{name} went back from {old} to {new}")
        self._stages = result.stages
        self._counters = result.counters

    def _shaped(self, array: Any, shape: tuple[int, ...], dtype: type, what: str) -> np.ndarray:
        if not isinstance(array, np.ndarray) or array.shape != shape or array.dtype != dtype:
            kind = (
                f"{array.dtype} {array.shape}"
                if isinstance(array, np.ndarray)
                else type(array).__name__
            )
            raise self._fault(
                f"{what}: found {kind} but its spec promises {np.dtype(dtype)} {shape}: "
                "mend the environment"
            )
        return array

    def _tell_late(self) -> None:
        if not self._told:
            self._told = True
            print(
                f"wamrl: {self._where()}: the episode goes on after spec.horizon="
                f"{self.spec.horizon} control steps: it and others like it are ended there",
                file=sys.stderr,
                flush=True,
            )

    def _where(self) -> str:
        return f"{self.spec.name}, seed {self._seed}, control step {self._steps}"

    def _fault(self, sentence: str) -> ValueError:
        return ValueError(f"{self._where()}: {sentence}")

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Where the environment's own exceptions came from; none of them is without words."""
        try:
            yield
        except ValueError as error:
            raise self._fault(_words(error)) from error
        except Exception as error:
            raise RuntimeError(
                f"{self._where()}: {type(error).__name__}: {_words(error)}"
            ) from error


def _words(error: Exception) -> str:
    return str(error).strip() or "(it says nothing more)"
