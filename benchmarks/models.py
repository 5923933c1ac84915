"""Models and inputs that several benchmarks share; values are random but no output is zero."""

from __future__ import annotations

import torch

from wamrl.models.action_head import ActionHeadConfig
from wamrl.models.flow import FlowConfig
from wamrl.models.video_dit import VideoDiTConfig
from wamrl.models.wam import WAM, ActionChunk
from wamrl.models.wam_config import WAMConfig
from wamrl.types import Clip, Obs

NANO = WAMConfig()
BASE = WAMConfig(  # the ~0.1 B size
    world=VideoDiTConfig(width=768, depth=12, heads=12, taps=(4, 8, 12)),
    actor=ActionHeadConfig(width=384),
)
LARGE = WAMConfig(  # the ~1 B size
    world=VideoDiTConfig(width=1792, depth=26, heads=14, taps=(8, 17, 26)),
    actor=ActionHeadConfig(width=384),
)
SIZE, ACTIONS, STATE = 64, 4, 7  # pixels, action and proprioception dims: those of MetaWorld


def build(config: WAMConfig = NANO, device: str = "cpu", action_dim: int = ACTIONS) -> WAM:
    """A model in which everything that starts at zero is random instead,
    so that gradients reach all of it.
    """
    torch.manual_seed(0)
    wam = config.build(views=1, image_hw=(SIZE, SIZE), action_dim=action_dim, proprio_dim=STATE)
    for layer in (
        wam.world.head,
        wam.actor.head,
        *(block.modulation for block in wam.actor.blocks),
    ):
        torch.nn.init.normal_(layer.weight, std=0.02)
    return wam.to(device)


def clips(wam: WAM, batch: int) -> Clip:
    """Training samples on the model's device."""
    spec, g = wam.spec, torch.Generator().manual_seed(0)

    def pictures(frames: int) -> torch.Tensor:
        return torch.randint(
            0, 256, (batch, frames, 1, SIZE, SIZE, 3), dtype=torch.uint8, generator=g
        )

    return Clip(
        frames=pictures(len(spec.history_offsets)),
        future=pictures(len(spec.frame_offsets)),
        future_mask=torch.ones(batch, len(spec.frame_offsets), dtype=torch.bool),
        proprio=torch.randn(batch, STATE, generator=g),
        actions=torch.rand(batch, spec.chunk, ACTIONS, generator=g),
        action_mask=torch.ones(batch, spec.chunk, dtype=torch.bool),
        weight=torch.ones(batch),
        text=("press",) * batch,
    ).to(next(wam.parameters()).device)


def plan_of(wam: WAM, obs: Obs, flow: FlowConfig) -> ActionChunk:
    """What the model decides for B observations while it explores."""
    generators = [torch.Generator().manual_seed(i) for i in range(len(obs))]
    return wam.eval().act(obs, torch.arange(len(obs)), flow, generators, sampler="explore")


def gradients(module: torch.nn.Module) -> torch.Tensor:
    """All gradients as one vector, a copy."""
    return torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None]).clone()


def near(a: torch.Tensor, b: torch.Tensor, tolerance: float) -> None:
    """Assert max |a - b| <= tolerance * max(1, max |b|)."""
    worst = (a - b).abs().max().item() / max(1.0, b.abs().max().item())
    assert a.shape == b.shape and worst <= tolerance, (
        f"{worst:.2e} apart, at most {tolerance:.0e} is allowed"
    )
