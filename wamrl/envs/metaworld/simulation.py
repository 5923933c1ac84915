"""MetaWorld's simulations with three costs removed.

    compiling the XML for each instance    done once per process and copied
    500 physics steps a reset              done once per process and copied
    observation and dense reward a step    left out: only the task's success is asked for

mujoco and metaworld are imported here, inside functions only.
"""

from __future__ import annotations

import copy
from functools import cache
from math import dist
from typing import Any

import numpy as np

from wamrl.envs.metaworld.success import SUCCESS

_MISSING = (
    "{name} needs MetaWorld and MuJoCo, which are not installed: run "
    "pip install -e '.[metaworld]' in the clone of wamrl"
)

HOP = 0.15  # metres between successive goals; success needs 0.05 to 0.07
DOWN = np.array([1.0, 0.0, 1.0, 0.0])  # quaternion of the hand's target: fingers down
SIDESTEP = 0.08  # metres to the side between successive places of a thing, whose range is 0.2 wide


def import_metaworld() -> Any:
    """The table of MetaWorld's environment classes, or ValueError saying what to install."""
    try:
        import mujoco  # noqa: F401
        from metaworld.env_dict import ENV_CLS_MAP
    except ImportError as error:
        raise ValueError(f"{_MISSING.format(name='this environment')} ({error})") from error
    return ENV_CLS_MAP


@cache
def sim_class(task: str) -> type:
    """The class of `task` whose instances copy one compiled
    model and one settled hand; cached per process.
    """
    import mujoco

    base = import_metaworld()[f"{task}-v3"]
    compiled: dict[str, Any] = {}
    settled: dict[tuple, np.ndarray] = {}
    everything = mujoco.mjtState.mjSTATE_INTEGRATION

    class Sim(base):
        def _initialize_simulation(self):
            if self.fullpath not in compiled:
                compiled[self.fullpath] = mujoco.MjModel.from_xml_path(self.fullpath)
            model = copy.copy(compiled[self.fullpath])
            return model, mujoco.MjData(model)

        def _reset_hand(self, steps: int = 50) -> None:
            """Put the hand where the first reset of this process ended up,
            after `steps` control steps of settling.

            The first one starts from the untouched model (see `Simulation.reset`), so the result is
            the same in every process and does not depend on the seed: the task's own objects are
            placed after it.
            """
            key = (steps, tuple(np.asarray(self.hand_init_pos).tolist()))
            if key not in settled:
                mujoco.mj_resetData(self.model, self.data)
                super()._reset_hand(steps)
                settled[key] = np.empty(mujoco.mj_stateSize(self.model, everything))
                mujoco.mj_getState(self.model, self.data, settled[key], everything)
            mujoco.mj_resetData(self.model, self.data)
            mujoco.mj_setState(self.model, self.data, settled[key], everything)
            mujoco.mj_forward(self.model, self.data)
            self.init_tcp = self.tcp_center

        def step(self, action: np.ndarray) -> tuple:
            """MetaWorld's own step, which stacks the right frame also after `Simulation.step`."""
            self._prev_obs = self._get_curr_obs_combined_no_goal()
            return super().step(action)

    return Sim


class Simulation:
    """One MetaWorld scene with exact resets.
    `env` is MetaWorld's object, for those who need its privileged state.
    """

    def __init__(self, task: str) -> None:
        import mujoco

        self._mj = mujoco
        self.env = sim_class(task)()
        # what MetaWorld's set_task would do; the seed replaces its task object
        self.env._set_task_called = True
        self.env._freeze_rand_vec = False
        self.env.seeded_rand_vec = True
        self.env.max_path_length = 2**31  # the clock is ours
        self._body_pos = self.env.model.body_pos.copy()
        self._site_pos = self.env.model.site_pos.copy()
        self._find_parts()
        self._succeeded = SUCCESS[task](self.env)
        self.env.seed(0)
        self.reset(0)

    def _find_parts(self) -> None:
        """Views of the simulator's memory, and ids:
        found once, since a look-up by name takes 1 us.
        """
        model = self.env.model
        data = self.env.data
        self._mocap_pos = data.mocap_pos[0]
        self._mocap_quat = data.mocap_quat[0]
        self._ctrl = data.ctrl
        self._hand = data.body("hand").xpos
        self._tips = [data.site(name).xpos for name in ("rightEndEffector", "leftEndEffector")]
        self._claws = [data.body(name).xpos for name in ("rightclaw", "leftclaw")]
        self._pads = {model.geom(name).id for name in ("leftpad_geom", "rightpad_geom")}

    def reset(self, seed: int) -> None:
        """The initial state that belongs to `seed`, whatever happened before."""
        env = self.env
        env.model.body_pos[:] = self._body_pos
        env.model.site_pos[:] = self._site_pos
        # MetaWorld places some goals from positions that are only right after an earlier reset,
        # so it resets twice
        for _ in range(2):
            self._mj.mj_resetData(env.model, env.data)
            env.np_random = np.random.Generator(np.random.PCG64(seed))
            env.reset_model()
        env.curr_path_length = 0
        self._mj.mj_forward(env.model, env.data)

    def step(self, action: np.ndarray) -> bool:
        """One control step with float32 (4,) in [-1, 1]; the simulator's success flag.

        State and flag are those of MetaWorld's own `step`, bit for bit.
        Left out is what changes neither: observation, reward, `mj_rnePostConstraint`,
        and the goals' sites, which `mj_forward` puts back at once.
        `mj_forward` itself stays: it brings places and contacts up to date,
        and writes `qacc_warmstart`, from which the next step starts.
        """
        env = self.env
        target = self._mocap_pos
        target += action[:3] * env.action_scale  # a float32 product, as in MetaWorld
        np.maximum(target, env.mocap_low, out=target)
        np.minimum(target, env.mocap_high, out=target)
        self._mocap_quat[:] = DOWN
        grip = action.item(3)
        self._ctrl[0] = grip
        self._ctrl[1] = -grip
        self._mj.mj_step(env.model, env.data, env.frame_skip)
        self._mj.mj_forward(env.model, env.data)
        env.curr_path_length += 1
        return self._succeeded()

    def observation(self) -> np.ndarray:
        """Full state with the goal, float64 (39,),
        as MetaWorld's scripted policies want it; changes nothing.
        """
        now = self.env._get_curr_obs_combined_no_goal()
        return np.hstack((now, now, self.env._get_pos_goal()))

    def hand(self) -> np.ndarray:
        """Hand position, float64 (3,), metres."""
        return self._hand.copy()

    def pinch(self) -> list[float]:
        """The point between the fingertips, three numbers, metres; MetaWorld's `tcp_center`."""
        right, left = self._tips
        a, b, c = right.tolist()
        d, e, f = left.tolist()
        return [(a + d) / 2, (b + e) / 2, (c + f) / 2]

    def gripper(self) -> float:
        """Opening between the fingers, 0 closed, 1 fully open."""
        right, left = self._claws
        return min(dist(right.tolist(), left.tolist()) / 0.1, 1.0)

    def held(self, body: str) -> bool:
        """Both finger pads touch the body named `body` or a part of it."""
        pads = self._pads
        parts = self._parts(body)
        touching = set()
        for one, two in self._contacts():
            if one in pads and two in parts:
                touching.add(one)
            elif two in pads and one in parts:
                touching.add(two)
        return len(touching) == 2

    def _contacts(self) -> list[list[int]]:
        """The ids of the two geoms of every present contact."""
        data = self.env.data
        return data.contact.geom.tolist() if data.ncon else []

    def touched(self, body: str) -> int | None:
        """The id of the part of `body` that the hand (wrist, palm or fingers) touches,
        None if it touches none.
        """
        hand = self._parts("right_hand")
        parts = self._parts(body)
        for one, two in self._contacts():
            if one in hand and two in parts:
                return int(self.env.model.geom_bodyid[two])
            if two in hand and one in parts:
                return int(self.env.model.geom_bodyid[one])
        return None

    def seen_from(self, part: int, point: np.ndarray) -> tuple[float, ...]:
        """A place in the world, float64 (3,), in the frame of the body with id `part`; metres."""
        x, y, z = (point - self.env.data.xpos[part]).tolist()
        # plain numbers: four times as fast as numpy here
        a, b, c, d, e, f, g, h, i = self.env.data.xmat[part].tolist()
        return a * x + d * y + g * z, b * x + e * y + h * z, c * x + f * y + i * z

    @cache  # noqa: B019  a simulation lives as long as its environment
    def _family(self, body: str) -> frozenset[int]:
        """A body and all bodies below it."""
        model = self.env.model
        family = {model.body(body).id}
        for child in range(model.nbody):  # parents come before their children
            if model.body_parentid[child] in family:
                family.add(child)
        return frozenset(family)

    @cache  # noqa: B019
    def _parts(self, body: str) -> frozenset[int]:
        """The geoms of a body and of all bodies below it."""
        model = self.env.model
        return frozenset(
            i for i in range(model.ngeom) if model.geom_bodyid[i] in self._family(body)
        )

    def goal(self) -> np.ndarray:
        """The present goal, float64 (3,), metres."""
        return np.asarray(self.env._target_pos, np.float64).copy()

    def set_goal(self, goal: np.ndarray) -> None:
        """Replace the goal, float64 (3,), for tasks whose goal is a free place;
        success is judged against it.
        """
        self.env._target_pos = np.array(goal, np.float64)

    def later_goals(self, seed: int, count: int) -> list[np.ndarray]:
        """`count` goals to follow the present one, each at least `HOP` from the one before;
        a function of the seed.

        They lie where the task puts its objects and goals, at the goal's heights.
        """
        rng = np.random.default_rng([seed, 1])
        space = self.env._random_reset_space
        low = np.minimum(space.low[:3], space.low[3:])
        high = np.maximum(space.high[:3], space.high[3:])
        goals = [self.goal()]
        flat = space.high[5] < 0.05  # the task keeps its goal on the table
        while len(goals) <= count:
            goal = rng.uniform([*low[:2], space.low[5]], [*high[:2], space.high[5]])
            goal[2] = goals[0][2] if flat else goal[2]
            if np.linalg.norm(goal - goals[-1]) >= HOP:
                goals.append(goal)
        return goals[1:]

    def later_places(self, body: str, seed: int, count: int) -> list[np.ndarray]:
        """`count` places for `body` to follow the present one,
        float64 (3,), metres; a function of the seed.

        Each is `SIDESTEP` or more to the side of the one before,
        in the task's range, at the same depth and height.
        """
        rng = np.random.default_rng([seed, 1])
        space = self.env._random_reset_space
        places = [self.env.model.body(body).pos.copy()]
        while len(places) <= count:
            place = np.array([rng.uniform(space.low[0], space.high[0]), *places[0][1:]])
            if abs(place[0] - places[-1][0]) >= SIDESTEP:
                places.append(place)
        return places[1:]

    def move(self, body: str, place: np.ndarray) -> None:
        """Put the thing `body` at `place`, float64 (3,), as if untouched:
        its joints at rest, its goal with it.
        """
        model = self.env.model
        data = self.env.data
        self.set_goal(self.goal() + place - model.body(body).pos)
        model.body(body).pos = place
        for joint in range(model.njnt):
            if model.jnt_bodyid[joint] in self._family(body):
                data.qpos[model.jnt_qposadr[joint]] = model.qpos0[model.jnt_qposadr[joint]]
                data.qvel[model.jnt_dofadr[joint]] = 0.0
        self._mj.mj_forward(model, data)
