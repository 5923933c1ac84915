"""One epoch of the actor update: on features cached in the rollout,
or recomputed from the observations.

Both sides need the features once, to act; the question is what every further epoch costs. Same
model, same minibatches, same loss; the peer encodes the observations without a gradient, since the
world model is not trained by this loss.
"""

from __future__ import annotations

import torch

from benchmarks.models import BASE, NANO, build, clips, gradients, near, plan_of
from benchmarks.side_by_side import finish, interleave, options, row
from wamrl.models.flow import FlowConfig
from wamrl.models.wam import WAM, ActionChunk
from wamrl.models.wam_config import WAMConfig
from wamrl.rl.policy import chunk_log_prob, policy_loss
from wamrl.rl.ppo import PPOConfig
from wamrl.types import Obs

CONFIG = PPOConfig()


def epoch(
    wam: WAM, obs: Obs, plan: ActionChunk, flow: FlowConfig, batch: int, recompute: bool
) -> None:
    """Gradients of the policy loss, accumulated over all minibatches."""
    wam.actor.zero_grad()
    advantage = torch.linspace(-1, 1, len(plan))
    mask = torch.ones(plan.actions.shape[:2], dtype=torch.bool)
    for rows in torch.arange(len(plan)).split(batch):
        part = plan[rows]
        if recompute:
            part = wam.with_features(part.drop_features(), obs[rows])
        new, old = wam.log_prob(part, flow), part.chain_log_prob
        log_ratio = chunk_log_prob(new, mask[rows]) - chunk_log_prob(old, mask[rows])
        policy_loss(log_ratio, advantage[rows], CONFIG).mean().backward()


def measure(name: str, config: WAMConfig, noisy: str, size: int, batch: int, rounds: int) -> dict:
    wam, flow = build(config), FlowConfig(noisy=noisy)
    obs = clips(wam, size).obs
    plan = plan_of(wam, obs, flow)
    sides = {
        "ours": lambda: epoch(wam, obs, plan, flow, batch, recompute=False),
        "peer": lambda: epoch(wam, obs, plan, flow, batch, recompute=True),
    }
    found = []
    for run in sides.values():
        run()
        found.append(gradients(wam.actor))
    near(found[0], found[1], 1e-5)
    seconds = interleave(sides, rounds)
    cached = plan.features.nbytes
    note = (
        f"{size} chunks, {cached / 1e6:.0f} MB of features ({cached / size / 1e3:.0f} kB a chunk)"
    )
    what = f"update epoch, {name}, {'one noisy step' if noisy == 'one' else 'all steps noisy'}"
    return row(what, seconds["ours"], seconds["peer"], note=note)


if __name__ == "__main__":
    o = options()
    size, batch, rounds = (8, 8, 2) if o.quick else (256, 128, 8)
    rows = [measure("nano", NANO, noisy, size, batch, rounds) for noisy in ("one", "all")]
    rows.append(measure("768 x 12", BASE, "one", size // 4, batch // 4, max(2, rounds // 2)))
    finish("update", rows, o)
