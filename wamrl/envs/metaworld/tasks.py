"""The MetaWorld tasks that are offered: what the model is told,
how long they last, and from where they are seen.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from wamrl.envs.rendering import Camera

# Front views look along (cos azimuth, sin azimuth); the arm reaches in from y = 0. From behind
# (135) one sees the side of a thing that faces the robot; from ahead (225) the arm cannot hide what
# the hand holds.
BEHIND = Camera(lookat=(-0.03, 0.64, 0.12), distance=0.85, azimuth=135.0, elevation=-32.0)
AHEAD = Camera(lookat=(0.0, 0.7, 0.14), distance=0.78, azimuth=225.0, elevation=-32.0)
WRIST = Camera(body="hand", lookat=(0.0, 0.0, -0.1), distance=0.32, azimuth=160.0, elevation=-35.0)


@dataclass(frozen=True, kw_only=True)
class Task:
    """One MetaWorld task; `horizon` in control steps is about 1.8 times what the expert needs."""

    instruction: str
    horizon: int
    marker: bool = False  # the goal is a place and not a thing: draw a ball there
    holds: bool = False  # an object is grasped, so it can be dropped
    touch: str = ""  # the body that is worked on without a grasp: a button's box, a door
    # sub-goals can follow one another in one scene: what is touched moves, else the goal
    stageable: bool = False

    front: Camera = BEHIND


TASKS: dict[str, Task] = {
    "reach": Task(
        instruction="move the gripper to the green ball",
        horizon=60,
        marker=True,
        stageable=True,
        front=AHEAD,
    ),
    "push": Task(
        instruction="push the puck to the green ball",
        horizon=120,
        marker=True,
        stageable=True,
        front=AHEAD,
    ),
    "pick-place": Task(
        instruction="pick up the puck and hold it at the green ball",
        horizon=120,
        marker=True,
        holds=True,
        stageable=True,
        front=AHEAD,
    ),
    "button-press": Task(instruction="press the button", horizon=110, touch="box", stageable=True),
    "button-press-topdown": Task(
        instruction="press the button from above",
        horizon=125,
        touch="box",
        front=replace(BEHIND, lookat=(0.0, 0.66, 0.18), distance=0.95),
    ),
    "drawer-close": Task(instruction="close the drawer", horizon=130, touch="drawer"),
    "drawer-open": Task(instruction="open the drawer", horizon=150, touch="drawer"),
    "door-open": Task(
        instruction="open the door",
        horizon=160,
        touch="door",
        front=replace(BEHIND, lookat=(0.03, 0.72, 0.13), distance=1.05),
    ),
    "door-close": Task(
        instruction="close the door",
        horizon=130,
        touch="door",
        front=replace(BEHIND, lookat=(0.03, 0.72, 0.13), distance=1.05),
    ),
    "window-open": Task(
        instruction="slide the window open",
        horizon=160,
        touch="window",
        front=replace(BEHIND, lookat=(0.02, 0.68, 0.13), distance=0.95),
    ),
    "window-close": Task(
        instruction="slide the window shut",
        horizon=150,
        touch="window",
        front=replace(BEHIND, lookat=(0.02, 0.68, 0.13), distance=0.95),
    ),
    "faucet-open": Task(
        instruction="turn the faucet on",
        horizon=110,
        touch="faucetBase",
        front=replace(BEHIND, lookat=(-0.02, 0.65, 0.1), distance=0.8),
    ),
    "faucet-close": Task(
        instruction="turn the faucet off",
        horizon=120,
        touch="faucetBase",
        front=replace(BEHIND, lookat=(-0.02, 0.65, 0.1), distance=0.8),
    ),
    "handle-press": Task(instruction="press the handle down", horizon=70, touch="box"),
    "plate-slide": Task(
        instruction="slide the plate into the goal",
        horizon=100,
        touch="puck_channel",
        front=replace(BEHIND, lookat=(0.0, 0.7, 0.06), distance=0.8),
    ),
    "coffee-button": Task(
        instruction="press the button of the coffee machine", horizon=80, touch="coffee_machine"
    ),
    "assembly": Task(
        instruction="put the ring over the peg",
        horizon=180,
        holds=True,
        front=replace(AHEAD, distance=0.7),
    ),
    "shelf-place": Task(
        instruction="put the cube on the shelf",
        horizon=200,
        holds=True,
        front=replace(BEHIND, lookat=(0.02, 0.68, 0.2), distance=1.0),
    ),
    "peg-insert-side": Task(
        instruction="push the peg into the hole",
        horizon=200,
        holds=True,
        front=replace(AHEAD, lookat=(-0.1, 0.6, 0.12), azimuth=250.0, distance=0.95),
    ),
    "bin-picking": Task(
        instruction="carry the cube to the other bin",
        horizon=200,
        holds=True,
        front=replace(AHEAD, lookat=(0.0, 0.69, 0.1), distance=0.75),
    ),
    "stick-pull": Task(
        instruction="pull the jug with the stick to the green ball",
        horizon=200,
        marker=True,
        holds=True,
        front=replace(AHEAD, lookat=(0.18, 0.56, 0.08), distance=0.95, elevation=-55.0),
    ),
    "pick-place-wall": Task(
        instruction="carry the puck over the wall to the green ball",
        horizon=170,
        marker=True,
        holds=True,
        front=replace(AHEAD, lookat=(0.0, 0.73, 0.15), distance=0.85, azimuth=165.0),
    ),
    "hammer": Task(
        instruction="drive the nail in with the hammer",
        horizon=150,
        holds=True,
        front=replace(BEHIND, lookat=(0.08, 0.55, 0.1), distance=0.95),
    ),
    "basketball": Task(
        instruction="put the ball into the basket",
        horizon=165,
        holds=True,
        front=replace(AHEAD, lookat=(0.0, 0.72, 0.15), distance=0.9, azimuth=160.0),
    ),
    "box-close": Task(
        instruction="put the lid on the box",
        horizon=215,
        touch="top_link",
        front=replace(AHEAD, lookat=(0.02, 0.66, 0.1), distance=0.85),
    ),
    "button-press-topdown-wall": Task(
        instruction="press the button behind the wall from above", horizon=125, touch="box"
    ),
    "button-press-wall": Task(
        instruction="reach over the wall and press the button", horizon=160, touch="box"
    ),
    "coffee-pull": Task(
        instruction="pull the mug from the coffee machine to the green ball",
        horizon=150,
        marker=True,
        touch="obj",
    ),
    "coffee-push": Task(
        instruction="push the mug under the coffee machine, to the green ball",
        horizon=180,
        marker=True,
        touch="obj",
    ),
    "dial-turn": Task(instruction="turn the dial by half", horizon=160, touch="dial"),
    "disassemble": Task(
        instruction="lift the ring off the peg",
        horizon=165,
        holds=True,
        front=replace(AHEAD, lookat=(0.1, 0.68, 0.1), distance=0.8),
    ),
    "door-lock": Task(
        instruction="lock the door",
        horizon=210,
        touch="door_link",
        front=replace(BEHIND, lookat=(0.0, 0.7, 0.15), distance=1.0),
    ),
    "door-unlock": Task(
        instruction="unlock the door",
        horizon=100,
        touch="door_link",
        front=replace(BEHIND, lookat=(0.0, 0.7, 0.15), distance=1.0),
    ),
    "hand-insert": Task(
        instruction="put the cube into the hole",
        horizon=175,
        holds=True,
        front=replace(AHEAD, lookat=(0.0, 0.72, 0.06), elevation=-48.0),
    ),
    "handle-press-side": Task(
        instruction="press the handle at the side down",
        horizon=90,
        touch="box",
        front=replace(AHEAD, lookat=(-0.12, 0.68, 0.1), distance=0.85),
    ),
    "handle-pull": Task(instruction="pull the handle up", horizon=200, touch="box"),
    "handle-pull-side": Task(
        instruction="pull the handle at the side up",
        horizon=220,
        touch="box",
        front=replace(AHEAD, lookat=(-0.12, 0.68, 0.1), distance=0.85),
    ),
    "lever-pull": Task(
        instruction="pull the lever up",
        horizon=140,
        touch="lever",
        front=replace(BEHIND, lookat=(0.0, 0.68, 0.22), distance=1.0),
    ),
    "peg-unplug-side": Task(
        instruction="unplug the peg",
        horizon=280,
        touch="plug1",
        front=replace(AHEAD, lookat=(-0.1, 0.66, 0.12), distance=0.85),
    ),
    "pick-out-of-hole": Task(
        instruction="lift the puck out of the hole, to the green ball",
        horizon=310,
        marker=True,
        touch="obj",
        front=replace(AHEAD, lookat=(0.0, 0.66, 0.16), distance=0.9),
    ),
    "plate-slide-back": Task(
        instruction="slide the plate back to the robot", horizon=145, touch="puck_channel"
    ),
    "plate-slide-back-side": Task(
        instruction="slide the plate out of the goal, to the side",
        horizon=115,
        touch="puck_channel",
    ),
    "plate-slide-side": Task(
        instruction="slide the plate sideways into the goal",
        horizon=95,
        touch="puck_channel",
        front=replace(BEHIND, lookat=(-0.12, 0.62, 0.06), distance=0.95, elevation=-40.0),
    ),
    "push-back": Task(
        instruction="pull the puck back to the green ball",
        horizon=225,
        marker=True,
        holds=True,
        front=AHEAD,
    ),
    "push-wall": Task(
        instruction="push the puck around the wall to the green ball",
        horizon=160,
        marker=True,
        touch="obj",
        front=replace(AHEAD, lookat=(0.0, 0.73, 0.1), distance=0.8, azimuth=165.0),
    ),
    "reach-wall": Task(
        instruction="move the gripper over the wall to the green ball",
        horizon=100,
        marker=True,
        front=replace(AHEAD, lookat=(0.0, 0.73, 0.15), distance=0.85, azimuth=165.0),
    ),
    "soccer": Task(
        instruction="kick the ball into the goal",
        horizon=140,
        touch="soccer_ball",
        front=replace(AHEAD, lookat=(0.0, 0.7, 0.08), distance=0.85, azimuth=170.0),
    ),
    "stick-push": Task(
        instruction="push the jug with the stick to the green ball",
        horizon=170,
        marker=True,
        holds=True,
        front=replace(AHEAD, lookat=(0.15, 0.6, 0.1), distance=1.05, elevation=-45.0),
    ),
    "sweep": Task(
        instruction="sweep the cube off the table, to the green ball",
        horizon=205,
        marker=True,
        touch="obj",
        front=replace(AHEAD, lookat=(0.25, 0.64, 0.06), distance=1.05, elevation=-40.0),
    ),
    "sweep-into": Task(
        instruction="sweep the cube into the hole",
        horizon=105,
        touch="obj",
        front=replace(AHEAD, lookat=(0.0, 0.72, 0.06), elevation=-48.0),
    ),
}


def known_tasks() -> str:
    """The names of all tasks, for a sentence."""
    return ", ".join(sorted(TASKS))
