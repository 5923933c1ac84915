"""A whole suite of LIBERO for one model, in the published protocol: all tasks and fixed states."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wamrl.envs.libero.assets import tasks
from wamrl.envs.libero.env import HORIZONS, LiberoConfig
from wamrl.envs.suite import Member, SuiteConfig, SuiteEnv
from wamrl.runtime.ranges import CountOrZero, Pixels, Size


@dataclass(frozen=True, kw_only=True)
class LiberoSuiteConfig(SuiteConfig):
    """Tasks of one suite, called by their official numbers. With `eval.episodes` 50 times as many
    as there are tasks, each is evaluated from all its 50 fixed states.
    """

    suite: str = "object"  # "spatial", "object", "goal", "10" (long) or "90"
    tasks: tuple[CountOrZero, ...] = tuple(range(10))
    image_size: Pixels = 256  # pixels, square
    views: tuple[str, ...] = ("front", "wrist")
    # folder with scenes/, textures/, ...; None: the package's own or the hub's
    assets: Path | None = None
    spare: Size = 2  # a scene is large: up to 2 GB

    def validate(self) -> None:
        """ValueError for an unknown suite or task, an impossible view, size or folder: what can be
        told where LIBERO is not installed.
        """
        for number in self.tasks:
            self._task(number).validate()

    def build(self) -> SuiteEnv:
        """The environment; ValueError where LIBERO is missing or the tasks make no suite."""
        self.validate()
        super().validate()
        return SuiteEnv(self)

    def members(self) -> tuple[Member, ...]:
        """The tasks in their order; ValueError where LIBERO is not installed."""
        official = tasks(self.suite)
        return tuple(
            Member(
                name=str(number),
                env=self._task(number),
                instruction=official[number].instruction,
                horizon=HORIZONS[self.suite],
            )
            for number in self.tasks
        )

    def _task(self, number: int) -> LiberoConfig:
        return LiberoConfig(
            suite=self.suite,
            task=number,
            image_size=self.image_size,
            views=self.views,
            assets=self.assets,
        )
