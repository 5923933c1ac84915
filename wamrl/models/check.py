"""`check_wam`: does a model keep the contract of `models.base`? Call it on yours.

One sentence names the first fault.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from wamrl.models.base import EpisodicWorldModel, ReentrantActor
from wamrl.models.check_memory import check_memory, near, probe_past, require
from wamrl.models.flow import FlowConfig
from wamrl.models.flow_world import FlowWorldModel
from wamrl.models.rounding import worst_drift
from wamrl.models.wam import WAM, ActionChunk, ImaginesFromFeatures
from wamrl.types import Clip, Obs

B = 3  # rows of the probe
ROUGHEST = 3e-4  # of an actor's velocity; float32 gives 1e-6, bfloat16 inside it 4e-3


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
        past=probe_past(wam, B, g) if s.past else None,
    )


def check_wam(wam: WAM) -> None:
    """Raise ValueError with one sentence that names the first fault.

    What is checked: shapes and ranges; that a row depends on no other row and all randomness comes
    from the seeds; that a context can be used again, and after another one was encoded (frames are
    decoded with their own past); that scoring an action gives the log-probability it was sampled
    with, also on features that were computed again in other batches; that the actor is float32;
    that losses are per sample and masked, frame by frame; that each gradient reaches the half that
    it belongs to; that the latent KL begins at 0. Of a model that remembers, also that its state
    can be had again (`check_memory`).
    """
    wam.spec.validate()
    device = next(wam.parameters()).device
    clip = probe(wam).to(device)
    seeds = torch.arange(B)
    wam.eval()
    if isinstance(wam.world, FlowWorldModel):
        _check_flow(wam, wam.world, clip, seeds)
    if isinstance(wam.world, EpisodicWorldModel):
        check_memory(wam, clip.obs, seeds)
    _check_shapes(wam, clip, seeds)
    _check_contexts(wam, clip, seeds)
    _check_rows(wam, clip, seeds)
    if isinstance(wam.world, ImaginesFromFeatures):
        _check_saving(wam, clip.obs, seeds)
    _check_acting(wam, clip.obs, seeds)
    _check_float32(wam, clip.obs, seeds)
    _check_masks(wam, clip)
    _check_gradients(wam, probe(wam).to(device), seeds)
    _check_copy(wam, probe(wam).obs.to(device), seeds)


@torch.no_grad()
def _check_shapes(wam: WAM, clip: Clip, seeds: Tensor) -> None:
    """Of features and imagined frames, and the frames' range."""
    taps = len(wam.spec.taps)
    width = wam.world.feature_dim
    context = wam.encode(clip.obs)
    features = wam.features(context, seeds)
    require(
        features.dim() == 4 and features.shape[:2] == (B, taps) and features.shape[3] == width,
        f"features are {tuple(features.shape)}; (B, taps, L, D) = ({B}, {taps}, L, {width}) is "
        "needed",
    )
    frames = wam.imagine(clip.obs, seeds)
    require(
        frames.shape == clip.future.shape,
        f"imagined frames are {tuple(frames.shape)}, not {tuple(clip.future.shape)}",
    )
    require(
        frames.dtype == torch.float32 and bool(((frames >= 0) & (frames <= 1)).all()),
        "imagined frames leave [0, 1], or are not float32: clamp them in imagine",
    )
    loss = wam.video_loss(clip, context, seeds)
    require(
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
        require(
            near(value, afresh[name]),
            f"{name} differs between two calls: its randomness must come from the seeds alone",
        )
        require(
            near(value, again[name]),
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
        require(
            near(value, every[name][1:2]),
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
    require(
        x.shape == wanted,
        f"to_latents gives {tuple(x.shape)}; (B, *latent_shape) = {wanted} is needed",
    )
    require(
        velocity.shape == wanted,
        f"the velocity is {tuple(velocity.shape)}; the shape of the latents, {wanted}, is needed",
    )
    _check_decoding(wam, world, clip, x)
    _check_groups(wam, world, clip, x)


def _check_decoding(wam: WAM, world: FlowWorldModel, clip: Clip, x: Tensor) -> None:
    """Where the past decides what latents mean, it decides what frames they decode to.

    x: the latents of the clip's future.
    """
    context = wam.encode(clip.obs)
    other = wam.encode(clip[torch.arange(B).flip(0)].obs)
    with wam.precision():
        encoded = world.to_latents(clip.future, other)
        own = world.to_frames(x, context)
        decoded = world.to_frames(x, other)
    require(
        torch.equal(encoded, x) or not torch.equal(decoded, own),
        "to_latents depends on the past and to_frames does not: latents that follow a context must "
        "be decoded with it",
    )


def _check_groups(wam: WAM, world: FlowWorldModel, clip: Clip, x: Tensor) -> None:
    """A latent counts only where all frames that it holds are real. x: see `_check_decoding`."""
    context = wam.encode(clip.obs)
    count = clip.future.shape[1]
    require(
        bool(world.latent_mask(clip.future_mask).all()),
        "latent_mask drops latents though all frames are real: nothing would be learned from them",
    )
    for first in range(count):
        future = clip.future.clone()
        future[:, first:] = 255 - future[:, first:]
        real = clip.future_mask.clone()
        real[:, first:] = False
        with wam.precision():
            changed = (world.to_latents(future, context) != x).flatten(2).any(2)
        require(
            not bool((changed & world.latent_mask(real)).any()),
            f"latent_mask counts latents that hold frame {first + 1} of {count} where the episode "
            "ended before it",
        )


@torch.no_grad()
def _check_saving(wam: WAM, obs: Obs, seeds: Tensor) -> None:
    """Frames that features are said to hold are those of a one-step imagination."""
    if wam.feature_dtype != torch.float32:
        return  # only exact features are asked
    features = wam.features(wam.encode(obs), seeds)
    require(
        near(wam.imagine(obs, seeds, 1, features), wam.imagine(obs, seeds, 1)),
        "imagine_from_features gives other frames than a one-step imagination: return None where "
        "the features do not hold them",
    )


@torch.no_grad()
def _check_acting(wam: WAM, obs: Obs, seeds: Tensor) -> None:
    flow = FlowConfig(steps=3, noisy="all")
    generators = [torch.Generator().manual_seed(i) for i in range(B)]
    plan = wam.act(obs, seeds, flow, generators, sampler="explore")
    shape = (B, wam.spec.chunk, wam.spec.action_dim)
    require(
        plan.actions.shape == shape, f"action chunks are {tuple(plan.actions.shape)}, not {shape}"
    )
    off, excess = worst_drift(wam, plan, plan, flow)
    require(
        excess <= 0,
        f"sampling and scoring disagree by {off:.1e} in log-probability: "
        "is the model deterministic?",
    )
    forgotten = plan.drop_features()
    rows = [slice(i, i + 1) for i in range(B)]
    alone = ActionChunk.cat([wam.with_features(forgotten[i], obs[i]) for i in rows])
    off, excess = worst_drift(wam, forgotten, alone, flow)
    require(
        excess <= 0,
        f"on features that are computed again in other batches the log-probability drifts by "
        f"{off:.1e}: compute={str(wam.compute).removeprefix('torch.')} is too coarse for this "
        "world model",
    )


@torch.no_grad()
def _check_float32(wam: WAM, obs: Obs, seeds: Tensor) -> None:
    """The actor's velocity is as smooth as float32 is: a log-probability in bfloat16 is not one.

    Along a line, v(a + h) - 2 v(a) + v(a - h) is h^2 times its curvature, and rounding.
    """
    features = wam.features(wam.encode(obs), seeds)
    state = wam.normalize.state(obs.proprio)
    condition = wam.condition(features, state)
    shape = (B, wam.spec.chunk, wam.spec.action_dim)
    g = torch.Generator().manual_seed(0)
    a = torch.randn(shape, generator=g).to(state.device)
    step = 1e-3 * torch.randn(shape, generator=g).to(state.device)
    level = a.new_full((B,), 0.5)
    below, middle, above = (wam.actor.velocity(a + i * step, level, condition) for i in (-1, 0, 1))
    require(
        middle.dtype == torch.float32,
        f"the actor's velocity is {middle.dtype}: actors compute in float32",
    )
    rough = (above - 2 * middle + below).norm() / middle.norm().clamp(min=1e-6)
    require(
        bool(rough <= ROUGHEST),
        f"the actor's velocity is rounded to {rough:.1e} of its size, more coarsely than float32: "
        "its log-probability would drift",
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
    require(
        video[0].item() == 0,
        "frames beyond the episode's end count in the world loss: use future_mask",
    )
    require(
        action[0].item() == 0,
        "actions beyond the episode's end count in the action loss: use action_mask",
    )
    if clip.future_mask.shape[1] == 1:
        return
    cut = clip.future_mask.clone()
    cut[:, -1] = False
    with torch.no_grad():
        partly = wam.video_loss(replace(clip, future_mask=cut), context, seeds)
    require(
        bool((partly[1:] != video[1:]).all()),
        "the world loss is the same where the last frame is beyond the episode's end: use "
        "future_mask frame by frame",
    )


def _check_gradients(wam: WAM, clip: Clip, seeds: Tensor) -> None:
    """Each parameter belongs to one half, and each loss reaches the half that it trains."""
    owned = {id(p) for p in wam.world.parameters()}
    twice = [name for name, p in wam.actor.named_parameters() if id(p) in owned]
    require(
        not twice,
        f"{twice[:1]} belongs to the world model and to the actor, and both optimisers would step "
        "it: register shared weights in one of them",
    )
    flow = FlowConfig(steps=3, noisy="all")
    generators = [torch.Generator().manual_seed(i) for i in range(B)]
    plan = wam.act(clip.obs, seeds, flow, generators, sampler="explore")
    context = wam.encode(clip.obs)
    policy = wam.log_prob(plan, flow)
    video = wam.video_loss(clip, context, seeds)
    features = wam.features(context, seeds)
    actor = list(wam.actor.parameters())
    world = list(wam.world.parameters())
    lent: set[int] = set()
    if isinstance(wam.actor, ReentrantActor):
        lent = {id(p) for p in wam.actor.shared(wam.world).parameters()}
    kept = [p for p in world if id(p) not in lent]
    for name, loss, parameters, half in (
        ("the policy gradient", policy, actor, "actor"),
        ("the world loss", video, world, "world model"),
        ("the latent KL", features, world, "world model"),
    ):
        require(
            _reaches(loss, parameters),
            f"{name} does not reach the {half}: it would learn nothing",
        )
    for name, loss, parameters, half in (
        ("the policy gradient", policy, kept, "world model"),
        ("the world loss", video, actor, "actor"),
        ("the latent KL", features, actor, "actor"),
    ):
        require(
            not _reaches(loss, parameters),
            f"{name} reaches weights of the {half}, which it must leave alone",
        )


def _reaches(loss: Tensor, parameters: list[nn.Parameter]) -> bool:
    """Does a gradient flow from the loss to any of these?"""
    learned = [p for p in parameters if p.requires_grad]
    if not loss.requires_grad or not learned:
        return False
    found = torch.autograd.grad(loss.sum(), learned, retain_graph=True, allow_unused=True)
    return any(g is not None for g in found)


@torch.no_grad()
def _check_copy(wam: WAM, obs: Obs, seeds: Tensor) -> None:
    """The frozen reference of the latent KL is a copy: the same features, its own weights."""
    before = wam.features(wam.encode(obs), seeds)
    other = copy.deepcopy(wam).eval()
    reference = other.features(other.encode(obs), seeds)
    require(
        near(reference, before),
        "a copy of the model reads other features: the latent KL would not begin at 0 (does the "
        "model keep a hook or a method of the original?)",
    )
    learned = {p.data_ptr() for p in wam.parameters() if p.requires_grad}
    shared = [n for n, p in other.named_parameters() if p.requires_grad and p.data_ptr() in learned]
    require(
        not shared,
        f"a copy of the model shares {shared[:1]}, which learns: the reference of the latent KL "
        "would move with it",
    )
