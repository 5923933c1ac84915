"""robosuite with the `nano` model: short tasks with one thing, and assemblies with several."""

from __future__ import annotations

from wamrl.config import Config, DataConfig, TrainConfig
from wamrl.envs.robosuite import RobosuiteConfig
from wamrl.evaluate import EvalConfig
from wamrl.rl.starts import StartsConfig
from wamrl.sft import SFTConfig


def lift() -> Config:
    """robosuite: lift a cube with a Panda, the shortest task."""
    return _recipe("lift", episodes=40, steps=2000)


def stack() -> Config:
    """robosuite: put one cube on the other."""
    return _recipe("stack", episodes=80, steps=4000)


def pick_place_can() -> Config:
    """robosuite: carry the can from one bin into its place in the other."""
    return _recipe("pick-place-can", episodes=100, steps=6000)


def nut_assembly_square() -> Config:
    """robosuite: put the square nut over its peg, the most exact of the short tasks."""
    return _recipe("nut-assembly-square", episodes=100, steps=6000)


def pick_place() -> Config:
    """robosuite: sort four things into their bins, four stages in one long episode."""
    return _recipe("pick-place", episodes=100, steps=10000, eval_episodes=50)


def nut_assembly() -> Config:
    """robosuite: both nuts over their pegs, two stages in one long episode."""
    return _recipe("nut-assembly", episodes=100, steps=8000, eval_episodes=50)


def _recipe(task: str, *, episodes: int, steps: int, eval_episodes: int = 100) -> Config:
    return Config(
        name=task,
        env=RobosuiteConfig(task=task, views=("front", "wrist")),
        data=DataConfig(episodes=episodes, heldout=12, noise=0.2),
        sft=SFTConfig(steps=steps),
        train=TrainConfig(iterations=10, groups=16, starts=StartsConfig(group=4)),
        eval=EvalConfig(episodes=eval_episodes),
    )
