"""The MetaWorld tasks that are offered: what the model is told, how long they last, and from where they are seen."""

from __future__ import annotations

from dataclasses import dataclass

from wamrl.envs.fast_render import Camera

FRONT = Camera(lookat=(0.0, 0.68, 0.1), distance=0.85, azimuth=135.0, elevation=-35.0)
WRIST = Camera(body="hand", lookat=(0.0, 0.05, -0.12), distance=0.3, azimuth=90.0, elevation=-50.0)


@dataclass(frozen=True, kw_only=True)
class Task:
    """One MetaWorld task; `horizon` in control steps is about twice what the expert needs."""

    instruction: str
    horizon: int
    marker: bool = False  # the goal is a place and not a thing: draw a ball there
    holds: bool = False  # an object is grasped, so it can be dropped
    stageable: bool = False  # goals can follow one another in one scene
    front: Camera = FRONT


TASKS: dict[str, Task] = {
    "reach": Task(instruction="move the gripper to the green ball", horizon=80, marker=True, stageable=True),
    "push": Task(instruction="push the puck to the green ball", horizon=120, marker=True, stageable=True),
    "pick-place": Task(
        instruction="pick up the puck and hold it at the green ball",
        horizon=120,
        marker=True,
        holds=True,
        stageable=True,
    ),
    "button-press": Task(instruction="press the button", horizon=120),
    "button-press-topdown": Task(instruction="press the button from above", horizon=120),
    "drawer-close": Task(instruction="close the drawer", horizon=120),
    "drawer-open": Task(instruction="open the drawer", horizon=120),
    "door-open": Task(instruction="open the door", horizon=160),
    "door-close": Task(instruction="close the door", horizon=160),
    "window-open": Task(instruction="slide the window open", horizon=120),
    "window-close": Task(instruction="slide the window shut", horizon=120),
    "faucet-open": Task(instruction="turn the faucet on", horizon=120),
    "faucet-close": Task(instruction="turn the faucet off", horizon=120),
    "handle-press": Task(instruction="press the handle down", horizon=120),
    "plate-slide": Task(instruction="slide the plate into the goal", horizon=120),
    "coffee-button": Task(instruction="press the button of the coffee machine", horizon=120),
    "assembly": Task(instruction="put the ring over the peg", horizon=200, holds=True),
    "shelf-place": Task(instruction="put the cube on the shelf", horizon=200, holds=True),
    "peg-insert-side": Task(instruction="push the peg into the hole", horizon=200, holds=True),
    "bin-picking": Task(instruction="carry the cube to the other bin", horizon=250, holds=True),
    "stick-pull": Task(
        instruction="pull the jug with the stick to the green ball", horizon=250, marker=True, holds=True
    ),
    "pick-place-wall": Task(
        instruction="carry the puck over the wall to the green ball", horizon=200, marker=True, holds=True
    ),
    "hammer": Task(instruction="drive the nail in with the hammer", horizon=200, holds=True),
    "basketball": Task(instruction="put the ball into the basket", horizon=200, holds=True),
}


def known_tasks() -> str:
    return ", ".join(sorted(TASKS))
