"""The verb `check`: do the recipe's parts keep their contracts?"""

from __future__ import annotations

from wamrl.envs.base import Env
from wamrl.envs.check import check_env
from wamrl.models.check import check_wam
from wamrl.rewards.check import check_reward
from wamrl.runs.folder import require_playable
from wamrl.runs.options import Options
from wamrl.runs.phases import fresh_model
from wamrl.runtime.log import console


def check(o: Options) -> None:
    """The contract of the recipe's environment, model and reward."""
    cfg = o.config
    require_playable(cfg)
    env = cfg.env.build()
    try:
        check_env(env)
        console.print(f"environment {env.spec.name}: ok", markup=False)
        for line in facts(env):
            console.print(f"  {line}", markup=False)
    finally:
        env.close()
    check_wam(fresh_model(cfg))
    console.print("model: ok")
    frames = (2, max(2, len(cfg.model.frame_offsets)), len(env.spec.views), *env.spec.image_hw)
    check_reward(cfg.train.reward.similarity, shape=frames)
    console.print("reward: ok")


def facts(env: Env) -> list[str]:
    """What a user should read before a run is begun, a line each."""
    spec = env.spec
    low, high = spec.bounds
    bounds = ", ".join(f"{a:g}..{b:g}" for a, b in zip(low, high, strict=True))
    high_px, wide_px = spec.image_hw
    return [
        f"told: {spec.instruction!r}",
        f"views: {', '.join(spec.views)}, {high_px} x {wide_px} pixels",
        f"state: {spec.proprio_dim} dimensions",
        f"actions: {spec.action_dim} dimensions, {bounds}",
        f"horizon: {spec.horizon} control steps; sub-goals: {spec.stages}",
        *env.describe(),
    ]
