"""How an environment of gymnasium is made, and where its pictures,
its state and its actions' bounds are.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import gymnasium

RENDER = "render()"  # an image key: the picture of env.render()
NOTHING = "nothing()"  # a state key: no proprioception, one zero
TERMINATED = "terminated"  # a success key
# LeRobot's flat keys of an observation
_FLAT_CAMERA = "observation.images."
_FLAT_STATE = "observation.state"
_USUAL_SUCCESS = ("is_success", "success")  # keys of `info`


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
            "pip install -e '.[gym]' brings gym_pusht; for others install the package that holds it"
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
    one's: then the picture is black. ValueError where there is no picture."""
    viewer = getattr(getattr(env.unwrapped, "mujoco_renderer", None), "viewer", None)
    if viewer is not None:
        viewer.make_context_current()
    advice = "name the pictures of the observation by env.views and env.image_keys"
    try:
        picture = env.render()
    except NotImplementedError:
        raise ValueError(f"the environment has no render(): {advice}") from None
    if picture is None:
        raise ValueError(f"render() gives no picture in render_mode='rgb_array': {advice}")
    return picture


def lookup(observation: Any, path: str, what: str = "the observation") -> Any:
    """What lies at `path`, keys joined by "/"; "" is the observation itself.
    ValueError names the keys that exist.
    """
    for key in path.split("/") if path else ():
        if not isinstance(observation, Mapping) or key not in observation:
            keys = ", ".join(map(str, observation)) if isinstance(observation, Mapping) else ""
            raise ValueError(
                f"{what} has no {path!r}: there are {keys or 'no keys'} where {key!r} was looked "
                "for"
            )
        observation = observation[key]
    return observation


def told(info: Mapping[str, Any], key: str, what: str) -> float | None:
    """The number at the path `key` of `info`; None where it is not there, or None.
    ValueError where there is something else.
    """
    try:
        value = lookup(info, key)
    except ValueError:
        return None
    if value is None:
        return None
    number = np.asarray(value)
    if number.size != 1 or number.dtype.kind not in "biuf":
        raise ValueError(f"{what}: info[{key!r}] is {value!r}, not one number: name another key")
    return number.item()


def other_success(info: Mapping[str, Any], key: str) -> str:
    """The usual key of success in `info` where `key` is not there; "" if there is none."""
    return next((usual for usual in _USUAL_SUCCESS if usual in info and usual != key), "")


def image_keys(observation: Any, views: tuple[str, ...], keys: tuple[str, ...]) -> dict[str, str]:
    """View -> path of its picture; what the config leaves open is found in the observation."""
    if keys:
        return dict(zip(views, keys, strict=True))
    pixels = observation.get("pixels") if isinstance(observation, Mapping) else None
    if isinstance(pixels, Mapping):
        return {view: f"pixels/{view}" for view in views or pixels}
    if pixels is None and isinstance(observation, Mapping):
        flat = [key for key in observation if str(key).startswith(_FLAT_CAMERA)]
        if flat:
            found = views or [key.removeprefix(_FLAT_CAMERA) for key in flat]
            return {view: _FLAT_CAMERA + view for view in found}
    if len(views) > 1:
        raise ValueError(
            f"the observation has no cameras in 'pixels', but views={views}: set env.image_keys as "
            "well"
        )
    single = "pixels" if pixels is not None else "" if _is_picture(observation) else RENDER
    return {views[0] if views else "image": single}


def state_keys(observation: Any) -> tuple[str, ...]:
    """Where the robot's state is, if nobody says."""
    if isinstance(observation, Mapping):
        usual = (key for key in ("agent_pos", _FLAT_STATE) if key in observation)
        return (next(usual, NOTHING),)
    flat = isinstance(observation, np.ndarray) and observation.ndim == 1 and len(observation) > 0
    return ("",) if flat else (NOTHING,)


def _is_picture(observation: Any) -> bool:
    return not isinstance(observation, Mapping) and np.ndim(observation) == 3
