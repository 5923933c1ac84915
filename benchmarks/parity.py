"""Does an accelerator give a stored chain the log-probability that a CPU gives it?

The policy gradient divides probabilities of the same chain, of the update and of acting, which
may have been computed on other hardware, in another batch or precision. Every row is a largest
difference in nats, of single action dims and (`chunk`) of their sum over a chunk, which is the
log ratio that the update would see though nothing was learned. Same weights, same observations,
same chains throughout; the reference is float32 on the CPU in one batch.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from benchmarks.models import NANO, SIZE, STATE, build
from benchmarks.side_by_side import finish, options, single
from wamrl.models.flow import FlowConfig
from wamrl.models.wam import WAM, ActionChunk
from wamrl.models.wam_config import WAMConfig
from wamrl.types import Obs

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model and how its chunks are drawn."""

    name: str
    model: WAMConfig
    action_dim: int
    flow: FlowConfig


CASES = (
    Case(
        name="nano, 12 x 4, K = 4",
        model=NANO,
        action_dim=4,
        flow=FlowConfig(noise=0.5, noisy="all"),
    ),
    Case(
        name="50 x 14, K = 10",
        model=replace(NANO, chunk=50),
        action_dim=14,
        flow=FlowConfig(steps=10, noise=0.2, noisy="all"),
    ),
)


def observations(batch: int) -> Obs:
    g = torch.Generator().manual_seed(0)
    return Obs(
        frames=torch.randint(0, 256, (batch, 1, 1, SIZE, SIZE, 3), dtype=torch.uint8, generator=g),
        proprio=torch.randn(batch, STATE, generator=g),
        text=("press",) * batch,
    )


@torch.no_grad()
def log_prob(
    wam: WAM, plan: ActionChunk, obs: Obs, flow: FlowConfig, *, batch: int, again: bool
) -> Tensor:
    """Elementwise log-densities (B, J, N, A), `batch` rows at a time; brought to the CPU.

    again: on features that this model computes from `obs`, else on those of the plan.
    """
    device = next(wam.parameters()).device
    out = []
    for rows in torch.arange(len(obs)).split(batch):
        part = plan[rows].to(device)
        part = wam.with_features(part.drop_features() if again else part, obs[rows].to(device))
        out.append(wam.log_prob(part, flow).cpu())
    return torch.cat(out)


def differences(name: str, found: Tensor, reference: Tensor) -> list[dict]:
    """The two rows of a comparison."""
    apart = (found - reference).double()
    assert apart.isfinite().all(), f"{name}: not finite"
    largest = reference.abs().max()
    summed = reference.sum((-1, -2)).abs().max()
    note = f"|log p| of a dim up to {largest:.0f}, of a chunk {summed:.0f}"
    return [
        single(name, [apart.abs().max().item()], "nats", note),
        single(f"{name}, chunk", [apart.sum((-1, -2)).abs().max().item()], "nats"),
    ]


def compare(case: Case, batch: int) -> list[dict]:
    """All ways to score the same chains, against float32 on the CPU."""
    torch.manual_seed(0)
    cpu = build(case.model, action_dim=case.action_dim).eval()
    obs = observations(batch)
    generators = [torch.Generator().manual_seed(i) for i in range(batch)]
    plan = cpu.act(obs, torch.arange(batch), case.flow, generators, sampler="explore")
    reference = log_prob(cpu, plan, obs, case.flow, batch=batch, again=False)
    acted = (reference - plan.chain_log_prob).abs().max().item()
    assert acted < 1e-3, f"{case.name}: scoring a chain differs from sampling it by {acted:.1e}"
    there = copy.deepcopy(cpu).to(DEVICE)
    ways = {
        "cached features": (there, batch, False),
        "features computed again": (there, batch, True),
    }
    ways["one at a time"] = (there, 1, True)
    for name, compute, kept in (
        ("world model in bfloat16", torch.bfloat16, torch.float32),
        ("features kept in bfloat16", torch.float32, torch.bfloat16),
        ("both in bfloat16", torch.bfloat16, torch.bfloat16),
    ):
        other = copy.deepcopy(there)
        other.compute, other.feature_dtype = compute, kept
        ways[name] = (other, batch, True)
    rows = []
    for name, (wam, size, again) in ways.items():
        found = log_prob(wam, plan, obs, case.flow, batch=size, again=again)
        rows += differences(f"{case.name}, {DEVICE}, {name}", found, reference)
    if DEVICE == "cuda":
        torch.set_float32_matmul_precision("high")
        found = log_prob(there, plan, obs, case.flow, batch=batch, again=True)
        torch.set_float32_matmul_precision("highest")
        rows += differences(f"{case.name}, {DEVICE}, TF32 products", found, reference)
    return rows


if __name__ == "__main__":
    o = options()
    finish("parity", [row for case in CASES for row in compare(case, 4 if o.quick else 64)], o)
