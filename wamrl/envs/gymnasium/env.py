"""Any environment of `gymnasium` with pictures and continuous actions,
also those written for LeRobot.

Actions, float32 (A,): the environment's own, flattened, in its own units and bounds. Frames come
from the observation (`pixels`, or `pixels/<camera>`) or from `env.render()`, squeezed to a square.
Proprioception is `agent_pos`, or what `state_keys` says. An episode ends with the first success, or
when the environment ends it, or at the horizon.

Example: `env = GymConfig(id="gym_pusht/PushT-v0", module="gym_pusht", kwargs=(("obs_type",
"pixels_agent_pos"),), instruction="push the T onto its green shadow").build()`; then
`check_env(env)`. More: docs/bring-your-own.md.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Ge, Le

from wamrl.envs.base import EnvConfig, EnvSpec
from wamrl.envs.gymnasium.spaces import (
    NOTHING,
    RENDER,
    TERMINATED,
    action_box,
    connect,
    control_hz,
    draw,
    image_keys,
    lookup,
    other_success,
    state_keys,
    told,
)
from wamrl.envs.simulated import (
    Progress,
    Scene,
    SimulatedEnv,
    require_image_size,
)
from wamrl.runtime.images import resize, rgb
from wamrl.runtime.ranges import Count, Pixels, check_ranges


@dataclass(frozen=True, kw_only=True)
class GymConfig(EnvConfig):
    """One registered environment. A path is a key of the observation, "agent_pos", or keys in keys,
    "pixels/top"; "" is the observation itself."""

    id: str  # as for gymnasium.make
    instruction: str  # what the model is told
    # imported first, so that it registers `id`; your own code, named by your own recipe
    module: str = ""
    # for the environment's constructor
    kwargs: tuple[tuple[str, bool | int | float | str], ...] = ()
    image_size: Pixels = 64  # pixels, square
    # names of the cameras; (): all of `pixels`, else the picture of env.render()
    views: tuple[str, ...] = ()
    image_keys: tuple[str, ...] = ()  # path of each view, or "render()"; (): pixels/<view>
    # paths of the proprioception; (): agent_pos, else a flat observation, else 0
    state_keys: tuple[str, ...] = ()
    # a path in `info`, which may be there in the last step only; or "terminated": every end that is
    # not the clock's is a success
    success_key: str = "is_success"
    stages: Annotated[int, Ge(1), Le(64)] = 1  # sub-goals
    stages_key: str = "stages"  # of `info`: sub-goals completed so far; only read where stages > 1
    horizon: Count | None = None  # control steps; None: the registered max_episode_steps
    # a new environment at every reset: slow, for those that remember something
    rebuild: bool = False

    @property
    def imports(self) -> tuple[str, ...]:
        """`module`, and what stands before the colon of an id as `module:Name-v0`."""
        return tuple(name for name in (self.module, self.id.rpartition(":")[0]) if name)

    def validate(self) -> None:
        """ValueError of one sentence if a field contradicts itself or another."""
        check_ranges(self, "env")
        for name in ("id", "instruction", "success_key"):
            if not getattr(self, name).strip():
                raise ValueError(f"env.{name} is empty: say what it is")
        require_image_size(self.image_size, 8, 512)
        if len(set(self.views)) < len(self.views) or not all(self.views):
            raise ValueError(f"views={self.views} is not possible: name every camera once")
        if self.image_keys and len(self.image_keys) != len(self.views):
            raise ValueError(
                f"{len(self.image_keys)} image_keys for {len(self.views)} views: give one path per "
                "view"
            )
        if NOTHING in self.state_keys and len(self.state_keys) > 1:
            raise ValueError(
                f"state_keys={self.state_keys} is not possible: {NOTHING!r} stands alone"
            )
        if self.stages < 1:
            raise ValueError(f"stages={self.stages} is not possible: choose 1 or more")
        if "render_mode" in dict(self.kwargs):
            raise ValueError("render_mode is always rgb_array: leave it out of env.kwargs")

    def build(self) -> SimulatedEnv:
        """ValueError of one sentence if something is missing,
        or has no pictures, no bounded actions, no success.
        """
        self.validate()
        return SimulatedEnv(GymScene(self))


class GymScene(Scene):
    """One environment of gymnasium.
    A picture is drawn, or squeezed, when somebody looks, once per control step.
    """

    def __init__(self, config: GymConfig) -> None:
        self._config = config
        self.env, limit = connect(config.id, config.module, dict(config.kwargs))
        self._box, low, high = action_box(self.env, config.id)
        if (horizon := config.horizon or limit) is None:
            raise ValueError(f"{config.id} has no time limit of its own: set env.horizon")
        self._key_seen = False  # has `info` ever had the success key?
        self._observe(self.env.reset(seed=0)[0])
        found = image_keys(self._seen, config.views, config.image_keys)
        self._images = tuple(found.values())
        self._states = config.state_keys or state_keys(self._seen)
        self.spec = EnvSpec(
            name=config.id,
            instruction=config.instruction,
            views=tuple(found),
            image_hw=(config.image_size, config.image_size),
            action_dim=len(low),
            proprio_dim=len(self.proprio()),
            horizon=horizon,
            stages=config.stages,
            action_low=tuple(low.tolist()),
            action_high=tuple(high.tolist()),
            control_hz=control_hz(self.env),
        )
        self.reset(0)
        self.render()
        self.step((low + high) / 2)  # so that a wrong key is found here

    def reset(self, seed: int) -> None:
        """The environment's own `reset(seed=seed)`; with `rebuild` that of a new one."""
        if self._config.rebuild:
            self.env.close()
            self.env, _ = connect(self._config.id, self._config.module, dict(self._config.kwargs))
        self._steps = 0
        self._observe(self.env.reset(seed=seed)[0])

    def step(self, action: np.ndarray) -> Progress:
        """One step of the environment, (A,) in its own units.
        `info` is asked for success and sub-goals; ValueError if they are not there.
        """
        sent = action.astype(self._box.dtype).reshape(self._box.shape)
        # bounds of float64, rounded to float32, may lie outside the box
        sent = np.clip(sent, self._box.low, self._box.high)
        observation, _, ended, cut, info = self.env.step(sent)
        self._steps += 1
        self._observe(observation)
        success = self._success(info, bool(ended), bool(cut))
        return Progress(
            success=success,
            stages=self._count(info, success),
            failed=bool(ended) and not success,
            cut=bool(cut),
        )

    def _success(self, info: dict, ended: bool, cut: bool) -> bool:
        """What `info` says, which may be silent until the episode's end."""
        key = self._config.success_key
        if key == TERMINATED:
            return ended
        value = told(info, key, self._config.id)
        if value is not None:
            self._key_seen = True
            if value not in (0, 1):
                raise ValueError(
                    f"{self._config.id}: info[{key!r}] is {value!r}, not success (0 or 1): name "
                    "another env.success_key"
                )
            return bool(value)
        other = other_success(info, key)
        if ended or cut or other:
            hint = f", such as {other!r}" if other else ""
            raise ValueError(
                f"{self._config.id}: info has no success {key!r} "
                f"{'at the end of an episode' if ended or cut else 'after a step'} (there is "
                f"{', '.join(map(str, info)) or 'nothing'}): name another env.success_key{hint}"
            )
        self._tell_silence()
        return False

    def _tell_silence(self) -> None:
        """The clock, which is ours, ends an episode of which the environment said nothing."""
        if self._steps >= self.spec.horizon and not self._key_seen:
            self._key_seen = True
            print(
                f"wamrl: {self._config.id}: after {self.spec.horizon} control steps info has never "
                f"had {self._config.success_key!r}; such an episode counts as not solved. If the "
                "environment does not report success under that name, set env.success_key",
                file=sys.stderr,
                flush=True,
            )

    def _count(self, info: dict, success: bool) -> int:
        """Sub-goals completed; all only with success."""
        if success:
            return self.spec.stages
        if self.spec.stages == 1:
            return 0
        key = self._config.stages_key
        count = told(info, key, self._config.id)
        if count not in range(self.spec.stages + 1):
            raise ValueError(
                f"{self._config.id}: info[{key!r}] is {count!r}: with env.stages="
                f"{self.spec.stages} it must count the sub-goals that are done, 0 to "
                f"{self.spec.stages}; or name another env.stages_key"
            )
        return min(int(count), self.spec.stages - 1)

    def _observe(self, observation: object) -> None:
        self._seen = observation
        self._drawn = None

    def render(self) -> np.ndarray:
        """One picture per view, squeezed to (H, W)."""
        if self._drawn is None:
            pictures = [resize(self._picture(key), self.spec.image_hw) for key in self._images]
            self._drawn = np.stack(pictures)
        return self._drawn.copy()

    def _picture(self, key: str) -> np.ndarray:
        picture = draw(self.env) if key == RENDER else lookup(self._seen, key)
        return rgb(picture, f"{self._config.id}: {key or 'the observation'}")

    def proprio(self) -> np.ndarray:
        """What lies at the state keys, joined; one zero where there is nothing."""
        if self._states == (NOTHING,):
            return np.zeros(1, np.float32)
        parts = [np.asarray(lookup(self._seen, key), np.float32).ravel() for key in self._states]
        return np.concatenate(parts)

    def describe(self) -> tuple[str, ...]:
        """Where success, pictures and state come from."""
        key = self._config.success_key
        success = "every end that is not the clock's" if key == TERMINATED else f"info[{key!r}]"
        pairs = zip(self.spec.views, self._images, strict=True)
        pictures = ", ".join(f"{view} = {key or 'the observation'}" for view, key in pairs)
        state = " + ".join(key or "the observation" for key in self._states)
        if self._states == (NOTHING,):
            state = "invented, one zero: the observation has no agent_pos; name env.state_keys"
        return (f"success: {success}", f"pictures: {pictures}", f"state: {state}")

    def close(self) -> None:
        """Close the environment with its windows and simulators."""
        self.env.close()
