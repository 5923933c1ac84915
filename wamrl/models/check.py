"""`check_wam`: does a model keep the contract of `models.base`? Call it on yours.

One sentence names the first fault.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from wamrl.models.flow import FlowConfig
from wamrl.models.flow_world import FlowWorldModel
from wamrl.models.rounding import largest, log_prob_change, rounding_tolerance
from wamrl.models.wam import WAM, ImaginesFromFeatures
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
    """Raise ValueError with one sentence that names the first fault.

    What is checked: shapes and ranges; that a row depends on no other row and all randomness comes
    from the seeds; that a context can be used again, and after another one was encoded (frames are
    decoded with their own past); that scoring an action gives the log-probability it was sampled
    with; that losses are per sample and masked.
    """
    wam.spec.validate()
    device = next(wam.parameters()).device
    clip = probe(wam).to(device)
    seeds = torch.arange(B)
    wam.eval()
    if isinstance(wam.world, FlowWorldModel):
        _check_flow(wam, wam.world, clip, seeds)
    _check_shapes(wam, clip, seeds)
    _check_contexts(wam, clip, seeds)
    _check_rows(wam, clip, seeds)
    if isinstance(wam.world, ImaginesFromFeatures):
        _check_saving(wam, clip.obs, seeds)
    _check_acting(wam, clip.obs, seeds)
    _check_masks(wam, clip)


def _require(fine: bool, sentence: str) -> None:
    if not fine:
        raise ValueError(sentence)


def _near(a: Tensor, b: Tensor) -> bool:
    """Equal but for kernels that add in another order."""
    return a.shape == b.shape and torch.allclose(a.float(), b.float(), atol=1e-3, rtol=1e-3)


@torch.no_grad()
def _check_shapes(wam: WAM, clip: Clip, seeds: Tensor) -> None:
    """Of features and imagined frames, and the frames' range."""
    taps = len(wam.spec.taps)
    width = wam.world.feature_dim
    context = wam.encode(clip.obs)
    features = wam.features(context, seeds)
    _require(
        features.dim() == 4 and features.shape[:2] == (B, taps) and features.shape[3] == width,
        f"features are {tuple(features.shape)}; (B, taps, L, D) = ({B}, {taps}, L, {width}) is "
        "needed",
    )
    frames = wam.imagine(clip.obs, seeds)
    _require(
        frames.shape == clip.future.shape,
        f"imagined frames are {tuple(frames.shape)}, not {tuple(clip.future.shape)}",
    )
    _require(
        frames.dtype == torch.float32 and bool(((frames >= 0) & (frames <= 1)).all()),
        "imagined frames leave [0, 1], or are not float32: clamp them in imagine",
    )
    loss = wam.video_loss(clip, context, seeds)
    _require(
        loss.shape == (B,),
        f"world loss has shape {tuple(loss.shape)}: one value per sample is needed",
    )


@torch.no_grad()
def _check_contexts(wam: WAM, clip: Clip, seeds: Tensor) -> None:
    """A context gives the same at every use, and nothing else may reach what it gives."""
    context = wam.encode(clip.obs)
    first = _uses(wam, clip, context, seeds)
    other = torch.arange(B).flip(0)
    _uses(wam, clip[other], wam.encode(clip[other].obs), seeds + B)
    again = _uses(wam, clip, context, seeds)
    afresh = _uses(wam, clip, wam.encode(clip.obs), seeds)
    for name, value in first.items():
        _require(
            _near(value, afresh[name]),
            f"{name} differs between two calls: its randomness must come from the seeds alone",
        )
        _require(
            _near(value, again[name]),
            f"{name} changes once another context was encoded and used: all that is needed of the "
            "past must be in the context, and stay as it is",
        )


@torch.no_grad()
def _check_rows(wam: WAM, clip: Clip, seeds: Tensor) -> None:
    """A row alone gives what it gives among others."""
    every = _uses(wam, clip, wam.encode(clip.obs), seeds)
    one = clip[slice(1, 2)]
    alone = _uses(wam, one, wam.encode(one.obs), seeds[1:2])
    for name, value in alone.items():
        _require(
            _near(value, every[name][1:2]),
            f"{name}: a row depends on the other rows of the batch",
        )


def _uses(wam: WAM, clip: Clip, context: Any, seeds: Tensor) -> dict[str, Tensor]:
    with wam.precision():
        return {
            "features": wam.world.features(context, seeds),
            "imagine": wam.world.imagine(context, seeds, 2),
            "loss": wam.world.loss(clip, context, seeds),
        }


@torch.no_grad()
def _check_flow(wam: WAM, world: FlowWorldModel, clip: Clip, seeds: Tensor) -> None:
    """The parts of which `FlowWorldModel` makes the whole."""
    context = wam.encode(clip.obs)
    wanted = (B, *world.latent_shape)
    with wam.precision():
        x = world.to_latents(clip.future, context)
        velocity, _ = world.predict(world.noise(seeds), torch.ones(B, device=x.device), context)
    _require(
        x.shape == wanted,
        f"to_latents gives {tuple(x.shape)}; (B, *latent_shape) = {wanted} is needed",
    )
    _require(
        velocity.shape == wanted,
        f"the velocity is {tuple(velocity.shape)}; the shape of the latents, {wanted}, is needed",
    )


@torch.no_grad()
def _check_saving(wam: WAM, obs: Obs, seeds: Tensor) -> None:
    """Frames that features are said to hold are those of a one-step imagination."""
    if wam.feature_dtype != torch.float32:
        return  # only exact features are asked
    features = wam.features(wam.encode(obs), seeds)
    _require(
        _near(wam.imagine(obs, seeds, 1, features), wam.imagine(obs, seeds, 1)),
        "imagine_from_features gives other frames than a one-step imagination: return None where "
        "the features do not hold them",
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
    """Losses are per sample, and what is masked does not count.

    A sample that is masked whole has none.
    """
    clip.future_mask[0] = False
    clip.action_mask[0] = False
    context = wam.encode(clip.obs)
    seeds = torch.arange(B)
    video = wam.video_loss(clip, context, seeds)
    action = wam.action_loss(clip, wam.features(context, seeds), seeds)
    _require(
        video[0].item() == 0,
        "frames beyond the episode's end count in the world loss: use future_mask",
    )
    _require(
        action[0].item() == 0,
        "actions beyond the episode's end count in the action loss: use action_mask",
    )
