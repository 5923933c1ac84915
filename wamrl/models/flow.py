"""Flow matching and Flow-SDE: the only time grid, and one function that samples and scores.

Noise level sigma: 1 = noise, 0 = data (the paper's t is 1 - sigma).
    x_s = (1 - s) x + s eps        v = eps - x        Euler: x <- x + (s_next - s) v

The paper's eq. 3 adds noise to the ODE without correcting the drift (`sde="plain"`), which inflates
the action distribution. The default keeps every marginal of the ODE as K grows (Flow-GRPO, arXiv
2505.05470; piRL, arXiv 2510.25889); at the K in use some of its noise stays in the actions, and
that is what explores (docs/all-of-wamrl.md). Everything here is float32, whatever autocast says: a
log-probability in bf16 is not one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor

from wamrl.models import chunk_noise
from wamrl.runtime.ranges import Steps, check_ranges
from wamrl.types import Batch

Velocity = Callable[[Tensor, Tensor], Tensor]  # (x (B, ...), sigma (B,)) -> v (B, ...)


@dataclass(frozen=True, kw_only=True)
class FlowConfig:
    """How an action chunk is denoised, and where noise is injected while exploring."""

    steps: Steps = 4  # K
    shift: Annotated[float, Gt(0), Le(100)] = 1.0  # > 1 spends more steps near pure noise
    # a, the exploration noise level, in the first iteration
    noise: Annotated[float, Ge(0), Le(10)] = 0.5
    # in the last iteration, geometric in between; None: constant
    noise_end: Annotated[float, Gt(0), Le(10)] | None = None
    # phi, between the noise of successive actions of a chunk; 0: every action has its own
    correlation: Annotated[float, Ge(0), Lt(1)] = 0.0
    sde: Literal["marginal", "preserving", "plain"] = "marginal"
    noisy: Literal["one", "all", "all_but_last"] = "all"  # "one": a random step (piRL's hybrid)
    start: Literal["noise", "zero"] = "noise"  # what exploration starts from: a draw, or x = 0
    deploy: Literal["auto", "explore", "ode", "zero"] = "auto"  # auto: chosen on training states

    def at(self, progress: float) -> FlowConfig:
        """The configuration at `progress` in [0, 1] of the run.

        Its noise is noise (noise_end / noise)^progress.
        """
        if self.noise_end is None:
            return self
        return replace(self, noise=self.noise * (self.noise_end / self.noise) ** progress)

    def validate(self) -> None:
        """Raise ValueError with one sentence that says what to do."""
        check_ranges(self, "flow")
        if self.noise == 0:
            raise ValueError(
                "flow.noise=0: without noise a chunk has no likelihood and the gradient is "
                "silently zero; set flow.noise > 0 (0.2 to 0.8 is usual)"
            )
        if self.sde == "preserving" and (self.noise > 1 or self.noisy != "all_but_last"):
            raise ValueError(
                "flow: sde='preserving' needs noise <= 1 and noisy='all_but_last': its last step "
                "has no noise"
            )
        if self.sde == "preserving" and self.correlation:
            raise ValueError(
                "flow: sde='preserving' puts noise in the place of noise that is not correlated; "
                "use correlation=0 or sde='marginal'"
            )
        if self.noisy == "all_but_last" and self.steps < 2:
            raise ValueError(
                "noisy='all_but_last' leaves no noisy step at steps=1; use steps >= 2 or "
                "noisy='all'"
            )


def time_grid(steps: int, shift: float = 1.0) -> Tensor:
    """Noise levels 1 = s_0 > ... > s_K = 0, float32 (K+1,).

    s = shift u / (1 + (shift - 1) u) with uniform u.
    """
    u = torch.linspace(1.0, 0.0, steps + 1, dtype=torch.float64)
    return (shift * u / (1 + (shift - 1) * u)).float()


def time_grid_down_to(sigma: float, steps: int) -> Tensor:
    """Noise levels 1 = s_0 > ... > s_K = sigma, uniform, float32 (K+1,)."""
    return 1 - (1 - sigma) * (1 - time_grid(steps))


def interpolate(x: Tensor, eps: Tensor, sigma: Tensor) -> Tensor:
    """x_s = (1 - s) x + s eps, with sigma (B,) broadcast over the trailing dims of x (B, ...)."""
    s = expand(sigma, x)
    return (1 - s) * x + s * eps


def draws(
    seeds: Tensor, uniform: int, shape: tuple[int, ...], device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Uniform (B, uniform) and standard normal (B, *shape) numbers, row b from its seed alone.

    seeds: int64 (B,). So a sample's noise does not depend on which others share its batch, or on
    which rank it is. The uniform ones are on the CPU. The normal ones are many: for a GPU they are
    made there, and are other numbers than on a CPU.
    """
    rows = []
    there = torch.device(device).type == "cuda"
    for seed in seeds.tolist():
        g = torch.Generator().manual_seed(seed)
        few = torch.rand(uniform, generator=g)
        g = torch.Generator(device).manual_seed(seed) if there else g
        rows.append((few, torch.randn(shape, generator=g, device=g.device)))
    if not rows:
        return torch.zeros(0, uniform), torch.zeros(0, *shape, device=device)
    few, many = (torch.stack(column) for column in zip(*rows, strict=True))
    return few, many.to(device)


def expand(values: Tensor, like: Tensor) -> Tensor:
    """(B,) -> (B, 1, ..., 1) with as many dims as `like`."""
    return values.view(-1, *[1] * (like.dim() - 1))


def sde_coefficients(step: Tensor, grid: Tensor, noise: float, sde: str) -> Tensor:
    """What makes the next state, ~ N(c_x x + c_v v, std^2), of denoising step `step` (B,) int64.

    Returns (6, B): c_x, c_v, std, the log-density at the mean, -log(std sqrt(2 pi)), and r_x and
    r_v: what the corrected drift removes of x1 is r_x x + r_v v, and part of the mean.
    With s = s_i, d = s_i - s_{i+1}, s' = s_1 if s_i = 1 else s_i, g = a sqrt(s / (1 - s')):
        x0 = x - s v;  x1 = x + (1 - s) v;
        mean = x0 (1 - (s - d)) + x1 (s - d - g^2 d / (2 s));  std = g sqrt(d)
        r_x x + r_v v = x1 g^2 d / (2 s)
    `preserving` (Flow-CPS, arXiv 2509.05952) keeps the share of noise in x exactly, at any
    K: with s_n = s - d,
        mean = x0 (1 - s_n) + x1 s_n cos(a pi / 2);  std = s_n sin(a pi / 2)
    """
    return _coefficients(tuple(grid.tolist()), noise, sde, step.device).index_select(1, step)


@lru_cache
def _coefficients(
    levels: tuple[float, ...], noise: float, sde: str, device: torch.device
) -> Tensor:
    """Those of all steps, (6, K).

    Worked out once, since most of the time of so little arithmetic is calling it.
    """
    grid = torch.tensor(levels)
    s = grid[:-1]
    s_next = grid[1:]
    d = s - s_next
    removed = torch.zeros_like(s)
    if sde == "plain":  # the paper's eq. 3, literally
        c_x = torch.ones_like(s)
        c_v = -d
        std = noise * d.sqrt()
    elif sde == "preserving":  # x_{s'} = (1 - s') x0 + s' (cos(a pi/2) x1 + sin(a pi/2) eps)
        kept = s_next * math.cos(noise * math.pi / 2)
        c_x = 1 - s_next + kept
        c_v = -s * (1 - s_next) + (1 - s) * kept
        std = s_next * math.sin(noise * math.pi / 2)
    else:
        s_safe = torch.cat([grid[1:2], s[1:]])
        g2 = noise**2 * s / (1 - s_safe)
        w0 = 1 - s_next
        removed = g2 * d / (2 * s)
        w1 = s_next - removed
        c_x = w0 + w1
        c_v = -s * w0 + (1 - s) * w1
        std = (g2 * d).sqrt()
    at_mean = -std.log() - 0.5 * math.log(2 * math.pi)
    return torch.stack([c_x, c_v, std, at_mean, removed, (1 - s) * removed]).to(device)


def sde_step(
    x: Tensor,
    v: Tensor,
    step: Tensor,
    grid: Tensor,
    noise: float,
    *,
    sde: str = "marginal",
    correlation: float = 0.0,
    x_next: Tensor | None = None,
    eps: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """One stochastic denoising step: it samples where `x_next` is None, and scores otherwise.

    eps: standard normal, what is sampled with; None: drawn from torch's global random state.
    x, v, x_next, eps: float32 (B, ...), with `correlation` (B, N, A); step: int64 (B,). Returns
    x_next and its elementwise log-density in nats, both of the shape of x; the caller sums over the
    executed actions and the real action dims.

    correlation: phi of the noise along the N actions of a chunk (`chunk_noise`), with covariance C;
    an element's log-density is then that given the actions before it. The corrected drift removes
    C x1 where it would remove x1, as much in each direction as fresh noise is added there.
    """
    x = x.float()
    v = v.float()
    table = sde_coefficients(step, grid, noise, sde)
    c_x, c_v, std, at_mean, r_x, r_v = (expand(row, x) for row in table)
    mean = torch.addcmul(c_x * x, c_v, v)
    if correlation:
        removed = torch.addcmul(r_x * x, r_v, v)
        mean = mean + removed - chunk_noise.covary(removed, correlation)
    if x_next is None:
        eps = torch.randn_like(x) if eps is None else eps
        x_next = mean + std * (chunk_noise.colour(eps, correlation) if correlation else eps)
    z = (x_next - mean) / std
    if correlation:
        z, change = chunk_noise.whiten(z, correlation)
        at_mean = at_mean + change
    return x_next, torch.addcmul(at_mean, z, z, value=-0.5)


def euler(velocity: Callable[[Tensor, float], Tensor], x: Tensor, grid: Tensor) -> Tensor:
    """Integration of x (B, ...) from grid[0] down to grid[-1], the noise level a number."""
    for s, s_next in zip(grid[:-1].tolist(), grid[1:].tolist(), strict=True):
        x = x + (s_next - s) * velocity(x, s).float()
    return x


def ode_sample(velocity: Velocity, x: Tensor, grid: Tensor) -> Tensor:
    """`euler` where the velocity wants a noise level per row."""
    return euler(lambda x, s: velocity(x, x.new_full((len(x),), s)), x, grid)


@dataclass(frozen=True, kw_only=True)
class Chain(Batch):
    """The noisy transitions of a batch of sampled chunks.

    J of them per chunk: 1 for `noisy="one"`, up to K otherwise.
    """

    x: Tensor  # float32 (B, J, N, A) before the step
    x_next: Tensor  # float32 (B, J, N, A) after it, not clipped
    step: Tensor  # int64 (B, J)
    log_prob: Tensor  # float32 (B, J, N, A) elementwise, at sampling time


def noisy_steps(cfg: FlowConfig, batch: int, generator: torch.Generator | None) -> Tensor:
    """Which steps get noise: int64 (B, J), ascending."""
    if cfg.noisy == "one":
        return torch.randint(cfg.steps, (batch, 1), generator=generator)
    last = cfg.steps - (cfg.noisy == "all_but_last")
    return torch.arange(last).expand(batch, last)


def sde_sample(
    velocity: Velocity, x: Tensor, cfg: FlowConfig, noisy: Tensor, eps: Tensor
) -> tuple[Tensor, Chain]:
    """Denoise x (B, N, A) from pure noise, by stochastic steps `noisy` (B, J) and ODE steps.

    eps: standard normal (B, J, N, A). Returns the chunk (B, N, A), unclipped, and its Chain.
    """
    grid = time_grid(cfg.steps, cfg.shift)
    noisy = noisy.to(x.device)
    row = torch.arange(len(x), device=x.device)
    # x, x_next, log_prob of every noisy transition
    table = x.new_zeros(*noisy.shape, 3, *x.shape[1:])
    for i in range(cfg.steps):  # never asks for a value, so that a GPU need not be waited for
        v = velocity(x, x.new_full((len(x),), float(grid[i]))).float()
        hit = (noisy == i).any(1)
        slot = (noisy == i).int().argmax(1)
        options = {"sde": cfg.sde, "correlation": cfg.correlation, "eps": eps[row, slot]}
        x_noisy, log_prob = sde_step(x, v, torch.full_like(row, i), grid, cfg.noise, **options)
        new = torch.stack([x, x_noisy, log_prob], 1)
        table[row, slot] = torch.where(expand(hit, new), new, table[row, slot])
        x = torch.where(expand(hit, x), x_noisy, x + float(grid[i + 1] - grid[i]) * v)
    return x, Chain(x=table[:, :, 0], x_next=table[:, :, 1], step=noisy, log_prob=table[:, :, 2])


def chain_log_prob(velocity: Velocity, chain: Chain, cfg: FlowConfig) -> Tensor:
    """Elementwise log-density of the stored transitions under `velocity`, float32 (B, J, N, A).

    The J transitions are folded into the batch: `velocity` gets (B * J, N, A) and must repeat its
    conditions J times.
    """
    b, j = chain.step.shape
    x = chain.x.flatten(0, 1)
    x_next = chain.x_next.flatten(0, 1)
    step = chain.step.flatten()
    grid = time_grid(cfg.steps, cfg.shift)
    v = velocity(x, grid.to(x.device)[step])
    options = {"sde": cfg.sde, "correlation": cfg.correlation}
    _, log_prob = sde_step(x, v, step, grid, cfg.noise, x_next=x_next, **options)
    return log_prob.unflatten(0, (b, j))


def without_noise(velocity: Velocity, chain: Chain, cfg: FlowConfig) -> Tensor:
    """The ODE from the initial draws of sampled chunks: float32 (B, N, A), normalised, unclipped.

    Until its first noisy transition a chain is that ODE, which goes on from the transition's x.
    ValueError if the chain has no transition: then the chunk is noise-free already.
    """
    if not chain.step.shape[1]:
        raise ValueError("a chain without noisy steps is the ODE: take the chunk as it was sampled")
    grid = time_grid(cfg.steps, cfg.shift)
    x = chain.x[:, 0]
    begun = chain.step[:, 0]
    for i in range(cfg.steps):
        v = velocity(x, x.new_full((len(x),), float(grid[i]))).float()
        x = torch.where(expand(begun <= i, x), x + float(grid[i + 1] - grid[i]) * v, x)
    return x
