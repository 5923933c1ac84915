"""Several tasks of one simulator in one environment, told apart by the picture and the instruction.

Which task an episode has is a function of its initial state: the tasks take turns from one initial
state of a split to the next, as often as their weights say. So demonstrations, training states and
evaluation states are balanced over the tasks, episodes from one initial state share their task, and
the k-th state of a task is the one that an environment of this task alone has as its k-th.

Example:
    env = MetaWorldSuiteConfig(tasks=("reach", "push")).build()
    env.reset(0)     # the first state of `reach`;  env.instruction says so
    env.reset(1)     # the first state of `push`
"""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict
from dataclasses import dataclass, replace

import numpy as np

from wamrl.envs.base import Env, EnvConfig, Expert, StepResult
from wamrl.runtime.ranges import Size, check_ranges

SPLIT_SIZE = 100_000_000  # seeds of one split, as `wamrl.types.InitialState` deals them out


@dataclass(frozen=True, kw_only=True)
class Member:
    """One task of a suite, and what is known of it before it is built."""

    name: str
    env: EnvConfig
    instruction: str
    horizon: int  # control steps


@dataclass(frozen=True, kw_only=True)
class SuiteConfig(EnvConfig):
    """Subclass per simulator, beside its environment: `members` names the tasks."""

    weights: tuple[Size, ...] = ()  # how many initial states of a round each task has; (): one
    only: str = ""  # a task: its states alone, as for `wamrl eval --env.only TASK`
    spare: Size = 16  # scenes that a worker keeps for later beside those that it plays

    @abstractmethod
    def members(self) -> tuple[Member, ...]:
        """The tasks, in the order of their turns."""

    def validate(self) -> None:
        """ValueError of one sentence where the tasks do not make a suite."""
        check_ranges(self, "env")
        members = self.members()
        names = [member.name for member in members]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"env.tasks={names} is not possible: name one task or more, each once")
        if self.weights and len(self.weights) != len(names):
            raise ValueError(
                f"env.weights={self.weights} is not possible: give one for each of {names}, or none"
            )
        if self.only and self.only not in names:
            raise ValueError(f"env.only={self.only!r} is not possible: choose one of {names}")
        for member in members:
            member.env.validate()

    def turns(self) -> tuple[int, ...]:
        """Whose turn it is, in a round of initial states: numbers of members."""
        members = self.members()
        weights = self.weights or (1,) * len(members)
        chosen = [not self.only or member.name == self.only for member in members]
        rounds = range(max(weights))
        return tuple(
            task for i in rounds for task, w in enumerate(weights) if i < w and chosen[task]
        )

    def build(self) -> SuiteEnv:
        """The environment; ValueError where the tasks' observations or actions differ."""
        self.validate()
        return SuiteEnv(self)


class SuiteEnv(Env):
    """Plays the task whose turn it is. Scenes are built when they are needed, and kept as far as
    `SuiteConfig.spare` allows; all environments of one process share what they keep.
    """

    def __init__(self, config: SuiteConfig) -> None:
        self._members = config.members()
        self._spare = config.spare
        self._task = config.turns()[0]
        self._env = _take(self._members[self._task])
        one = self._env.spec
        self._same = replace(one, name="", instruction="", horizon=0)
        self.spec = replace(
            one,
            name="suite/" + "+".join(member.name for member in self._members),
            instruction="; ".join(member.instruction for member in self._members),
            horizon=max(member.horizon for member in self._members),
            tasks=tuple(member.name for member in self._members),
            instructions=tuple(member.instruction for member in self._members),
            turns=config.turns(),
        )
        self.reset(0)

    @property
    def instruction(self) -> str:
        """What the model is told in the present episode."""
        return self._members[self._task].instruction

    def reset(self, seed: int) -> None:
        """Begin an episode of the task whose turn it is, from the state that is its next one."""
        split, index = divmod(seed, SPLIT_SIZE)
        turns = self.spec.turns
        rounds, place = divmod(index, len(turns))
        task = turns[place]
        if task != self._task:
            _put_back(self._members[self._task], self._env, self._spare)
            self._env = self._enter(task)
            self._task = task
        state = rounds * turns.count(task) + turns[:place].count(task)
        self._env.reset(split * SPLIT_SIZE + state)

    def _enter(self, task: int) -> Env:
        member = self._members[task]
        env = _take(member)
        spec = env.spec
        if replace(spec, name="", instruction="", horizon=0) != self._same:
            raise ValueError(
                f"{self.spec.name}: {member.name} has other views, sizes or sub-goals than "
                f"{self._members[self._task].name}: a suite needs one layout"
            )
        if (spec.instruction, spec.horizon) != (member.instruction, member.horizon):
            raise ValueError(
                f"{self.spec.name}: {member.name} is told {spec.instruction!r} for {spec.horizon} "
                "steps, which is not what `members` says: mend the suite"
            )
        return env

    def step(self, action: np.ndarray) -> StepResult:
        """One control step of the present task."""
        return self._env.step(action)

    def render(self) -> np.ndarray:
        """The present task's frames, uint8 (V, H, W, 3)."""
        return self._env.render()

    def proprio(self) -> np.ndarray:
        """The present task's proprioception, float32 (P,)."""
        return self._env.proprio()

    def expert(self) -> Expert:
        """The present task's scripted policy; ValueError if it has none."""
        return self._env.expert()

    def close(self) -> None:
        """Free the scene that is played."""
        self._env.close()


# Scenes that nobody plays now, the oldest first; by the config and a number of their own.
_idle: OrderedDict[tuple[EnvConfig, int], Env] = OrderedDict()


def _take(member: Member) -> Env:
    """An idle scene of this task, else a new one."""
    for key in _idle:
        if key[0] == member.env:
            return _idle.pop(key)
    return member.env.build()


def _put_back(member: Member, env: Env, most: int) -> None:
    """Keep a scene for later; the oldest ones go where there are more than `most`."""
    _idle[member.env, id(env)] = env
    while len(_idle) > most:
        _, oldest = _idle.popitem(last=False)
        oldest.close()
