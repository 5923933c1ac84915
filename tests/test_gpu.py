"""What only a machine with a GPU can show:
the online loop there, and log-probabilities as on the CPU.
"""

import pytest
import torch

from tests.support import tiny
from wamrl.online.state import TrainingState
from wamrl.rewards.reward import RewardConfig
from wamrl.rl.grpo import GRPOConfig
from wamrl.train import iterate

PPO = tiny.CONFIG.train.learner
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize("mode", ["success", "composite", "paper"])
@pytest.mark.parametrize("learner", [PPO, GRPOConfig(epochs=2, batch=16)], ids=["ppo", "grpo"])
def test_an_iteration_on_the_gpu(mode, learner):
    cfg = tiny.train_config(reward=RewardConfig(mode=mode), learner=learner)
    wam = tiny.lively().to("cuda")
    with cfg.build_pool() as pool:
        state = TrainingState(cfg, wam, tiny.demos(), pool.spec.horizon)
        found = [iterate(state, pool)[0] for _ in range(2)]
    assert all(p.isfinite().all() for p in wam.parameters())
    assert found[-1]["rollout/episodes"] > 0 and "world/video_loss" in found[-1]


def test_the_same_log_probabilities_as_on_the_cpu():
    with tiny.CONFIG.build_pool() as pool:
        rollout = tiny.explore(tiny.lively(), pool, 8)
    chunks = rollout.decisions
    wam = tiny.lively().to("cuda")
    with torch.no_grad():
        plan = wam.with_features(chunks.plan.drop_features().to("cuda"), chunks.obs.to("cuda"))
        there = wam.log_prob(plan, tiny.CONFIG.flow).cpu()
    assert (there - chunks.plan.chain_log_prob).abs().max() < 1e-2
