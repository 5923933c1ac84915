"""`check_wam`: does a model keep the contract of `models.base`?
One sentence names the fault. Call it on yours.
"""

from __future__ import annotations

import torch
from torch import Tensor

from wamrl.models.base import WAM
from wamrl.models.flow import FlowConfig
from wamrl.models.rounding import largest, log_prob_change, rounding_tolerance
from wamrl.types import Clip, Obs

B = 3  # rows of the probe


def probe(wam: WAM, seed: int = 0) -> Clip:
    """Random data of the model's shapes."""
    s = wam.spec
    g = torch.Generator().manual_seed(seed)

    def frames(t: int) -> Tensor:
        return torch.randint(
            0, 256, (B, t, s.views, *s.image_hw, 3), dtype=torch.uint8, generator=g
        )

    return Clip(
        frames=frames(len(s.history_offsets)),
        future=frames(len(s.frame_offsets)),
        future_mask=torch.ones(B, len(s.frame_offsets), dtype=torch.bool),
        proprio=torch.randn(B, s.proprio_dim, generator=g),
        actions=torch.rand(B, s.chunk, s.action_dim, generator=g) * 2 - 1,
        action_mask=torch.ones(B, s.chunk, dtype=torch.bool),
        weight=torch.ones(B),
        text=("probe",) * B,
    )


def check_wam(wam: WAM) -> None:
    """Raise ValueError with one sentence that names the first fault."""
    wam.spec.validate()
    device = next(wam.parameters()).device
    clip = probe(wam).to(device)
    seeds = torch.arange(B)
    wam.eval()
    _check_world(wam, clip, seeds)
    _check_acting(wam, clip.obs, seeds)
    _check_masks(wam, clip)


def _require(fine: bool, sentence: str) -> None:
    if not fine:
        raise ValueError(sentence)


@torch.no_grad()
def _check_world(wam: WAM, clip: Clip, seeds: Tensor) -> None:
    spec = wam.spec
    world = wam.world
    noise = world.noise(seeds)
    again = world.noise(seeds)
    _require(
        torch.equal(noise, again),
        "noise(seeds) differs between two calls: it must be a function of the seeds",
    )
    _require(not torch.equal(noise[0], noise[1]), "noise(seeds) is the same for different seeds")
    context = wam.encode(clip.obs)
    v = world.velocity(noise, 1.0, context)
    features = world.features(noise, spec.feature_sigma, context)
    _require(
        v.shape == noise.shape,
        f"velocity has shape {tuple(v.shape)}, the latents {tuple(noise.shape)}",
    )
    lead = (B, len(spec.taps))
    _require(
        features.dim() == 4
        and features.shape[:2] == lead
        and features.shape[3] == world.feature_dim,
        (
            f"features are {tuple(features.shape)}; (B, taps, L, D) = ({B}, {lead[1]}, L, "
            f"{world.feature_dim}) is needed"
        ),
    )
    frames = wam.imagine(clip.obs, seeds)
    _require(
        frames.shape == clip.future.shape,
        f"imagined frames are {tuple(frames.shape)}, not {tuple(clip.future.shape)}",
    )
    _require(
        bool(((frames >= 0) & (frames <= 1)).all()),
        "imagined frames leave [0, 1]: clamp them in to_frames",
    )
    one = wam.features(wam.encode(clip[slice(0, 1)].obs), seeds[:1])
    every = wam.features(context, seeds)
    _require(
        torch.allclose(one, every[:1], atol=1e-3, rtol=1e-3),
        "a row's features depend on the other rows of the batch",
    )
    short = wam.imagine(clip.obs, seeds, 1, every if wam.feature_dtype == torch.float32 else None)
    _require(
        torch.allclose(short, wam.imagine(clip.obs, seeds, 1), atol=1e-3),
        (
            "from_features gives other frames than a one-step imagination: return None where the "
            "features do not hold them"
        ),
    )


@torch.no_grad()
def _check_acting(wam: WAM, obs: Obs, seeds: Tensor) -> None:
    flow = FlowConfig(steps=3, noisy="all")
    generators = [torch.Generator().manual_seed(i) for i in range(B)]
    plan = wam.act(obs, seeds, flow, generators, sampler="explore")
    shape = (B, wam.spec.chunk, wam.spec.action_dim)
    _require(
        plan.actions.shape == shape, f"action chunks are {tuple(plan.actions.shape)}, not {shape}"
    )
    mask = torch.ones(plan.actions.shape[:2], dtype=torch.bool, device=plan.actions.device)
    off = log_prob_change(wam.log_prob(plan, flow), plan.chain_log_prob, mask).abs()
    fine = bool((off <= rounding_tolerance(plan, mask, flow)).all())
    _require(
        fine,
        f"sampling and scoring disagree by {largest(off):.1e} in log-probability: "
        "is the model deterministic?",
    )


def _check_masks(wam: WAM, clip: Clip) -> None:
    """Losses are per sample, and what is masked does not count:
    a sample that is masked whole has none.
    """
    clip.future_mask[0] = clip.action_mask[0] = False
    context = wam.encode(clip.obs)
    seeds = torch.arange(B)
    video = wam.world.loss(clip, context, seeds)
    _require(
        video.shape == (B,),
        f"world loss has shape {tuple(video.shape)}: one value per sample is needed",
    )
    action = wam.action_loss(clip, wam.features(context, seeds), seeds)
    one = wam.world.loss(clip[slice(1, 2)], wam.encode(clip[slice(1, 2)].obs), seeds[1:2])
    _require(
        torch.allclose(one, video[1:2], rtol=1e-3),
        "a sample's world loss depends on the others: draw from its seed",
    )
    _require(
        video[0].item() == 0,
        "frames beyond the episode's end count in the world loss: use future_mask",
    )
    _require(
        action[0].item() == 0,
        "actions beyond the episode's end count in the action loss: use action_mask",
    )
