"""Log-probability of a denoising chain: all K steps in one batch,
or one by one; and the step maths apart.

1. Forward + backward through the nano actor. Peer: a loop over the steps, as in RLinf and ReinFlow;
   it shares the embedded features between the steps, as ours does.
2. `sde_step` for a batch in which every sample is at another step. Peer: what flow_grpo's
   `sde_step_with_logprob` does on diffusers' scheduler, written anew: a Python loop looks up each
   sample's step by its timestep in the schedule.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from benchmarks.models import build, clips, gradients, near, plan_of
from benchmarks.side_by_side import finish, interleave, options, row
from wamrl.models.flow import FlowConfig, sde_step, time_grid
from wamrl.models.wam import WAM, ActionChunk

FLOW = FlowConfig(steps=4, noisy="all")  # K = 4 transitions per chunk


def one_by_one(wam: WAM, plan: ActionChunk) -> Tensor:
    """Elementwise log-density (B, K, N, A), one velocity per step."""
    grid, condition, parts = (
        time_grid(FLOW.steps),
        wam.actor.condition(plan.features, plan.proprio),
        [],
    )
    for j in range(plan.chain_step.shape[1]):
        x, step = plan.chain_x[:, j], plan.chain_step[:, j]
        v = wam.actor.velocity(x, grid[step], condition)
        parts.append(sde_step(x, v, step, grid, FLOW.noise, x_next=plan.chain_x_next[:, j])[1])
    return torch.stack(parts, 1)


def chain(wam: WAM, batch: int, rounds: int) -> dict:
    plan, found = plan_of(wam, clips(wam, batch).obs, FLOW), {}

    def side(log_prob) -> None:
        wam.actor.zero_grad()
        value = log_prob()
        value.sum((1, 2, 3)).mean().backward()
        found["value"] = value.detach()

    sides = {
        "ours": lambda: side(lambda: wam.log_prob(plan, FLOW)),
        "peer": lambda: side(lambda: one_by_one(wam, plan)),
    }
    results = []
    for run in sides.values():
        run()
        results.append((found["value"], gradients(wam.actor)))
    near(results[0][0], results[1][0], 1e-6)
    near(results[0][1], results[1][1], 1e-5)
    seconds = interleave(sides, rounds, warmup=3)
    return row(f"log-probability, batch {batch}", seconds["ours"], seconds["peer"])


def looked_up(
    v: Tensor,
    timestep: Tensor,
    x: Tensor,
    x_next: Tensor,
    sigmas: Tensor,
    timesteps: Tensor,
    noise: float,
) -> Tensor:
    """What flow_grpo does: log-density per sample (B,), mean over its elements;
    one look-up per sample.
    """
    index = []
    for t in timestep:  # diffusers' index_for_timestep
        hits = (timesteps == t).nonzero()
        index.append(hits[1 if len(hits) > 1 else 0].item())
    shape = (-1, *[1] * (x.dim() - 1))
    sigma, after = sigmas[index].view(shape), sigmas[[i + 1 for i in index]].view(shape)
    highest, dt = sigmas[1].item(), after - sigma
    std = torch.sqrt(sigma / (1 - torch.where(sigma == 1, highest, sigma))) * noise
    mean = x * (1 + std**2 / (2 * sigma) * dt) + v * (1 + std**2 * (1 - sigma) / (2 * sigma)) * dt
    spread = std * torch.sqrt(-dt)
    log_prob = (
        -((x_next - mean) ** 2) / (2 * spread**2)
        - torch.log(spread)
        - math.log(math.sqrt(2 * math.pi))
    )
    return log_prob.mean((1, 2))


def maths(batch: int, steps: int, rounds: int) -> dict:
    g = torch.Generator().manual_seed(0)
    x, v, eps = torch.randn(3, batch, 12, 4, generator=g)
    step, grid = torch.randint(steps, (batch,), generator=g), time_grid(steps)
    timesteps = grid[:-1] * 1000
    x_next = sde_step(x, v, step, grid, 0.7, eps=eps)[0]
    sides = {
        "ours": lambda: sde_step(x, v, step, grid, 0.7, x_next=x_next)[1].mean((1, 2)),
        "peer": lambda: looked_up(v, timesteps[step], x, x_next, grid, timesteps, 0.7),
    }
    near(sides["ours"](), sides["peer"](), 1e-6)
    many = {name: lambda f=f: [f() for _ in range(10)] for name, f in sides.items()}
    seconds = interleave(many, rounds, warmup=3)
    return row(
        f"step maths, batch {batch}, {steps} steps",
        seconds["ours"],
        seconds["peer"],
        scale=1e5,
        unit="us",
    )


if __name__ == "__main__":
    o = options()
    torch.set_num_threads(min(2, torch.get_num_threads()))
    wam = build()
    rows = [chain(wam, batch, 5 if o.quick else 60) for batch in (1, 2, 4, 32)]
    rows += [maths(batch, 10, 3 if o.quick else 40) for batch in (1, 8, 32, 256)]
    finish("folded_steps", rows, o)
