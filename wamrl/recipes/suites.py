"""Several tasks for one model, told apart by the picture and the instruction."""

from __future__ import annotations

from dataclasses import replace

from wamrl.config import Config, DataConfig
from wamrl.envs.metaworld.suite import ML45_TRAIN, MT10, MT50, MetaWorldSuiteConfig
from wamrl.envs.point import PointSuiteConfig
from wamrl.evaluate import EvalConfig
from wamrl.models.action_head import ActionHeadConfig
from wamrl.models.video_dit import VideoDiTConfig
from wamrl.models.wam_config import WAMConfig
from wamrl.recipes.metaworld import EXPLORE, online
from wamrl.recipes.point import point
from wamrl.sft import SFTConfig

FOUR = ("button-press", "drawer-close", "plate-slide", "window-open")
NANO = WAMConfig(  # 3.5 M parameters
    world=VideoDiTConfig(width=128, depth=6, taps=(2, 4, 6)),
    actor=ActionHeadConfig(width=128),
)


def mt4() -> Config:
    """MetaWorld: four short tasks, one small model; two cores are enough."""
    # with four demonstrations of each and 1,500 steps the base is at 90 %; 16 iterations: too few
    return _metaworld("mt4", FOUR, demos=2, heldout=2, steps=1000, iterations=64)


def mt10() -> Config:
    """MetaWorld's MT10: ten tasks, one model; untrained so far."""
    return _metaworld("mt10", MT10, demos=10, heldout=2, steps=6000, iterations=100)


def mt50() -> Config:
    """MetaWorld's MT50: all fifty tasks, one model; untrained so far."""
    return _metaworld("mt50", MT50, demos=10, heldout=1, steps=30000, iterations=300)


def ml45() -> Config:
    """MetaWorld's ML45: 45 tasks to train on; the other five: --env.tasks, for `wamrl eval`."""
    return _metaworld("ml45", ML45_TRAIN, demos=10, heldout=1, steps=30000, iterations=300)


def two_goals() -> Config:
    """The point mass with a green and a red goal: only the instruction says which one counts."""
    cfg = point()
    return replace(
        cfg,
        name="two-goals",
        env=PointSuiteConfig(),
        data=DataConfig(episodes=200, heldout=20),
        sft=SFTConfig(steps=2000, batch=64),
        eval=EvalConfig(episodes=200),
    )


def _metaworld(
    name: str, tasks: tuple[str, ...], *, demos: int, heldout: int, steps: int, iterations: int
) -> Config:
    """demos, heldout: of each task."""
    return Config(
        name=name,
        env=MetaWorldSuiteConfig(tasks=tasks),
        model=NANO,
        flow=EXPLORE,
        data=DataConfig(episodes=demos * len(tasks), heldout=heldout * len(tasks)),
        sft=SFTConfig(steps=steps),
        train=online(iterations),
        eval=EvalConfig(episodes=50 * len(tasks), every=10, during=20 * len(tasks), choose=50),
    )
