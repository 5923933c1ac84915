"""One demonstration after the other in a worker process. No torch here: the workers import this file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from wamrl.envs.base import Env, EnvConfig

_NOISE_STREAM = 0x0DEE  # keeps the noise apart from whatever the environment draws from the same seed
_built: list[Env] = []  # one environment per worker process, which serves one config, built by its first episode


def record_here(config: EnvConfig, seed: int, noise: float) -> dict:
    """`record` with this process's environment."""
    os.environ.setdefault("MUJOCO_GL", "egl")
    if not _built:
        _built.append(config.build())
    return record(_built[0], seed, noise)


def record(env: Env, seed: int, noise: float) -> dict:
    """The fields of an `Episode`: the expert acts, Gaussian noise of std `noise` (in half-ranges of the
    action bounds) disturbs what is executed (DART).

    The label stays what the expert meant in the state where it was. A function of (environment, seed, noise) alone.
    """
    env.reset(seed)
    expert, rng = env.expert(), np.random.default_rng([seed, _NOISE_STREAM])
    low, high = env.spec.bounds
    scale = noise * (high - low) / 2
    frames, proprio, labels, executed = [env.render()], [env.proprio()], [], []
    success, end = False, False
    while not end:
        labels.append(np.asarray(expert.action(), np.float32))
        executed.append(env.spec.clip(labels[-1] + scale * rng.standard_normal(env.spec.action_dim)))
        result = env.step(executed[-1])
        frames.append(env.render())
        proprio.append(env.proprio())
        success |= result.success
        end = result.terminated or result.truncated
    columns = {"frames": frames, "proprio": proprio, "actions": labels, "executed": executed}
    facts = {"success": bool(success), "stages": int(result.stages), "seed": seed, "text": env.spec.instruction}
    return {name: np.stack(rows) for name, rows in columns.items()} | facts
