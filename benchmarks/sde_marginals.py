"""Where each sampler ends on 1-D Gaussian data, with the exact velocity, at K steps.

Prints the table of docs/all-of-wamrl.md, section 4: `python benchmarks/sde_marginals.py`.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from wamrl.models.flow import FlowConfig, noisy_steps, ode_sample, sde_sample, time_grid

STD, SAMPLES = 0.30, 100_000
STEPS = (1, 2, 4, 10, 50)
PRESERVING = FlowConfig(sde="preserving", noisy="all_but_last")
ROWS = (
    ("ODE", None),
    ("one random noisy step, a = 0.5", FlowConfig(noisy="one", noise=0.5)),
    ("all noisy, a = 0.5", FlowConfig(noisy="all", noise=0.5)),
    ("all noisy, a = 1.0", FlowConfig(noisy="all", noise=1.0)),
    ("preserving, all but the last, a = 0.5", replace(PRESERVING, noise=0.5)),
    ("preserving, all but the last, a = 1.0", replace(PRESERVING, noise=1.0)),
    ("plain (paper's eq. 3), all noisy, a = 0.5", FlowConfig(sde="plain", noisy="all", noise=0.5)),
)


def velocity(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """E[eps - x0 | x_s] for data N(0, STD^2); x (B, 1, 1), sigma (B,)."""
    s = sigma.view(-1, 1, 1)
    return x * (s - (1 - s) * STD**2) / ((1 - s) ** 2 * STD**2 + s**2)


def end_std(cfg: FlowConfig | None, steps: int) -> float | None:
    """Std of the chunks after `steps` steps; cfg None: the ODE.
    None where the step does not exist.
    """
    start = torch.randn(SAMPLES, 1, 1, generator=torch.Generator().manual_seed(0))
    if cfg is None:
        return ode_sample(velocity, start, time_grid(steps)).std().item()
    if steps == 1 and cfg.noisy == "all_but_last":
        return None
    cfg = replace(cfg, steps=steps)
    cfg.validate()
    generator = torch.Generator().manual_seed(1)
    noisy = noisy_steps(cfg, SAMPLES, generator)
    eps = torch.randn(SAMPLES, noisy.shape[1], 1, 1, generator=generator)
    return sde_sample(velocity, start, cfg, noisy, eps)[0].std().item()


def main() -> None:
    print(f"data std {STD}, exact velocity, {SAMPLES} samples: std at the end of K steps\n")
    print("| sampler | " + " | ".join(f"K = {steps}" for steps in STEPS) + " |")
    print("|---|" + "---|" * len(STEPS))
    for name, cfg in ROWS:
        ends = [end_std(cfg, steps) for steps in STEPS]
        cells = ["-" if end is None else f"{end:.3f}" for end in ends]
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
