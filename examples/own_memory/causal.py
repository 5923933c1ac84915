"""A world model that remembers: a causal transformer over the decisions of an episode.

Each decision is a group of tokens: what was seen, and one of what was done. A group attends to
itself and to the groups before it, and what the future's tokens need of those are their keys and
values: that is the state, which an episode that is played grows by a group at each decision.
docs/own-model.md says what is asked of such a model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wamrl.config import Config
from wamrl.models.base import EpisodicWorldModel, WAMSpec, WorldModelConfig
from wamrl.models.flow_world import FlowWorldModel
from wamrl.models.layers import TextEmbedding, mlp, sinusoid
from wamrl.models.wam_config import WAMConfig
from wamrl.recipes.point import point
from wamrl.types import Batch, Obs, Past


@dataclass(frozen=True, kw_only=True)
class CausalConfig(WorldModelConfig):
    width: int = 64
    depth: int = 3  # blocks, each is a tap
    heads: int = 4
    patch: int = 8  # pixels
    past: int = 4  # decisions: an episode of the point mass has five

    @property
    def tap_names(self) -> tuple[str, ...]:
        return tuple(f"block{i}" for i in range(self.depth))

    def validate(self) -> None:
        if self.width % (2 * self.heads) or self.depth < 1 or self.past < 1:
            raise ValueError(
                f"causal: 2 * heads must divide width, depth and past be 1 or more; got {self}"
            )

    def build(self, spec: WAMSpec) -> Causal:
        self.validate()
        return Causal(self, spec)


@dataclass(frozen=True, kw_only=True)
class Cache(Batch):
    """The state: keys and values of up to R decisions, the first one first; zero beyond `count`."""

    keys: Tensor  # (B, blocks, heads, R, M, d), of M tokens per decision
    values: Tensor
    count: Tensor  # int64 (B,)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """The context: keys and values of what is remembered and of what is seen now."""

    last: Tensor  # (B, 1, patches, 3 p^2) the present frame
    keys: list[Tensor]  # of every block, (B, heads, R * M + L, d)
    values: list[Tensor]
    mask: Tensor  # bool (B, 1, 1, R * M + L)
    taps: Tensor  # (B, blocks, L, D)


class Block(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.LayerNorm(width), mlp(width, 2 * width, width))

    def forward(
        self, x: Tensor, before: tuple[Tensor, Tensor], mask: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """x (B, L, D) attends to keys and values `before` and its own, where `mask` says so;
        x, and its own keys and values.
        """
        heads = self.qkv(self.norm(x)).unflatten(-1, (3, self.heads, -1))
        q, k, v = heads.movedim(1, 3).unbind(1)  # (B, heads, L, d) each
        keys = torch.cat([before[0].to(k.dtype), k], 2)
        values = torch.cat([before[1].to(v.dtype), v], 2)
        read = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask)
        x = x + self.out(read.transpose(1, 2).flatten(2))
        return x + self.mlp(x), (k, v)


class Causal(EpisodicWorldModel, FlowWorldModel):
    def __init__(self, cfg: CausalConfig, spec: WAMSpec):
        super().__init__()
        h, w = spec.image_hw
        if h % cfg.patch or w % cfg.patch:
            raise ValueError(f"causal: {h} x {w} frames; give sides that {cfg.patch} divides")
        self.cfg = cfg
        self.spec = spec
        self.feature_dim = cfg.width
        self.patches = spec.views * (h // cfg.patch) * (w // cfg.patch)
        history = len(spec.history_offsets)
        future = len(spec.frame_offsets)
        pixels = 3 * cfg.patch**2
        self.seen = 1 + history * self.patches  # L, tokens of an observation
        self.latent_shape = (future, self.patches, pixels)
        self.text = TextEmbedding(cfg.width)
        self.proprio = nn.Linear(spec.proprio_dim, cfg.width)
        self.done = nn.Linear(spec.chunk * spec.action_dim, cfg.width)
        self.embed = nn.Linear(pixels, cfg.width)
        self.noisy = nn.Linear(pixels, cfg.width)
        self.level = nn.Linear(cfg.width, cfg.width)
        self.place = nn.Parameter(torch.randn(self.seen + 1, cfg.width) * 0.1)
        self.ahead = nn.Parameter(torch.randn(future * self.patches, cfg.width) * 0.1)
        self.when = nn.Parameter(torch.randn(cfg.past + 1, cfg.width) * 0.1)  # decisions before
        self.blocks = nn.ModuleList(Block(cfg.width, cfg.heads) for _ in range(cfg.depth))
        self.head = nn.Linear(cfg.width, pixels)
        nn.init.zeros_(self.head.weight)  # an untrained model imagines the last frame
        nn.init.zeros_(self.head.bias)

    # --- what is remembered

    def begin(self, batch: int) -> Cache:
        cfg = self.cfg
        shape = (cfg.depth, cfg.heads, cfg.past, self.seen + 1, cfg.width // cfg.heads)
        nothing = self.place.new_zeros(batch, *shape)
        count = torch.zeros(batch, dtype=torch.long, device=nothing.device)
        return Cache(keys=nothing, values=nothing, count=count)

    def observe(self, state: Cache, obs: Obs, actions: Tensor, executed: Tensor) -> Cache:
        tokens = torch.cat([self._seen(obs), self._done(actions)], 1)
        x = tokens + self.place + self.when[state.count][:, None]
        _, own = self._run(x, state, self._within())
        places = torch.arange(self.cfg.past, device=x.device)
        new = (places == state.count[:, None])[:, None, None, :, None, None]
        keys = torch.stack([k for k, _ in own], 1)[:, :, :, None]
        values = torch.stack([v for _, v in own], 1)[:, :, :, None]
        return Cache(
            keys=torch.where(new, keys, state.keys),
            values=torch.where(new, values, state.values),
            count=state.count + 1,
        )

    def recall(self, past: Past, text: tuple[str, ...]) -> Cache:
        """All decisions in one pass, where a group attends to those before it."""
        rows, r = past.executed.shape
        there = past.executed > 0
        count = there.sum(1)
        order = (there.cumsum(1) - 1).clamp(min=0)  # a decision's number in its episode
        every = Obs(
            frames=past.frames.flatten(0, 1),
            proprio=past.proprio.flatten(0, 1),
            text=tuple(t for t in text for _ in range(r)),
        )
        tokens = torch.cat([self._seen(every), self._done(past.actions.flatten(0, 1))], 1)
        x = (tokens + self.place).unflatten(0, (rows, r)) + self.when[order][:, :, None]
        m = self.seen + 1
        group = torch.arange(r, device=x.device).repeat_interleave(m)
        earlier = group < group[:, None]
        same = (group == group[:, None]) & self._within().repeat(r, r)
        mask = same | (earlier & there.repeat_interleave(m, 1)[:, None])
        _, own = self._run(x.flatten(1, 2), None, mask[:, None])
        # to the front, as `observe` has them
        front = torch.arange(r, device=x.device)
        source = (front + (r - count)[:, None]) % r
        held = (front < count[:, None])[:, None, None, :, None, None]

        def ordered(parts: list[Tensor]) -> Tensor:
            whole = torch.stack(parts, 1).unflatten(3, (r, m))
            index = source[:, None, None, :, None, None].expand_as(whole)
            return whole.gather(3, index) * held

        return Cache(
            keys=ordered([k for k, _ in own]), values=ordered([v for _, v in own]), count=count
        )

    # --- what is seen, and imagined

    def encode(self, obs: Obs, state: Cache) -> Seen:
        x = self._seen(obs) + self.place[: self.seen] + self.when[state.count][:, None]
        own_mask = torch.ones(self.seen, self.seen, dtype=torch.bool, device=x.device)
        taps, own = self._run(x, state, own_mask)
        keys = []
        values = []
        for i, (k, v) in enumerate(own):
            keys.append(torch.cat([state.keys[:, i].flatten(2, 3).to(k.dtype), k], 2))
            values.append(torch.cat([state.values[:, i].flatten(2, 3).to(v.dtype), v], 2))
        own_row = own_mask[:1].expand(len(x), 1, 1, -1)
        return Seen(
            last=self._patched(obs.frames[:, -1:]),
            keys=keys,
            values=values,
            mask=torch.cat([self._held(state), own_row], 3),
            taps=torch.stack(taps, 1),
        )

    def predict(self, z: Tensor, sigma: Tensor, context: Seen) -> tuple[Tensor, Tensor]:
        level = sigma.view(-1, 1, 1, 1)
        start = self.embed(context.last) + self.noisy((1 - level) * z)
        x = start.flatten(1, 2) + self.ahead
        x = x + self.level(sinusoid(sigma, self.feature_dim))[:, None]
        own = context.mask.new_ones(len(x), 1, 1, x.shape[1])
        mask = torch.cat([context.mask, own], 3)
        taps = []
        for block, k, v in zip(self.blocks, context.keys, context.values, strict=True):
            x, _ = block(x, (k, v), mask)
            taps.append(x)
        difference = self.head(x).view_as(z)
        features = torch.cat([context.taps, torch.stack(taps, 1)], 2)
        return (z - difference) / level.clamp(min=1e-3), features

    def to_latents(self, future: Tensor, context: Seen) -> Tensor:
        return self._patched(future) - context.last

    def to_frames(self, z: Tensor, context: Seen) -> Tensor:
        p = self.cfg.patch
        h, w = self.spec.image_hw
        x = ((context.last + z + 1) / 2).clamp(0, 1)
        x = x.unflatten(2, (self.spec.views, h // p, w // p)).unflatten(5, (p, p, 3))
        return x.permute(0, 1, 2, 3, 5, 4, 6, 7).flatten(5, 6).flatten(3, 4)

    # --- parts

    def _patched(self, frames: Tensor) -> Tensor:
        """uint8 (B, T, V, H, W, 3) to (B, T, patches, 3 p^2) in [-1, 1]."""
        p = self.cfg.patch
        x = frames.float() / 127.5 - 1
        x = x.unflatten(4, (-1, p)).unflatten(3, (-1, p))  # (B, T, V, h, p, w, p, 3)
        return x.permute(0, 1, 2, 3, 5, 4, 6, 7).flatten(5).flatten(2, 4)

    def _seen(self, obs: Obs) -> Tensor:
        """(B, L, D)"""
        state = self.text(obs.text) + self.proprio(obs.proprio)
        return torch.cat([state[:, None], self.embed(self._patched(obs.frames)).flatten(1, 2)], 1)

    def _done(self, actions: Tensor) -> Tensor:
        """(B, 1, D)"""
        return self.done(actions.flatten(1))[:, None]

    def _within(self) -> Tensor:
        """Which tokens of a decision attend to which, bool (M, M): what was seen is as it was when
        that was not done yet.
        """
        mask = torch.ones(self.seen + 1, self.seen + 1, dtype=torch.bool, device=self.place.device)
        mask[:-1, -1] = False
        return mask

    def _held(self, state: Cache) -> Tensor:
        """Which tokens are remembered, bool (B, 1, 1, R * M)."""
        places = torch.arange(self.cfg.past, device=state.count.device)
        held = (places < state.count[:, None]).repeat_interleave(self.seen + 1, 1)
        return held[:, None, None]

    def _run(
        self, x: Tensor, state: Cache | None, mask: Tensor
    ) -> tuple[list[Tensor], list[tuple[Tensor, Tensor]]]:
        """Through all blocks: x after each, and its keys and values in each.

        mask: among x; of the state, all that is held is attended to.
        """
        if state is not None:
            held = self._held(state).expand(-1, 1, x.shape[1], -1)
            mask = torch.cat([held, mask.expand(len(x), 1, *mask.shape[-2:])], 3)
        taps = []
        own = []
        for i, block in enumerate(self.blocks):
            if state is None:
                nothing = x.new_zeros(len(x), self.cfg.heads, 0, x.shape[2] // self.cfg.heads)
                before = (nothing, nothing)
            else:
                before = (state.keys[:, i].flatten(2, 3), state.values[:, i].flatten(2, 3))
            x, made = block(x, before, mask)
            taps.append(x)
            own.append(made)
        return taps, own


def causal() -> Config:
    """The point mass, with this world model before the built-in actor."""
    cfg = point()
    model = WAMConfig(
        world=CausalConfig(),
        actor=cfg.model.actor,
        frame_offsets=cfg.model.frame_offsets,
        chunk=cfg.model.chunk,
    )
    return replace(cfg, name="causal", model=model)
