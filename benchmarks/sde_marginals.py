"""Where each sampler ends on a 1-D Gaussian, with the exact velocity: `python benchmarks/sde_marginals.py`."""

from __future__ import annotations

import torch

from wamrl.models.flow import FlowConfig, noisy_steps, ode_sample, sde_sample, time_grid

STD, STEPS, SAMPLES, NOISE = 0.30, 50, 100_000, 0.5


def velocity(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """E[eps - x0 | x_s] for data N(0, STD^2)."""
    s = sigma.view(-1, 1, 1)
    return x * (s - (1 - s) * STD**2) / ((1 - s) ** 2 * STD**2 + s**2)


def main() -> None:
    start = torch.randn(SAMPLES, 1, 1, generator=torch.Generator().manual_seed(0))
    print(f"{STEPS} steps, noise {NOISE}, {SAMPLES} samples; data std {STD}")
    print(f"  ode       {ode_sample(velocity, start, time_grid(STEPS)).std():.3f}")
    for sde in ("marginal", "plain"):
        cfg = FlowConfig(steps=STEPS, noise=NOISE, sde=sde, noisy="all")
        eps = torch.randn(SAMPLES, STEPS, 1, 1, generator=torch.Generator().manual_seed(1))
        end, _ = sde_sample(velocity, start, cfg, noisy_steps(cfg, SAMPLES, None), eps)
        print(f"  {sde:<9} {end.std():.3f}")


if __name__ == "__main__":
    main()
