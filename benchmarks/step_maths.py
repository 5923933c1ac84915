"""One stochastic denoising step of samples that are at different steps: vectorised, against a loop over the samples.

The loop is the way of schedulers made for images (flow_grpo's `sde_step_with_logprob`): the time of every sample is
looked up in the scheduler's table by a search, its coefficients are scalars, its Gaussian log-density is written out;
results are stacked. Written here from its description, without their code. Both are within 1e-5 of float64.
"""

from __future__ import annotations

import math

import torch
from side_by_side import report, row
from torch import Tensor

from wamrl.models.flow import sde_step, time_grid

NOISE, STEPS, CHUNK, DIM = 0.5, 8, 12, 4


def looped(x: Tensor, v: Tensor, sigma: Tensor, grid: Tensor, x_next: Tensor) -> Tensor:
    out = []
    for i in range(len(x)):
        at = (grid == sigma[i]).nonzero().item()  # the scheduler's index_for_timestep
        s, s_next = grid[at], grid[at + 1]
        d = s - s_next
        g2 = NOISE**2 * s / (1 - (grid[1] if at == 0 else s))
        x0, x1 = x[i] - s * v[i], x[i] + (1 - s) * v[i]
        mean = x0 * (1 - s_next) + x1 * (s_next - g2 * d / (2 * s))
        std = (g2 * d).sqrt()
        density = -((x_next[i] - mean) ** 2) / (2 * std**2) - std.log() - math.log(math.sqrt(2 * math.pi))
        out.append(density)
    return torch.stack(out)


def main() -> None:
    torch.set_num_threads(1)
    rows, grid = [], time_grid(STEPS)
    for batch in (32, 512):
        g = torch.Generator().manual_seed(0)
        x, v, noise = torch.randn(3, batch, CHUNK, DIM, generator=g)
        step = torch.randint(0, STEPS, (batch,), generator=g)
        x_next = sde_step(x, v, step, grid, NOISE, eps=noise)[0]

        def ours(x=x, v=v, step=step, x_next=x_next) -> Tensor:
            return sde_step(x, v, step, grid, NOISE, x_next=x_next)[1]

        def peer(x=x, v=v, sigma=grid[step], x_next=x_next) -> Tensor:
            return looped(x, v, sigma, grid, x_next)

        exact = looped(*(t.double() for t in (x, v, grid[step], grid, x_next)))
        off = [((side() - exact).abs() / (1 + exact.abs())).max().item() for side in (ours, peer)]
        assert max(off) < 1e-5, f"relative errors against float64: {off}"
        rows.append(row(f"batch {batch}", ours=ours, peer=peer, target=10.0, rounds=15))
    report("step_maths", rows)


if __name__ == "__main__":
    main()
