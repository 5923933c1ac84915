"""robosuite's simulations with exact, fast resets and without its cameras,
observables and Python control loop.

robosuite gives the model, the placement of the objects and the success; stepping is ours
(`wamrl.envs.robosuite.controller`). It is imported here, inside functions only.
"""

from __future__ import annotations

import logging
import warnings
from functools import cache
from typing import Any

import numpy as np

from wamrl.envs.robosuite.controller import Panda
from wamrl.envs.robosuite.tasks import Task

CONTROL_HZ = 20
_MISSING = (
    "this environment needs robosuite and MuJoCo, which are not installed: run pip install "
    "-e '.[robosuite]' in the clone of wamrl"
)
_FINGERS = (
    ("finger1_collision", "finger1_pad_collision"),
    ("finger2_collision", "finger2_pad_collision"),
)


@cache
def import_robosuite() -> Any:
    """The module, or ValueError saying what to install.
    Its remarks about its optional parts are not printed.
    """
    logging.getLogger("robosuite_logs").addFilter(lambda record: record.levelno >= logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import mujoco  # noqa: F401
            import robosuite
    except ImportError as error:
        raise ValueError(f"{_MISSING} ({error})") from error
    return robosuite


@cache
def make(task: Task) -> Any:
    """robosuite's environment of `task`, nothing drawn; the model is the same in every process.

    One per process: it takes a second to build and 135 MB, most of them meshes and textures.
    """
    suite = import_robosuite()
    from robosuite.controllers import load_composite_controller_config

    env = suite.make(
        task.env,
        robots="Panda",
        seed=0,
        control_freq=CONTROL_HZ,
        ignore_done=True,
        hard_reset=False,
        renderer="mujoco",
        controller_configs=load_composite_controller_config(controller="BASIC", robot="Panda"),
        has_renderer=False,
        has_offscreen_renderer=False,
        use_camera_obs=False,
        use_object_obs=False,
    )
    env._observables = {}  # nobody reads them, and computing them takes half of a reset
    return env


class Simulation:
    """One scene: a state of its own, of a model that all scenes of the task in a process share."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self._shared = make(task)
        self._state = type(self._shared.sim.data)(self._shared.sim.model)
        self.model = self._shared.sim.model._model
        self.data = self._state._data
        self.hand = Panda(self.model, self.data)
        prefix = "gripper0_right_"
        self._fingers = [
            frozenset(self.model.geom(prefix + name).id for name in names) for names in _FINGERS
        ]
        self._sliders = [self.model.joint(f"{prefix}finger_joint{i}").qposadr[0] for i in (1, 2)]

    @property
    def env(self) -> Any:
        """robosuite's object, looking at this scene, for those who need its privileged state.

        Do not keep it: it looks at the scene that asked last.
        """
        self._shared.sim.data = self._state
        return self._shared

    def reset(self, seed: int) -> None:
        """The initial state that belongs to `seed`:
        robosuite's own placement and joint noise, drawn from the seed.
        """
        rng = np.random.default_rng(seed)
        env = self.env
        sampler = env.placement_initializer
        for drawing in (env, sampler, *getattr(sampler, "samplers", {}).values()):
            drawing.rng = rng
        env.reset()
        self.hand.rest()

    def step(self, action: np.ndarray) -> tuple[bool, tuple[bool, ...]]:
        """One control step of 50 ms with float32 (7,) in [-1, 1]; robosuite's success, and for each
        of the task's things whether robosuite counts it as placed.
        """
        self.hand.drive(action.astype(np.float64))
        env = self.env
        success = bool(env._check_success())
        for name in ("objects_in_bins", "objects_on_pegs"):  # which that check has found
            if len(self.task.things) > 1 and hasattr(env, name):
                return success, tuple(bool(flag) for flag in getattr(env, name))
        return success, (success,)

    def quaternion(self) -> np.ndarray:
        """Orientation of the hand, float64 (4,) as (w, x, y, z),
        in the half around its first posture: x + y >= 0.

        The usual half, w >= 0, has its border where the hand points straight down,
        which is where it always is.
        """
        import mujoco

        quaternion = np.empty(4)
        mujoco.mju_mat2Quat(quaternion, self.data.site_xmat[self.hand.site])
        return quaternion if quaternion[1] + quaternion[2] >= 0 else -quaternion

    def fingers(self) -> np.ndarray:
        """Positions of the two fingers, float64 (2,), metres:
        (0.04, -0.04) is open, zeros closed.
        """
        return self.data.qpos[self._sliders].copy()

    def opening(self) -> float:
        """Distance between the fingers, metres; 0 to 0.08."""
        left, right = self.data.qpos[self._sliders].tolist()
        return left - right

    def held(self, body: str) -> bool:
        """Both fingers touch the thing called `body`."""
        parts = self.parts(body)
        touched = [False, False]
        for one, two in self.data.contact.geom.tolist():
            for geom, other in ((one, two), (two, one)):
                if other in parts:
                    for side, finger in enumerate(self._fingers):
                        touched[side] |= geom in finger
        return all(touched)

    @cache  # noqa: B019  a simulation lives as long as its environment
    def parts(self, body: str) -> tuple[int, ...]:
        """The colliding geoms of a thing, ids in the model's order."""
        root = self.model.body(f"{body}_main").id
        geoms = range(self.model.ngeom)
        return tuple(
            i for i in geoms if self.model.geom_bodyid[i] == root and self.model.geom_contype[i]
        )
