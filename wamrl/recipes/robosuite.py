"""robosuite with a small model, seen from the front and from the hand.

docs/results.md says which of these were run, and with which settings.
"""

from __future__ import annotations

from wamrl.config import Config, DataConfig
from wamrl.envs.robosuite.env import RobosuiteConfig
from wamrl.evaluate import EvalConfig
from wamrl.models.action_head import ActionHeadConfig
from wamrl.models.flow import FlowConfig
from wamrl.models.video_dit import VideoDiTConfig
from wamrl.models.wam_config import WAMConfig
from wamrl.recipes.metaworld import online
from wamrl.sft import SFTConfig

# Two views are twice the tokens, so the model is smaller than `nano`;
# a grasp wants chunks of 0.4 s.
MODEL = WAMConfig(
    world=VideoDiTConfig(width=96, depth=4, taps=(2, 3, 4)),
    actor=ActionHeadConfig(width=96),
    chunk=8,
    frame_offsets=(4, 8),
)


def lift() -> Config:
    """robosuite: lift a cube with a Panda, the shortest task."""
    return _recipe("lift", demos=40, steps=1500)


def stack() -> Config:
    """robosuite: put one cube on the other."""
    return _recipe("stack", demos=80, steps=2000)


def pick_place_can() -> Config:
    """robosuite: carry the can from one bin into its place in the other."""
    return _recipe("pick-place-can", demos=80, steps=3000)


def nut_assembly_square() -> Config:
    """robosuite: put the square nut over its peg, the most exact of the short tasks."""
    return _recipe("nut-assembly-square", demos=80, steps=3000)


def pick_place() -> Config:
    """robosuite: sort four things into their bins, four stages in one long episode."""
    return _recipe("pick-place", demos=80, steps=4000, evaluated=50)


def nut_assembly() -> Config:
    """robosuite: both nuts over their pegs, two stages in one long episode."""
    return _recipe("nut-assembly", demos=60, steps=1200, evaluated=50)


def _recipe(
    task: str, *, demos: int, steps: int, iterations: int = 40, evaluated: int = 100
) -> Config:
    return Config(
        name=task,
        env=RobosuiteConfig(task=task, views=("front", "wrist")),
        model=MODEL,
        flow=FlowConfig(noise=0.3),
        data=DataConfig(episodes=demos, heldout=8, noise=0.2),
        sft=SFTConfig(steps=steps),
        train=online(iterations),
        eval=EvalConfig(episodes=evaluated),
    )
