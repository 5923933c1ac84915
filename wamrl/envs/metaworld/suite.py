"""Several MetaWorld tasks for one model, and the benchmark's own lists of them."""

from __future__ import annotations

from dataclasses import dataclass

from wamrl.envs.metaworld.env import MetaWorldConfig
from wamrl.envs.metaworld.tasks import TASKS
from wamrl.envs.suite import Member, SuiteConfig
from wamrl.runtime.ranges import Pixels

MT10 = (
    "reach",
    "push",
    "pick-place",
    "door-open",
    "drawer-open",
    "drawer-close",
    "button-press-topdown",
    "peg-insert-side",
    "window-open",
    "window-close",
)
MT50 = tuple(sorted(TASKS))
# tasks that are kept from training, to see what carries over
ML45_TEST = ("bin-picking", "box-close", "door-lock", "door-unlock", "hand-insert")
ML45_TRAIN = tuple(name for name in MT50 if name not in ML45_TEST)


@dataclass(frozen=True, kw_only=True)
class MetaWorldSuiteConfig(SuiteConfig):
    """Tasks of MetaWorld 3.1, one stage each, seen by the same cameras' names."""

    tasks: tuple[str, ...] = MT10
    image_size: Pixels = 64  # pixels, square
    views: tuple[str, ...] = ("front",)

    def members(self) -> tuple[Member, ...]:
        """The tasks in their order; ValueError for an unknown one."""
        found = []
        for name in self.tasks:
            env = MetaWorldConfig(task=name, image_size=self.image_size, views=self.views)
            env.validate()
            task = TASKS[name]
            member = Member(name=name, env=env, instruction=task.instruction, horizon=task.horizon)
            found.append(member)
        return tuple(found)
