"""One LIBERO scene with exact and quick resets.
libero, robosuite and mujoco are imported inside functions only.

LIBERO's own `env.reset` compiles the scene anew, which takes seconds. Here the model is compiled
once; a reset clears the simulation, restores what episodes change in the model (places of fixtures,
visible sites), runs LIBERO's own placement code under a seeded generator and makes new controllers.
The physics of a control step are robosuite's, call by call; only its observables, which compute
images and object poses nobody asked for, are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from wamrl.envs.libero.assets import Task, init_states, missing_assets_explained, use_assets

# control steps in which things come to rest before the policy acts (OpenVLA, openpi)
SETTLE_STEPS = 10
IDLE = np.array([0, 0, 0, 0, 0, 0, -1], np.float64)  # nothing moves, gripper open
CONTROL_HZ = 20
_KEPT = ("body_pos", "body_quat", "site_rgba")  # of the model: what LIBERO changes in an episode
_SEEN = (
    "qpos",
    "xpos",
    "xquat",
    "xmat",
    "xipos",
    "ximat",
    "geom_xpos",
    "geom_xmat",
    "site_xpos",
    "site_xmat",
)
# of the data: what a picture is made from
_SEEN += ("cam_xpos", "cam_xmat", "light_xpos", "light_xdir")


@contextmanager
def numpy_seeded(seed: int) -> Iterator[None]:
    """Seed numpy's global generator, which LIBERO draws from,
    and give the caller's state back afterwards.
    """
    before = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(before)


class Simulation:
    """One task's scene. `env` is LIBERO's object, for those who need its privileged state."""

    def __init__(self, task: Task, assets: Path | None) -> None:
        import mujoco

        self._mj = mujoco
        self._task = task
        self.env = _build(task, use_assets(assets))
        self.model = self.env.sim.model._model
        self.data = self.env.sim.data._data
        # what cameras and proprioception saw last, see `step`
        self.seen = mujoco.MjData(self.model)
        self.env.visualize(vis_settings=dict.fromkeys(self.env._visualizations, False))
        self.env._observables = {}
        self._kept = {name: getattr(self.model, name).copy() for name in _KEPT}
        self._shown = {
            name: dict(self._sites_of(name)) for name in self.env.visualization_sites_list
        }
        self._robot = self.env.robots[0]
        self._substeps = int(self.env.control_timestep / self.env.model_timestep)
        self._eef_body = self.model.body(self._robot.robot_model.eef_name).id
        self._fingers = tuple(
            self._ids(self._robot.gripper.important_geoms[f"{side}_finger"])
            for side in ("left", "right")
        )
        self.goals: list[list[str]] = self.env.parsed_problem["goal_state"]

    def _sites_of(self, name: str) -> dict:
        return self.env.get_object(name).object_properties["vis_site_names"]

    def _ids(self, names: list[str]) -> frozenset[int]:
        return frozenset(self.model.geom(name).id for name in names)

    # ---- resetting
    def reset(self, seed: int, official: int | None) -> None:
        """Random placements drawn with `seed`,
        or with `official` = 0..49 that fixed initial state; then settle.

        The fixed states hold joints only; where fixtures stand is drawn with `seed` in both cases,
        as in LIBERO's own evaluation, where it depends on `env.seed`.
        """
        for name, value in self._kept.items():
            getattr(self.model, name)[:] = value
        for name, shown in self._shown.items():
            self._sites_of(name).update(shown)
        self._robot.gripper.current_action = np.zeros(self._robot.gripper.dof)
        with numpy_seeded(seed):
            _until_placed(self._place)
        if official is not None:
            state = init_states(self._task.init_states)[official]
            self.data.time = state[0]
            self.data.qpos[:] = state[1 : 1 + self.model.nq]
            self.data.qvel[:] = state[1 + self.model.nq :]
        self._mj.mj_forward(self.model, self.data)
        # as LIBERO's set_init_state: predicates tell the stove whether its flame is visible
        self.solved()
        self.env._post_process()
        for _ in range(SETTLE_STEPS):
            self.step(IDLE)

    def _place(self) -> None:
        self._mj.mj_resetData(self.model, self.data)
        self.env._reset_internal()

    # ---- stepping
    def step(self, action: np.ndarray) -> list[bool]:
        """One control step of 50 ms with (7,) in [-1, 1]; which conjuncts of the goal hold now.

        What is seen is the last physics step but one, as in LIBERO's evaluation: robosuite takes
        its observations once per 25 steps, and the two forced ones of `reset` and `set_init_state`
        shift the moment to step 24.
        """
        action = np.asarray(action, np.float64)
        for substep in range(self._substeps):
            self._mj.mj_forward(self.model, self.data)
            self.env._pre_action(action, substep == 0)
            self._mj.mj_step(self.model, self.data)
            if substep == self._substeps - 2:
                for name in _SEEN:
                    getattr(self.seen, name)[:] = getattr(self.data, name)
        solved = self.solved()
        self.env._post_process()
        return solved

    def solved(self) -> list[bool]:
        """LIBERO's goal predicate, conjunct by conjunct; all of them = its `_check_success`."""
        return [bool(self.env._eval_predicate(state)) for state in self.goals]

    # ---- looking
    def proprio(self) -> np.ndarray:
        """Hand position (3), hand orientation as an axis-angle vector (3),
        finger joints (2); float64 (8,).
        """
        position = self.seen.site_xpos[self._robot.eef_site_id]
        fingers = self.seen.qpos[self._robot._ref_gripper_joint_pos_indexes]
        return np.concatenate([position, axis_angle(self.seen.xquat[self._eef_body]), fingers])

    def hand(self) -> np.ndarray:
        """The point between the fingertips (robosuite's grip site), float64 (3,), metres."""
        return self.data.site_xpos[self._robot.eef_site_id].copy()

    def hand_axes(self) -> np.ndarray:
        """The grip site's axes as columns, float64 (3, 3):
        the fingers close along the first, point along the third.
        """
        return self.data.site_xmat[self._robot.eef_site_id].reshape(3, 3).copy()

    def opening(self) -> float:
        """Metres between the fingertips: 0.08 open, 0 closed."""
        one, two = self.data.qpos[self._robot._ref_gripper_joint_pos_indexes]
        return float(one - two)

    def body_of(self, name: str) -> int:
        """The id of the body of the object or fixture `name`."""
        return self.env.obj_body_id[name]

    def position(self, name: str) -> np.ndarray:
        """Where the object `name` is, float64 (3,), metres."""
        return self.data.xpos[self.body_of(name)].copy()

    def touching(self, name: str) -> tuple[bool, bool]:
        """Do the left and the right finger touch the object `name`?"""
        parts = self.geoms_of(name)
        found = [False, False]
        for one, two in self.data.contact.geom.tolist():
            for side, finger in enumerate(self._fingers):
                found[side] |= (one in finger and two in parts) or (two in finger and one in parts)
        return found[0], found[1]

    def held(self, name: str) -> bool:
        """Both fingers touch the object `name`."""
        return all(self.touching(name))

    @cache  # noqa: B019  a simulation lives as long as its environment
    def geoms_of(self, name: str) -> frozenset[int]:
        """The geoms that collide, of an object or fixture and of all bodies below it."""
        model = self.model
        family = {self.body_of(name)}
        for child in range(model.nbody):  # parents come before their children
            if model.body_parentid[child] in family:
                family.add(child)
        solid = (model.geom_contype != 0) | (model.geom_conaffinity != 0)
        return frozenset(
            i for i in range(model.ngeom) if model.geom_bodyid[i] in family and solid[i]
        )

    def movable(self) -> tuple[str, ...]:
        """The objects that the goal wants somewhere, in its order."""
        names = (state[1] for state in self.goals if state[1] in self.env.objects_dict)
        return tuple(dict.fromkeys(names))


def axis_angle(quat: np.ndarray) -> np.ndarray:
    """The rotation vector, float64 (3,), of a quaternion w, x, y,
    z, with the angle in [0, 2 pi] as in robosuite.

    OpenVLA and openpi use robosuite's `quat2axisangle`,
    which keeps the quaternion's sign: their angle can exceed pi.
    """
    w = float(np.clip(quat[0], -1.0, 1.0))
    if (length := np.sqrt(1.0 - w * w)) < 1e-12:
        return np.zeros(3)
    return np.asarray(quat[1:], np.float64) * 2.0 * np.arccos(w) / length


def _until_placed(place: Any) -> Any:
    """Call `place` until LIBERO finds room for everything, as its own `reset` does."""
    from robosuite.utils.errors import RandomizationError

    for _ in range(100):
        try:
            return place()
        except RandomizationError:
            continue
    raise RuntimeError("LIBERO found no room for its objects in 100 tries")


def _build(task: Task, assets: Path) -> Any:
    """LIBERO's environment with the settings of its `ControlEnv`,
    without cameras and observables to compute.
    """
    import robosuite
    from libero.libero.envs import TASK_MAPPING
    from libero.libero.envs.bddl_utils import get_problem_info

    problem = get_problem_info(str(task.bddl))["problem_name"]
    controller = robosuite.load_controller_config(default_controller="OSC_POSE")
    with missing_assets_explained(assets), numpy_seeded(0):
        return _until_placed(
            lambda: TASK_MAPPING[problem](
                str(task.bddl),
                robots=["Panda"],
                controller_configs=controller,
                gripper_types="default",
                initialization_noise=None,
                use_camera_obs=False,
                has_renderer=False,
                has_offscreen_renderer=False,
                control_freq=CONTROL_HZ,
                ignore_done=True,
                hard_reset=False,
            )
        )
