"""MetaWorld's success flags without its dense rewards: what `evaluate_state` reports.

An entry of `SUCCESS` is bound to MetaWorld's environment object once, when the scene is built.
It then is a function without arguments, which reads the present state through views of the memory.

    near   |p - goal| <= radius, where p is the place of a body, a site or a geom
    level  the same along one axis

The flags are MetaWorld's bit for bit, so the arithmetic keeps its order:
sqrt(v.dot(v)) is what np.linalg.norm computes, and offsets are added one after the other.
The goal is read anew each time: stages replace it, and some scenes keep it as a view.
No flag depends on an inner value of a reward: grasps, caging and `in_place` count for nothing.

Held against MetaWorld by tests/envs/metaworld/test_step.py
and `python -m benchmarks.metaworld_step --check`.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Any

import numpy as np

Flag = Callable[[], bool]
Bind = Callable[[Any], Flag]  # MetaWorld's environment object -> the flag of its present state
Vector = tuple[float, float, float]

AXES = {"x": 0, "y": 1, "z": 2}


def _place(env: Any, kind: str, name: str) -> np.ndarray:
    """A view of where a body, site or geom is, float64 (3,), metres; it follows the simulation."""
    return getattr(env.data, kind)(name).xpos


def near(kind: str, name: str, radius: float, *offsets: Vector) -> Bind:
    """|p + offsets - goal| <= radius, metres."""
    added = [np.array(offset) for offset in offsets]

    def bind(env: Any) -> Flag:
        place = _place(env, kind, name)

        def flag() -> bool:
            point = place
            for offset in added:
                point = point + offset
            error = point - env._target_pos
            return sqrt(error.dot(error)) <= radius

        return flag

    return bind


def level(axis: str, kind: str, name: str, radius: float, offset: float = 0.0) -> Bind:
    """|p + offset - goal| <= radius along one axis, metres."""
    i = AXES[axis]

    def bind(env: Any) -> Flag:
        place = _place(env, kind, name)
        return lambda: abs(place.item(i) + offset - env._target_pos.item(i)) <= radius

    return bind


def _reach(env: Any) -> Flag:
    """The point between the fingertips is at the goal."""
    right, left = (_place(env, "site", name) for name in ("rightEndEffector", "leftEndEffector"))

    def flag() -> bool:
        error = (right + left) / 2.0 - env._target_pos
        return sqrt(error.dot(error)) <= 0.05

    return flag


def _assembly(env: Any) -> Flag:
    """The ring is around the peg: beside its axis by less than 2 cm, and below its top."""
    ring = _place(env, "site", "RoundNut")

    def flag() -> bool:
        error = env._target_pos - ring
        aside = error[:2]
        return sqrt(aside.dot(aside)) < 0.02 and error.item(2) > 0.0

    return flag


def _peg_insert_side(env: Any) -> Flag:
    """The peg's head is in the hole; errors across the hole count twice."""
    head = _place(env, "site", "pegHead")
    scale = np.array([1.0, 2.0, 2.0])

    def flag() -> bool:
        error = (head - env._target_pos) * scale
        return sqrt(error.dot(error)) <= 0.07

    return flag


def _stick_pull(env: Any) -> Flag:
    """The jug's handle is at the goal, and the stick is still through it."""
    handle = _place(env, "site", "insertion")
    end = _place(env, "site", "stick_end")

    def flag() -> bool:
        error = handle - env._target_pos
        x, y, z = (end - handle).tolist()
        return sqrt(error.dot(error)) <= 0.12 and x >= 0.0 and abs(y) <= 0.04 and abs(z) <= 0.06

    return flag


def _hammer(env: Any) -> Flag:
    """The nail is in by more than 9 cm."""
    nail = env.data.joint("NailSlideJoint").qpos
    return lambda: nail.item() > 0.09


def _basketball(env: Any) -> Flag:
    """The ball is in the basket, at 0.3 m whatever the goal says; errors in height count twice."""
    ball = _place(env, "body", "bsktball")
    scale = np.array([1.0, 1.0, 2.0])

    def flag() -> bool:
        target = env._target_pos.copy()
        target[2] = 0.3
        error = (ball - target) * scale
        return sqrt(error.dot(error)) <= 0.08

    return flag


def _dial_turn(env: Any) -> Flag:
    """The mark on the dial's rim, 5 cm from its axis, is at the goal."""
    centre = _place(env, "body", "dial")
    angle = env.data.joint("knob_Joint_1").qpos

    def flag() -> bool:
        turn = angle.item()
        rim = np.array([np.sin(turn), -np.cos(turn), 0.0])
        error = centre + rim * 0.05 - env._target_pos
        return sqrt(error.dot(error)) <= 0.07

    return flag


def _disassemble(env: Any) -> Flag:
    """The ring's handle is above the goal, the height of the peg's top."""
    handle = _place(env, "site", "RoundNut-8")
    return lambda: handle.item(2) > env._target_pos.item(2)


def _box_close(env: Any) -> Flag:
    """The lid is on the box; here alone MetaWorld asks for less, not for at most."""
    lid = _place(env, "body", "top_link")

    def flag() -> bool:
        error = lid - env._target_pos
        return sqrt(error.dot(error)) < 0.08

    return flag


def _lever_pull(env: Any) -> Flag:
    """The lever stands upright, to 7.5 degrees."""
    angle = env.data.joint("LeverAxis").qpos
    return lambda: abs(-angle.item() - np.pi / 2.0) <= np.pi / 24


def _sweep_into(env: Any) -> Flag:
    """The cube is over the hole, at whatever height."""
    cube = _place(env, "body", "obj")

    def flag() -> bool:
        aside = cube[:2] - env._target_pos[:2]
        return sqrt(aside.dot(aside)) <= 0.05

    return flag


def _stick_push(env: Any) -> Flag:
    """The jug's handle is at the goal, and the stick is held above where it lay."""
    handle = _place(env, "site", "insertion")
    stick = _place(env, "body", "stick")
    claws = [_place(env, "body", name) for name in ("rightclaw", "leftclaw")]
    offset = np.array([0.0, 0.09, 0.0])

    def flag() -> bool:
        error = handle + offset - env._target_pos
        if sqrt(error.dot(error)) > 0.12 or not stick.item(2) - 0.01 > env.stick_init_pos.item(2):
            return False
        return bool((claws[0] - claws[1]).any() and env.touching_main_object)

    return flag


SUCCESS: dict[str, Bind] = {
    "reach": _reach,
    "push": near("body", "obj", 0.05),
    "pick-place": near("body", "obj", 0.07),
    "button-press": level("y", "body", "button", 0.02, offset=-0.193),
    "button-press-topdown": level("z", "body", "button", 0.024, offset=0.193),
    "drawer-close": near("body", "drawer_link", 0.05 + 0.015, (0.0, -0.16, 0.05)),
    "drawer-open": near("body", "drawer_link", 0.03, (0.0, -0.16, 0.0)),
    "door-open": level("x", "geom", "handle", 0.08),
    "door-close": near("geom", "handle", 0.08),
    "window-open": level("x", "site", "handleOpenStart", 0.05),
    "window-close": level("x", "site", "handleCloseStart", 0.05),
    "faucet-open": near("site", "handleStartOpen", 0.07, (0.0, 0.0, -0.01), (-0.04, 0.0, 0.03)),
    "faucet-close": near("site", "handleStartClose", 0.07, (0.0, 0.0, -0.01)),
    "handle-press": level("z", "site", "handleStart", 0.02),
    "plate-slide": near("geom", "puck", 0.07),
    "coffee-button": level("y", "site", "buttonStart", 0.02),
    "assembly": _assembly,
    "shelf-place": near("body", "obj", 0.07),
    "peg-insert-side": _peg_insert_side,
    "bin-picking": near("body", "obj", 0.05),
    "stick-pull": _stick_pull,
    "pick-place-wall": near("geom", "objGeom", 0.07),
    "hammer": _hammer,
    "basketball": _basketball,
    "box-close": _box_close,
    "button-press-topdown-wall": level("z", "body", "button", 0.024, offset=0.193),
    "button-press-wall": level("y", "body", "button", 0.03, offset=-0.193),
    "coffee-pull": near("body", "obj", 0.07),
    "coffee-push": near("body", "obj", 0.07),
    "dial-turn": _dial_turn,
    "disassemble": _disassemble,
    "door-lock": level("z", "site", "lockStartLock", 0.02),
    "door-unlock": level("x", "site", "lockStartUnlock", 0.02),
    "hand-insert": near("body", "obj", 0.05),
    "handle-press-side": level("z", "site", "handleStart", 0.02),
    "handle-pull": level("z", "site", "handleRight", 0.05),
    "handle-pull-side": near("site", "handleCenter", 0.08),
    "lever-pull": _lever_pull,
    "peg-unplug-side": near("site", "pegEnd", 0.07),
    "pick-out-of-hole": near("body", "obj", 0.07),
    "plate-slide-back": near("geom", "puck", 0.07),
    "plate-slide-back-side": near("geom", "puck", 0.07),
    "plate-slide-side": near("geom", "puck", 0.07),
    "push-back": near("geom", "objGeom", 0.07),
    "push-wall": near("geom", "objGeom", 0.07),
    "reach-wall": _reach,
    "soccer": near("body", "soccer_ball", 0.07),
    "stick-push": _stick_push,
    "sweep": near("body", "obj", 0.05),
    "sweep-into": _sweep_into,
}
