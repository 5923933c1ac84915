"""`check_env`: does an environment keep the contract of `wamrl.envs.base`?
For your own environments, and for ours.
"""

from __future__ import annotations

import numpy as np

from wamrl.envs import attempts
from wamrl.envs.base import Env, EnvSpec, StepResult

_SEEDS = (3, 4)


def check_env(env: Env, *, expert: bool = False, limit: int = 5000) -> None:
    """Run a few short episodes and raise ValueError,
    one sentence naming the fault, at the first broken promise.

    `expert=True` also runs the environment's scripted expert for an episode. `limit` bounds the
    control steps spent on waiting for the clock. The environment is reset and left in some state;
    it is not closed. What no program can see (is the picture upright? can one see the goal?) stays
    with you: look at a frame.

    Example: `check_env(MetaWorldConfig(task="reach").build())`
    """
    _check_spec(env.spec)
    _check_reset(env)
    _check_clipping(env)
    _check_clock(env, limit)
    if expert:
        _check_expert(env)


def _need(holds: bool, fault: str) -> None:
    if not holds:
        raise ValueError(f"this environment breaks the contract: {fault}")


def _check_spec(spec: EnvSpec) -> None:
    _need(isinstance(spec, EnvSpec), "env.spec must be an EnvSpec")
    _need(
        bool(spec.name) and bool(spec.instruction),
        "spec.name and spec.instruction must not be empty",
    )
    _need(
        len(spec.views) > 0 and len(set(spec.views)) == len(spec.views),
        "spec.views must name each camera once",
    )
    _need(
        len(spec.image_hw) == 2 and min(spec.image_hw) > 0,
        "spec.image_hw must be two positive numbers",
    )
    for name in ("action_dim", "proprio_dim", "horizon", "stages"):
        value = getattr(spec, name)
        _need(
            isinstance(value, int) and value > 0,
            f"spec.{name} must be a positive int, not {value!r}",
        )
    _need(
        isinstance(spec.counters, tuple) and len(set(spec.counters)) == len(spec.counters),
        "spec.counters must be a tuple that names each counter once",
    )
    rate = spec.control_hz
    _need(
        rate is None or (isinstance(rate, int | float) and rate > 0),
        f"spec.control_hz must be control steps per second or None, not {rate!r}",
    )
    low, high = spec.bounds
    _need(
        low.shape == high.shape == (spec.action_dim,),
        "action_low and action_high need one value per action",
    )
    _need(
        bool(np.isfinite([low, high]).all() and (low < high).all()),
        "action_low must lie below action_high",
    )


def _check_frame(env: Env) -> np.ndarray:
    """The present frame, after checking that it is what the spec says."""
    frame = env.render()
    want = (len(env.spec.views), *env.spec.image_hw, 3)
    _need(
        isinstance(frame, np.ndarray) and frame.dtype == np.uint8,
        "render() must return a uint8 array",
    )
    _need(
        frame.shape == want,
        f"render() returned shape {frame.shape}, but the spec says {want} = (V, H, W, 3)",
    )
    for name, view in zip(env.spec.views, frame, strict=True):
        _need(view.max() > 0, f"the frame of view {name!r} is black: nothing is drawn")
        _need(
            view.min() < view.max(),
            f"the frame of view {name!r} has one colour only: nothing is drawn",
        )
    return frame


def _check_proprio(env: Env) -> np.ndarray:
    """The present proprioception, after checking that it is what the spec says."""
    state = env.proprio()
    want = (env.spec.proprio_dim,)
    _need(
        isinstance(state, np.ndarray) and state.dtype == np.float32,
        "proprio() must return a float32 array",
    )
    _need(
        state.shape == want,
        f"proprio() returned shape {state.shape}, but spec.proprio_dim says {want}",
    )
    _need(bool(np.isfinite(state).all()), "proprio() contains NaN or infinity")
    return state


def _step(env: Env, action: np.ndarray, steps: int, last: StepResult) -> StepResult:
    """One step, after checking that its result makes sense;
    `steps` so far, and what the `last` of them gave.
    """
    before = action.copy()
    result = env.step(action)
    _need(np.array_equal(before, action), "step() changes the action array that it is given")
    _need(
        isinstance(result, StepResult),
        f"step() must return a StepResult, not {type(result).__name__}",
    )
    flags = (result.success, result.terminated, result.truncated)
    _need(
        all(isinstance(flag, bool) for flag in flags),
        "success, terminated and truncated must be Python bools",
    )
    _need(
        not (result.terminated and result.truncated),
        "terminated and truncated came together: the end has one cause",
    )
    _need(
        isinstance(result.stages, int) and 0 <= result.stages <= env.spec.stages,
        f"stages={result.stages} is not a number from 0 to spec.stages={env.spec.stages}",
    )
    _need(result.stages >= last.stages, f"stages went back from {last.stages} to {result.stages}")
    _check_counters(env.spec.counters, result.counters, last.counters)
    _need(
        not result.success or result.stages == env.spec.stages,
        "success came before all stages were done",
    )
    late = (
        f"the episode goes on after spec.horizon={env.spec.horizon} control steps: truncated never "
        "became True"
    )
    _need(steps + 1 < env.spec.horizon or result.terminated or result.truncated, late)
    early = f"truncated after {steps + 1} control steps, but spec.horizon={env.spec.horizon}"
    _need(not result.truncated or steps + 1 >= env.spec.horizon, early)
    return result


def _check_counters(names: tuple[str, ...], now: tuple[int, ...], last: tuple[int, ...]) -> None:
    _need(
        isinstance(now, tuple) and len(now) == len(names),
        f"counters={now} must be a tuple with one count for each of spec.counters={names}",
    )
    for name, count, before in zip(names, now, last, strict=True):
        _need(
            isinstance(count, int) and count >= 0,
            f"the counter {name!r} is {count!r}: counts must be ints >= 0",
        )
        _need(count >= before, f"{name} went back from {before} to {count}")
    if set(attempts.COUNTERS) <= set(names):
        places = [names.index(name) for name in attempts.COUNTERS]
        fault = attempts.impossible([last[i] for i in places], [now[i] for i in places])
        _need(not fault, fault)


def _nothing_yet(spec: EnvSpec) -> StepResult:
    """As if from a step before the first: nothing is done and nothing counted."""
    none = (0,) * len(spec.counters)
    return StepResult(success=False, terminated=False, truncated=False, stages=0, counters=none)


def _trace(env: Env, seed: int, scale: float = 1.0, length: int = 8) -> list[np.ndarray]:
    """What is seen in the first steps after reset(seed),
    under actions that depend on `seed` only.
    """
    rng = np.random.default_rng(seed)
    low, high = env.spec.bounds
    env.reset(seed)
    seen = [_check_frame(env), _check_proprio(env)]
    result = _nothing_yet(env.spec)
    for step in range(min(length, env.spec.horizon)):
        corner = scale * rng.choice([-1.0, 1.0], env.spec.action_dim)
        action = ((low + high) / 2 + corner * (high - low) / 2).astype(np.float32)
        result = _step(env, action, step, result)
        counts = np.array([result.stages, *result.counters])
        seen += [_check_frame(env), _check_proprio(env), counts]
        if result.terminated or result.truncated:
            break
    return seen


def _same(one: list[np.ndarray], two: list[np.ndarray]) -> bool:
    return len(one) == len(two) and all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


def _check_reset(env: Env) -> None:
    first = _trace(env, _SEEDS[0])
    # beyond a suite's round: tasks may share their scenes
    other = _trace(env, _SEEDS[1] + len(env.spec.turns))
    again = _trace(env, _SEEDS[0])
    _need(
        all(np.array_equal(a, b) for a, b in zip(first[:2], again[:2], strict=True)),
        "reset(seed) is not reproducible: the same seed gave another first frame or proprioception",
    )
    _need(
        _same(first, again),
        "the same seed and the same actions led elsewhere: something survives reset()",
    )
    _need(
        not _same(first[:2], other[:2]),
        "two different seeds gave the same start: reset() ignores its seed",
    )
    env.reset(_SEEDS[0])
    frame = env.render()
    state = env.proprio()
    kept = frame.copy(), state.copy()
    _need(
        np.array_equal(env.render(), kept[0]) and np.array_equal(env.proprio(), kept[1]),
        (
            "looking twice without a step shows different things: render() or proprio() changes "
            "the state"
        ),
    )
    env.step(env.spec.bounds[1])
    env.render(), env.proprio()
    _need(
        np.array_equal(frame, kept[0]) and np.array_equal(state, kept[1]),
        "an array that was handed out changed later: render() and proprio() must return copies",
    )


def _check_clipping(env: Env) -> None:
    inside = _trace(env, _SEEDS[0], 1.0)
    outside = _trace(env, _SEEDS[0], 5.0)
    _need(
        _same(inside, outside),
        "actions beyond the bounds are not clipped: five times the bounds acted differently",
    )


def _check_clock(env: Env, limit: int) -> None:
    env.reset(_SEEDS[0])
    nothing = sum(env.spec.bounds) / 2
    result = _nothing_yet(env.spec)
    for step in range(min(env.spec.horizon, limit)):
        result = _step(env, nothing, step, result)
        if result.terminated or result.truncated:
            return


def _check_expert(env: Env) -> None:
    env.reset(_SEEDS[0])
    expert = env.expert()
    result = _nothing_yet(env.spec)
    for step in range(env.spec.horizon):
        action = expert.action()
        good = (
            isinstance(action, np.ndarray)
            and action.dtype == np.float32
            and action.shape == (env.spec.action_dim,)
        )
        _need(
            good, f"the expert's action must be a float32 array of shape ({env.spec.action_dim},)"
        )
        inside = np.isfinite(action).all() and np.array_equal(env.spec.clip(action), action)
        _need(bool(inside), "the expert's action is outside the bounds")
        result = _step(env, action, step, result)
        if result.terminated or result.truncated:
            break
    _need(result.success, "the expert does not solve its own environment within the horizon")
