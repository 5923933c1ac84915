"""The actor's update on cached features against features computed again in every epoch, and folded denoising steps.

Cached: one epoch of `wam.log_prob` forward and backward on the features of the rollout. Recomputed: the same, but each
epoch runs the world model on the observations first, as frameworks do that keep observations only. Same network, same
chains; equal gradients are asserted (1e-4 of the largest).
Folded: the J = K noisy transitions of a chunk in one batch, against one pass per transition (RLinf, ReinFlow).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from side_by_side import report, row
from torch import Tensor

from wamrl.cli import find_recipe
from wamrl.config import Config
from wamrl.experiment import build_wam
from wamrl.models.base import WAM, Plan
from wamrl.models.flow import FlowConfig, sde_step, time_grid
from wamrl.types import Obs


def decided(wam: WAM, flow: FlowConfig, batch: int) -> tuple[Obs, Plan]:
    spec, g = wam.spec, torch.Generator().manual_seed(0)
    shape = (batch, len(spec.history_offsets), spec.views, *spec.image_hw, 3)
    obs = Obs(
        frames=torch.randint(0, 256, shape, dtype=torch.uint8, generator=g),
        proprio=torch.randn(batch, spec.proprio_dim, generator=g), text=("press",) * batch,
    )  # fmt: skip
    generators = [torch.Generator().manual_seed(i) for i in range(batch)]
    return obs, wam.act(obs, torch.arange(batch), flow, generators, explore=True)


def per_step_log_prob(wam: WAM, plan: Plan, flow: FlowConfig) -> Tensor:
    """The same as `wam.log_prob`, one transition after the other."""
    condition, grid, out = wam.actor.condition(plan.features, plan.proprio), time_grid(flow.steps, flow.shift), []
    for j in range(plan.chain_step.shape[1]):
        x, step = plan.chain_x[:, j], plan.chain_step[:, j]
        v = wam.actor.velocity(x, grid[step], condition)
        out.append(sde_step(x, v, step, grid, flow.noise, sde=flow.sde, x_next=plan.chain_x_next[:, j])[1])
    return torch.stack(out, 1)


def gradients(wam: WAM, log_prob: Callable[[], Tensor]) -> Tensor:
    wam.actor.zero_grad()
    log_prob().mean().backward()
    return torch.cat([p.grad.flatten() for p in wam.actor.parameters()])


def assert_same(a: Tensor, b: Tensor, tolerance: float) -> None:
    worst = ((a - b).abs().max() / b.abs().max()).item()
    assert worst < tolerance, f"the two sides differ by {worst:.1e} of the largest value"


def lively(cfg: Config) -> WAM:
    wam = build_wam(cfg).eval()
    torch.nn.init.normal_(wam.actor.head.weight, std=0.05)
    return wam


def epoch(cfg: Config, what: str, batch: int, rounds: int = 7) -> dict:
    wam = lively(cfg)
    obs, plan = decided(wam, cfg.flow, batch)

    def cached() -> Tensor:
        return gradients(wam, lambda: wam.log_prob(plan, cfg.flow))

    def recomputed() -> Tensor:
        return gradients(wam, lambda: wam.log_prob(wam.recall(plan.forget(), obs), cfg.flow))

    assert_same(cached(), recomputed(), 1e-4)
    return row(f"cached features, {what}", ours=cached, peer=recomputed, target=5.0, rounds=rounds)


def main() -> None:
    torch.set_num_threads(1)
    cfg = find_recipe("quickstart")()
    large = replace(cfg.model, world=replace(cfg.model.world, width=768, depth=12, heads=12, taps=(4, 8, 12)))
    rows = [
        epoch(replace(cfg, model=large), "world 768 x 12 (0.1 B), epoch of 8 chunks", 8, rounds=3),
        epoch(cfg, "nano, epoch of 64 chunks", 64),
    ]
    wam = lively(cfg)
    every = replace(cfg.flow, noisy="all")
    for batch in (1, 2, 4, 32):
        _, chains = decided(wam, every, batch)
        assert (per_step_log_prob(wam, chains, every) - wam.log_prob(chains, every)).abs().max() < 1e-5

        def folded(chains=chains) -> Tensor:
            return gradients(wam, lambda: wam.log_prob(chains, every))

        def stepwise(chains=chains) -> Tensor:
            return gradients(wam, lambda: per_step_log_prob(wam, chains, every))

        assert_same(folded(), stepwise(), 1e-4)
        target, what = 1.5 if batch <= 4 else 1.0, f"K = {every.steps} folded, batch {batch}"
        rows.append(row(what, ours=folded, peer=stepwise, target=target, rounds=15))
    report("update", rows)


if __name__ == "__main__":
    main()
