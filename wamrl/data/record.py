"""One episode after the other in a worker process, every frame of it.
No torch here: the workers import this file.

    python -m wamrl.data.record PIPE_FD     started by `wamrl/data/demos.py`
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from wamrl.envs.checked import build_checked
from wamrl.runtime.processes import serve

if TYPE_CHECKING:
    from wamrl.envs.base import Env, EnvConfig

# keeps the noise apart from whatever the environment draws from the same seed
_NOISE_STREAM = 0x0DEE


class Recorder:
    """One environment, whose episodes are played one by one."""

    def build(self, config: EnvConfig) -> None:
        self._env = build_checked(config)

    def play(self, seed: int, policy: float | np.ndarray) -> dict:
        """The fields of an `Episode`, see `play`."""
        return play(self._env, seed, policy)

    def close(self) -> None:
        self._env.close()


def play(env: Env, seed: int, policy: float | np.ndarray) -> dict:
    """`record` with that noise, or `replay` of these actions."""
    return (replay if isinstance(policy, np.ndarray) else record)(env, seed, policy)


def record(env: Env, seed: int, noise: float) -> dict:
    """The fields of an `Episode`: the expert acts, Gaussian noise of std `noise` (in half-ranges of
    the action bounds) disturbs what is executed (DART).

    The label stays what the expert meant in the state where it was.
    A function of (environment, seed, noise) alone.
    """
    env.reset(seed)
    expert = env.expert()
    rng = np.random.default_rng([seed, _NOISE_STREAM])
    low, high = env.spec.bounds
    scale = noise * (high - low) / 2

    def decide(step: int) -> tuple[np.ndarray, np.ndarray]:
        label = np.asarray(expert.action(), np.float32)
        return label, env.spec.clip(label + scale * rng.standard_normal(env.spec.action_dim))

    return _play(env, seed, decide)


def perform(env: Env, seed: int, act: Callable[[Env], np.ndarray]) -> dict:
    """The fields of an `Episode` in which `act(env)` gives every action, (A,);
    what is executed is that, clipped to the bounds.
    """
    env.reset(seed)

    def decide(step: int) -> tuple[np.ndarray, np.ndarray]:
        label = np.asarray(act(env), np.float32)
        return label, env.spec.clip(label)

    return _play(env, seed, decide)


def replay(env: Env, seed: int, actions: np.ndarray) -> dict:
    """The fields of an `Episode`:
    what the actions (S, A) once led to from this start, seen at every control step.
    """
    env.reset(seed)

    def decide(step: int) -> tuple[np.ndarray, np.ndarray]:
        if step == len(actions):
            raise ValueError(
                f"{env.spec.name} does not repeat itself: the episode of seed {seed} became longer"
            )
        return (env.spec.clip(actions[step]),) * 2

    return _play(env, seed, decide)


def _play(env: Env, seed: int, decide: Callable[[int], tuple[np.ndarray, np.ndarray]]) -> dict:
    """From the present state to the episode's end;
    decide(step) gives the label and what is executed.
    """
    frames = [env.render()]
    proprio = [env.proprio()]
    labels = []
    executed = []
    success = False
    end = False
    while not end:
        for column, action in zip((labels, executed), decide(len(labels)), strict=True):
            column.append(action)
        result = env.step(executed[-1])
        frames.append(env.render())
        proprio.append(env.proprio())
        success |= result.success
        end = result.terminated or result.truncated
    columns = {"frames": frames, "proprio": proprio, "actions": labels, "executed": executed}
    facts = {
        "success": bool(success),
        "stages": int(result.stages),
        "seed": seed,
        "text": env.instruction,
    }
    return {name: np.stack(rows) for name, rows in columns.items()} | facts


if __name__ == "__main__":
    serve(Recorder())
