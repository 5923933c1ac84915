"""How an environment of gymnasium is made, and where its pictures,
its state and its actions' bounds are.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import gymnasium

RENDER = "render()"  # an image key: the picture of env.render()
NOTHING = "nothing()"  # a state key: no proprioception, one zero
TERMINATED = "terminated"  # a success key


def connect(name: str, module: str, kwargs: dict[str, Any]) -> tuple[gymnasium.Env, int | None]:
    """The environment without its clock, and what its clock says: control steps, or None.

    ValueError of one sentence if a package is missing,
    `name` is not registered or its constructor refuses `kwargs`.
    """
    import gymnasium

    try:
        if module:
            importlib.import_module(module)
        limit = gymnasium.spec(name).max_episode_steps
    except ImportError as error:
        advice = (
            "pip install 'wamrl[gym]' brings gym_pusht; for others install the package that holds "
            "it"
        )
        raise ValueError(
            f"cannot import {module or name} for {name} ({error}): {advice}"
        ) from error
    except gymnasium.error.Error as error:
        advice = "" if module else ", or set env.module to the module that registers it"
        raise ValueError(
            f"gymnasium knows no {name!r} ({error}): correct env.id{advice}"
        ) from error
    try:
        env = gymnasium.make(
            name, max_episode_steps=-1, disable_env_checker=True, render_mode="rgb_array", **kwargs
        )
    except (ImportError, gymnasium.error.DependencyNotInstalled) as error:
        raise ValueError(
            f"{name} needs a package that is not installed ({error}): install it"
        ) from error
    except (TypeError, ValueError, gymnasium.error.Error) as error:
        raise ValueError(
            f"{name} cannot be made with {kwargs} and render_mode='rgb_array': {error}"
        ) from error
    return env, limit


def action_box(
    env: gymnasium.Env, name: str
) -> tuple[gymnasium.spaces.Box, np.ndarray, np.ndarray]:
    """The environment's action space, and its bounds flattened, float32 (A,) each."""
    import gymnasium

    space = env.action_space
    if not isinstance(space, gymnasium.spaces.Box) or not np.issubdtype(space.dtype, np.floating):
        raise ValueError(
            f"{name} has actions {space}: a World-Action model needs continuous ones (a Box of "
            "floats)"
        )
    low = space.low.ravel().astype(np.float32)
    high = space.high.ravel().astype(np.float32)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ValueError(
            f"{name} has actions without bounds ({space}): wrap it to give it finite ones"
        )
    if not (len(low) and (low < high).all()):
        raise ValueError(
            f"{name} has an empty action space ({space}): every action needs low < high"
        )
    return space, low, high


def control_hz(env: gymnasium.Env) -> float | None:
    """Steps per second as the environment itself gives them, or at which it wants to be shown; None
    where it says neither.
    """
    found = getattr(env.unwrapped, "control_hz", None) or env.metadata.get("render_fps")
    return float(found) if isinstance(found, int | float) and found > 0 else None


def draw(env: gymnasium.Env) -> Any:
    """The picture of env.render(). gymnasium's MuJoCo renderer draws into whatever OpenGL context
    is current, which with several environments in one process may be another one's, or a closed
    one's: then the picture is black."""
    viewer = getattr(getattr(env.unwrapped, "mujoco_renderer", None), "viewer", None)
    if viewer is not None:
        viewer.make_context_current()
    return env.render()


def lookup(observation: Any, path: str) -> Any:
    """What lies at `path`, keys joined by "/"; "" is the observation itself.
    ValueError names the keys that exist.
    """
    for key in path.split("/") if path else ():
        if not isinstance(observation, dict) or key not in observation:
            known = ", ".join(map(str, observation)) if isinstance(observation, dict) else "no keys"
            raise ValueError(
                f"the observation has no {path!r}: there are {known} where {key!r} was looked for"
            )
        observation = observation[key]
    return observation


def image_keys(observation: Any, views: tuple[str, ...], keys: tuple[str, ...]) -> dict[str, str]:
    """View -> path of its picture; what the config leaves open is found in the observation."""
    if keys:
        return dict(zip(views, keys, strict=True))
    pixels = observation.get("pixels") if isinstance(observation, dict) else None
    if isinstance(pixels, dict):
        return {view: f"pixels/{view}" for view in views or pixels}
    if len(views) > 1:
        raise ValueError(
            f"the observation has no cameras in 'pixels', but views={views}: set env.image_keys as "
            "well"
        )
    single = "pixels" if pixels is not None else "" if _is_picture(observation) else RENDER
    return {views[0] if views else "image": single}


def state_keys(observation: Any) -> tuple[str, ...]:
    """Where the robot's state is, if nobody says."""
    if isinstance(observation, dict):
        return ("agent_pos",) if "agent_pos" in observation else (NOTHING,)
    flat = isinstance(observation, np.ndarray) and observation.ndim == 1 and len(observation) > 0
    return ("",) if flat else (NOTHING,)


def _is_picture(observation: Any) -> bool:
    return (
        isinstance(observation, np.ndarray)
        and observation.dtype == np.uint8
        and observation.ndim == 3
    )
