"""Video and actions denoised by one transformer, each at a noise level of its own (as UWM, arXiv
2504.02792), at small size and on pixels.

Tokens: instruction, state and history patches are the past. It sees itself only and is encoded
once. The patches of the noisy future and the noisy actions see the past, themselves and each other.
Of pure noise nothing is seen: the input is scaled by its share of signal, as in `video_dit`.

    world model   one pass over future and actions: video velocity at (sigma, any action level)
    actor         one pass over the actions: action velocity at (feature_sigma, any action level)

What the actor reads are keys and values of every block, of past and future, from a pass in which
the actions are pure noise. So one pass over the video serves all denoising steps of the actions;
the price is that the video does not look at the actions while those are denoised.

Who owns what. Everything that both passes run through, the `Trunk`, belongs to the world model; to
the actor belongs what makes a velocity of the last block's tokens. Learning from demonstrations
trains all of it with the sum of both losses. Online, the world model's video loss and latent KL
train the world model, trunk included. The policy gradient and cloning train the actor's own part,
though they run through the trunk. With `train.learner.shared` the policy gradient trains the trunk
too, through the actions' pass alone: features count as given. The KL holds the keys and values that
the actor reads, which is all that a trunk can do to the actions by way of the video. It does not
hold the actions' own pass; nor does it act while the policy gradient trains, only in the world
update that follows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor, nn

from wamrl.models.base import ActorConfig, ReentrantActor, WAMSpec, WorldModel, WorldModelConfig
from wamrl.models.flow import draws, expand, interpolate
from wamrl.models.flow_world import FlowWorldModel
from wamrl.models.layers import TextEmbedding, mlp, sinusoid, zero_
from wamrl.models.video_dit import Block, modulations
from wamrl.runtime import sharding
from wamrl.runtime.ranges import Fraction, Size, check_ranges
from wamrl.types import Clip, Obs

Pair = tuple[Tensor, Tensor]  # keys and values, (B, heads, L, width / heads) each
_OTHER_DRAWS = 2**62  # seeds lie below it


@dataclass(frozen=True, kw_only=True)
class JointConfig(WorldModelConfig):
    """The world model: text, state, patches, and the transformer that the actions share."""

    width: Size = 128
    depth: Annotated[int, Ge(1), Le(256)] = 6  # each block is a tap
    heads: Size = 4
    patch: Annotated[int, Ge(1), Le(256)] = 16
    # typical size of the change between frames, of pixels in [-1, 1]: latents shall be about 1, or
    # the actions' loss drowns the video's
    change: Annotated[float, Gt(0), Le(2)] = 0.1
    feature_sigma: Fraction = 1.0
    noise_fraction: Fraction = 0.3  # of the video's training noise levels are exactly 1
    # of the actions' too, while the video is trained: imaginations do not know the actions
    action_noise_fraction: Fraction = 0.5

    @property
    def tap_names(self) -> tuple[str, ...]:
        """Every block: "block1" and so on."""
        return tuple(f"block{i}" for i in range(1, self.depth + 1))

    def validate(self) -> None:
        """Raise ValueError with one sentence that says what to do."""
        check_ranges(self, "model.world")
        if self.width % self.heads or self.width % 2:
            raise ValueError(
                f"model.world: width={self.width} must be even, and heads={self.heads} divide it"
            )

    def build(self, spec: WAMSpec) -> Joint:
        """See `WorldModelConfig`; ValueError where the patches do not fit the images."""
        self.validate()
        return Joint(self, spec)


@dataclass(frozen=True, kw_only=True)
class JointActorConfig(ActorConfig):
    """The actor of a `JointConfig`: a decoder of its own, behind the world model's trunk."""

    hidden: Size = 128  # of the decoder

    def validate(self) -> None:
        """Raise ValueError with one sentence that says what to do."""
        check_ranges(self, "model.actor")

    def build(self, spec: WAMSpec, feature_dim: int) -> JointActor:
        """See `ActorConfig`."""
        self.validate()
        return JointActor(self, spec, feature_dim)


class Trunk(nn.Module):
    """What both passes run through: the blocks, their noise levels, and the actions' embedding."""

    def __init__(self, cfg: JointConfig, spec: WAMSpec):
        super().__init__()
        d = cfg.width
        self.action = nn.Linear(spec.action_dim, d)
        self.position = nn.Parameter(torch.randn(1, spec.chunk, d) * 0.02)
        self.level = modulations(d)
        self.blocks = nn.ModuleList(Block(d, cfg.heads, False) for _ in range(cfg.depth))

    def embed(self, a: Tensor, sigma: Tensor) -> Tensor:
        """Noisy actions (B, N, A) at sigma (B,) as tokens (B, N, width)."""
        return self.action((1 - expand(sigma, a)) * a) + self.position

    def modulation(self, sigma: Tensor, tokens: Tensor) -> Tensor:
        """Of tokens (B, L, width) that stand at sigma (B,): (B, 6, L, width)."""
        level = self.level(sinusoid(sigma, tokens.shape[2])).unflatten(1, (6, 1, -1))
        return level.expand(-1, -1, tokens.shape[1], -1)

    def forward(
        self, x: Tensor, modulation: Tensor, past: list[Pair] | None
    ) -> tuple[Tensor, list[Pair]]:
        """x (B, L, width) sees the past and itself: the last block's tokens, its own pairs."""
        layers = []
        for i, block in enumerate(self.blocks):
            x, own = block(x, modulation, None if past is None else past[i])
            layers.append(own)
        return x, layers


@dataclass(frozen=True, kw_only=True)
class Past:
    """The context of B observations, and what is known of the actions that follow them."""

    last: Tensor  # (B, 1, patches, 3 p^2) the present frame in [-1, 1]
    layers: list[Pair]  # keys and values of every block
    actions: Tensor  # (B, N, A) normalised, at the noise level
    level: Tensor  # (B,); 1: nothing is known of the actions


class Joint(FlowWorldModel):
    """The world model described above. Latents are patches of differences from the last frame."""

    def __init__(self, cfg: JointConfig, spec: WAMSpec):
        super().__init__()
        h, w = spec.image_hw
        p = cfg.patch
        if h % p or w % p:
            raise ValueError(
                f"image {h}x{w} is not divisible into patches of {p}; change image_size or patch"
            )
        d = cfg.width
        future = len(spec.frame_offsets)
        patches = spec.views * (h // p) * (w // p)
        pixels = 3 * p * p
        self.cfg = cfg
        self.spec = spec
        self.feature_dim = 2 * d  # a key and a value
        self.latent_shape = (future, patches, pixels)
        self.noise_fraction = cfg.noise_fraction
        self.present = slice(-(future + 1) * patches, -future * patches)
        self.text = TextEmbedding(d)
        self.proprio = mlp(spec.proprio_dim, d, d)
        self.patch_past = nn.Linear(pixels, d)
        self.patch_last = nn.Linear(pixels, d)
        self.patch_noisy = nn.Linear(pixels, d, bias=False)
        self.position = nn.Parameter(torch.randn(1, 1, patches, d) * 0.02)
        frames = len(spec.history_offsets) + future
        self.frame_position = nn.Parameter(torch.randn(1, frames, 1, d) * 0.02)
        self.trunk = Trunk(cfg, spec)
        self.norm = nn.LayerNorm(d)
        self.head = zero_(nn.Linear(d, pixels))  # an untrained model imagines the last frame

    def encode(self, obs: Obs) -> Past:
        """See `WorldModel`; nothing is known of the actions."""
        frames = self._patches(obs.frames)
        t = frames.shape[1]
        past = self.patch_past(frames) + self.position + self.frame_position[:, :t]
        state = torch.stack([self.text(obs.text), self.proprio(obs.proprio)], 1)
        x = torch.cat([state, past.flatten(1, 2)], 1)
        clean = frames.new_zeros(len(x))
        _, layers = self.trunk(x, self.trunk.modulation(clean, x), None)
        none = frames.new_zeros(len(x), self.spec.chunk, self.spec.action_dim)
        return Past(last=frames[:, -1:], layers=layers, actions=none, level=clean + 1)

    def given(self, context: Past, actions: Tensor) -> Past:
        """The context where the actions are known, normalised (B, N, A): what is imagined then
        follows from them."""
        return replace(context, actions=actions, level=torch.zeros_like(context.level))

    def predict(self, z: Tensor, sigma: Tensor, context: Past) -> tuple[Tensor, Tensor]:
        """See `FlowWorldModel`: features are keys and values of past and future, (B, depth, L, 2
        width)."""
        trunk = self.trunk
        future = z.shape[1]
        x = self.patch_last(context.last) + self.position + self.frame_position[:, -future:]
        x = (x + self.patch_noisy((1 - expand(sigma, z)) * z)).flatten(1, 2)
        a = trunk.embed(context.actions, context.level)
        levels = [trunk.modulation(sigma, x), trunk.modulation(context.level, a)]
        tokens, layers = trunk(torch.cat([x, a], 1), torch.cat(levels, 2), context.layers)
        tokens = tokens[:, : x.shape[1]]
        clean = self.head(self.norm(tokens)).view_as(z)
        pairs = zip(context.layers, layers, strict=True)
        taps = [torch.cat([_packed(c), _packed(own)[:, : x.shape[1]]], 1) for c, own in pairs]
        return (z - clean) / expand(sigma, z).clamp(min=1e-3), torch.stack(taps, 1)

    def loss(self, clip: Clip, context: Past, seeds: Tensor) -> Tensor:
        """See `FlowWorldModel`; the actions stand at a noise level of their own.

        Those that are masked are not seen.
        """
        device = context.level.device
        chance, eps = draws(seeds + _OTHER_DRAWS, 2, clip.actions.shape[1:], device)
        pure = chance[:, 1] < self.cfg.action_noise_fraction
        level = torch.where(pure, 1.0, chance[:, 0]).to(device)
        noisy = interpolate(clip.actions, eps, level) * clip.action_mask[..., None]
        return super().loss(clip, replace(context, actions=noisy, level=level), seeds)

    def to_latents(self, future: Tensor, context: Past) -> Tensor:
        """See `FlowWorldModel`."""
        return (self._patches(future) - context.last) / self.cfg.change

    def to_frames(self, z: Tensor, context: Past) -> Tensor:
        """See `FlowWorldModel`."""
        p = self.cfg.patch
        h, w = self.spec.image_hw
        x = ((context.last + self.cfg.change * z + 1) / 2).clamp(0, 1)
        x = x.unflatten(3, (p, p, 3)).unflatten(2, (self.spec.views, h // p, w // p))
        return x.transpose(4, 5).flatten(5, 6).flatten(3, 4)

    def _patches(self, frames: Tensor) -> Tensor:
        """uint8 (B, T, V, H, W, 3) to (B, T, V * patches, 3 p^2) in [-1, 1]."""
        p = self.cfg.patch
        x = frames.unflatten(4, (-1, p)).unflatten(3, (-1, p))  # B T V h p w p 3
        return x.transpose(4, 5).flatten(5).flatten(2, 4).float() / 127.5 - 1


@dataclass(frozen=True, kw_only=True)
class Read:
    """What the denoising steps of B chunks share."""

    trunk: Trunk
    layers: list[Pair]


class JointActor(ReentrantActor):
    """The actor described above: v = a + decoder(tokens), 0 from the decoder at the start."""

    def __init__(self, cfg: JointActorConfig, spec: WAMSpec, feature_dim: int):
        super().__init__()
        d = feature_dim // 2
        self.norm = nn.LayerNorm(d)
        self.decoder = mlp(d, cfg.hidden, spec.action_dim)
        zero_(self.decoder[2])

    def shared(self, world: WorldModel) -> Trunk:
        """See `ReentrantActor`."""
        if not isinstance(world, Joint):
            raise ValueError(
                "model.actor: this actor runs through a joint world model's own weights; take it "
                f"with a JointConfig, or another actor for {type(world).__name__}"
            )
        return world.trunk

    def condition(self, features: Tensor, proprio: Tensor, world: WorldModel) -> Read:
        """See `ReentrantActor`; the state is among the tokens already."""
        trunk = self.shared(world)
        if sharding.is_sharded(trunk.position):
            raise ValueError("a joint model cannot be sharded: --sft.shard and --train.world.shard")
        heads = trunk.blocks[0].attention.heads
        return Read(trunk=trunk, layers=[_unpacked(tap, heads) for tap in features.unbind(1)])

    def velocity(self, a: Tensor, sigma: Tensor, condition: Any, repeat: int = 1) -> Tensor:
        """See `Actor`."""
        trunk = condition.trunk
        layers = condition.layers
        if repeat > 1:
            layers = [
                (k.repeat_interleave(repeat, 0), v.repeat_interleave(repeat, 0)) for k, v in layers
            ]
        x = trunk.embed(a, sigma)
        tokens, _ = trunk(x, trunk.modulation(sigma, x), layers)
        return a + self.decoder(self.norm(tokens))


def _packed(pair: Pair) -> Tensor:
    """A key and a value side by side, (B, L, 2 width)."""
    k, v = (part.transpose(1, 2).flatten(2) for part in pair)
    return torch.cat([k, v], 2)


def _unpacked(tap: Tensor, heads: int) -> Pair:
    """The inverse of `_packed`."""
    k, v = tap.unflatten(2, (2, heads, -1)).transpose(1, 3).unbind(2)
    return k, v
