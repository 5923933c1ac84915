"""The robosuite tasks that are offered: what the model is told,
how long they last, and from where they are seen.
"""

from __future__ import annotations

from dataclasses import dataclass

from wamrl.envs.rendering import Camera, Fixed

# From the front, as robosuite's "agentview", but nearer: at 64 pixels a cube of 4 cm is then 6
# pixels wide. The hand is seen from its first position on, and the picture is wide enough for where
# things may be put.
TABLE = Camera(lookat=(-0.03, 0.0, 0.89), distance=0.58, azimuth=180.0, elevation=-32.0)
PEGS = Camera(lookat=(0.03, 0.0, 0.89), distance=0.82, azimuth=180.0, elevation=-35.0)
BINS = Camera(lookat=(0.06, 0.02, 0.93), distance=1.2, azimuth=180.0, elevation=-48.0)
WRIST = Fixed(name="robot0_eye_in_hand")


@dataclass(frozen=True, kw_only=True)
class Task:
    """One robosuite task; `horizon` in control steps is about twice what the expert needs."""

    env: str  # robosuite's name
    instruction: str
    horizon: int
    things: tuple[str, ...]  # bodies to grasp, in the order of robosuite's own list; one stage each
    front: Camera


TASKS: dict[str, Task] = {
    "lift": Task(
        env="Lift", instruction="lift the red cube", horizon=70, things=("cube",), front=TABLE
    ),
    "stack": Task(
        env="Stack",
        instruction="put the red cube on the green cube",
        horizon=120,
        things=("cubeA",),
        front=TABLE,
    ),
    "pick-place-can": Task(
        env="PickPlaceCan",
        instruction="put the can into its bin",
        horizon=230,
        things=("Can",),
        front=BINS,
    ),
    "nut-assembly-square": Task(
        env="NutAssemblySquare",
        instruction="put the square nut over the square peg",
        horizon=230,
        things=("SquareNut",),
        front=PEGS,
    ),
    "pick-place": Task(
        env="PickPlace",
        instruction="put the milk, the bread, the cereal and the can into their bins",
        horizon=1100,
        things=("Milk", "Bread", "Cereal", "Can"),
        front=BINS,
    ),
    "nut-assembly": Task(
        env="NutAssembly",
        instruction="put the square nut over the square peg and the round nut over the round peg",
        horizon=480,
        things=("SquareNut", "RoundNut"),
        front=PEGS,
    ),
}


def known_tasks() -> str:
    """The names of all tasks, for a sentence."""
    return ", ".join(sorted(TASKS))
