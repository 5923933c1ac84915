"""The verb `check`: do the recipe's parts keep their contracts?"""

from __future__ import annotations

from wamrl.envs.check import check_env
from wamrl.models.check import check_wam
from wamrl.rewards.check import check_reward
from wamrl.runs.options import Options
from wamrl.runs.phases import fresh_model
from wamrl.runtime.log import console


def check(o: Options) -> None:
    """The contract of the recipe's environment, model and reward."""
    cfg = o.config
    env = cfg.env.build()
    try:
        check_env(env)
    finally:
        env.close()
    console.print(f"environment {env.spec.name}: ok", markup=False)
    check_wam(fresh_model(cfg))
    console.print("model: ok")
    frames = (2, max(2, len(cfg.model.frame_offsets)), len(env.spec.views), *env.spec.image_hw)
    check_reward(cfg.train.reward.similarity, shape=frames)
    console.print("reward: ok")
