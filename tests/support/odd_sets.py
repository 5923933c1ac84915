"""A LeRobotDataset of the environment `Slide`."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.support.odd_gym import slide
from wamrl.data.lerobot import write
from wamrl.data.record import replay
from wamrl.types import Episode

RIGHT = np.array([5, 0], np.float32)


def pushes(path: Path, *, scale: float = 1.0, text: str = "slide it right", camera: str) -> None:
    """Six episodes of pushing to the right, 16 x 16 pixels; actions times `scale`."""
    env = slide().build()
    made = []
    for seed in range(6):
        env.reset(seed)
        steps = int(np.ceil((95 - env.proprio()[0]) / 5))
        fields = replay(env, seed, np.repeat(RIGHT[None], steps, 0))
        e = Episode(**fields)
        made.append(replace(e, actions=scale * e.actions, executed=scale * e.executed, text=text))
    write(path, made, views=(camera,), fps=10, video=False)
