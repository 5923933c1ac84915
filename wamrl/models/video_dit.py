"""The built-in world model: a flow-matching video transformer on raw pixels.

From 1 M to 2 B parameters by configuration.
Tokens: [instruction, proprio, history patches] are the context. The patches of the noisy future
attend to the context and to each other. The context never looks at the future, so it is encoded
once for all denoising steps.
The network predicts the clean frame as *last frame + residual* (zero at initialisation), and the
velocity v follows from it:
    x_hat = last + net((1 - sigma) z),   v = (z - x_hat) / sigma
The input is scaled by its share of signal. At sigma = 1 the noise is independent of the frames, so
the best prediction does not depend on it, and the network does not see it: neither imagination nor
the features read there wobble. So the pass at pure noise is a function of the context and computed
with it. Features, imagination and the loss's rows at sigma = 1 share it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from wamrl.models.base import WAMSpec, WorldModel, WorldModelConfig
from wamrl.models.flow import (
    draws,
    euler,
    expand,
    interpolate,
    time_grid,
    time_grid_down_to,
)
from wamrl.models.layers import Attention, TextEmbedding, mlp, modulate, sinusoid, zero_
from wamrl.models.text import EmbeddedText
from wamrl.runtime.ranges import Count, Fraction, NotNegative, Size, check_ranges
from wamrl.types import Clip, Obs


@dataclass(frozen=True, kw_only=True)
class VideoDiTConfig(WorldModelConfig):
    """`width=128, depth=6` is the CPU size; 768 x 12 is ~0.1 B and 2304 x 28 ~2 B parameters."""

    width: Size = 128
    depth: Annotated[int, Ge(1), Le(256)] = 6
    heads: Size = 4
    patch: Annotated[int, Ge(1), Le(256)] = 16
    taps: tuple[Count, ...] = (2, 4, 6)  # 1-based blocks whose outputs the actor reads
    # a file of `wamrl embed`: instructions as a text encoder reads them; "": hashed words, learned
    text: str = ""
    # one pass at pure noise; 0 was no better and costs more to act (docs/results.md)
    feature_sigma: Fraction = 1.0
    # bounds the loss weight 1 / sigma^2 of nearly clean samples
    sigma_floor: Annotated[float, Gt(0), Le(1)] = 0.3
    # of the training noise levels are exactly 1, where the actor reads
    noise_fraction: Fraction = 0.3
    # activations of the blocks in the backward pass: a third more arithmetic, far less memory
    recompute: bool = False
    motion_weight: NotNegative = 4.0  # extra loss weight of patches that are predicted to move

    @property
    def tap_names(self) -> tuple[str, ...]:
        """The tapped blocks: "block2" and so on."""
        return tuple(f"block{i}" for i in self.taps)

    def validate(self) -> None:
        """Raise ValueError with one sentence that says what to do."""
        check_ranges(self, "model.world")
        if self.width % self.heads:
            raise ValueError(
                f"model.world: heads={self.heads} must divide width={self.width}; choose others"
            )
        if not self.taps or max(self.taps) > self.depth:
            raise ValueError(
                f"model.world: taps={self.taps} is not possible: name blocks of 1..{self.depth}"
            )

    def build(self, spec: WAMSpec) -> VideoDiT:
        """See `WorldModelConfig`; ValueError where the patches do not fit the images."""
        self.validate()
        return VideoDiT(self, spec)


@dataclass(frozen=True, kw_only=True)
class Future:
    """What a pass over the future's tokens leaves."""

    tokens: Tensor  # (B, F * patches, D) after the last block
    taps: list[Tensor]  # the same after every tapped block


@dataclass(frozen=True, kw_only=True)
class Context:
    """The encoded past of B environments."""

    last: Tensor  # (B, 1, patches, 3 p^2) the present frame in [-1, 1]
    tokens: Tensor  # (B, 1, patches, D) the same, embedded: what every future frame starts from
    layers: list[tuple[Tensor, Tensor]]  # keys and values of every block
    taps: Tensor  # (B, taps, L_context, D)
    pure: Future | None = None  # the pass at pure noise, where that is read; see `VideoDiT._future`

    def rows(self, index: Tensor) -> Context:
        """The environments of an int64 index (m,), without their pass at pure noise."""
        layers = [(k[index], v[index]) for k, v in self.layers]
        return Context(
            last=self.last[index], tokens=self.tokens[index], layers=layers, taps=self.taps[index]
        )


def modulations(width: int) -> nn.Sequential:
    """Shift, scale and gate of a `Block`'s two halves from a vector (B, D): (B, 6 D)."""
    made = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 6 * width))
    _, _, gate1, _, _, gate2 = made[2].bias.data.chunk(6)
    gate1.fill_(1.0)  # gates start open
    gate2.fill_(1.0)
    return made


class Block(nn.Module):
    """Pre-norm transformer block with AdaLN.

    The modulation is a projection that all blocks share plus this block's own offset.
    """

    def __init__(self, width: int, heads: int, recompute: bool):
        super().__init__()
        self.recompute = recompute
        self.attention = Attention(width, heads)
        self.mlp = mlp(width, 4 * width)
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.offset = nn.Parameter(torch.zeros(6, 1, width))

    def forward(
        self, x: Tensor, modulation: Tensor, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """x (B, L, D) attends to `past` and itself. Returns x and its own keys and values.

        modulation: (B, 6, D) or (1, 6, D), or of each token (B, 6, L, D).
        past: keys and values, (B, heads, L', D / heads) each.
        """
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(
                self._forward, x, modulation, past, use_reentrant=False, preserve_rng_state=False
            )
        return self._forward(x, modulation, past)

    def _forward(
        self, x: Tensor, modulation: Tensor, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        if modulation.dim() == 3:
            modulation = modulation.unsqueeze(2)
        s1, c1, g1, s2, c2, g2 = (modulation + self.offset).unbind(1)
        h = modulate(self.norm(x), s1, c1)
        own = self.attention.keys_values(h)
        k, v = own
        if past is not None:
            k = torch.cat([past[0], k], 2)
            v = torch.cat([past[1], v], 2)
        x = torch.addcmul(x, g1, self.attention(h, k, v))
        x = torch.addcmul(x, g2, self.mlp(modulate(self.norm(x), s2, c2)))
        return x, own


class VideoDiT(WorldModel):
    """The model described above; its latents are pixels in [-1, 1]."""

    def __init__(self, cfg: VideoDiTConfig, spec: WAMSpec):
        super().__init__()
        h, w = spec.image_hw
        p = cfg.patch
        if h % p or w % p:
            raise ValueError(
                f"image {h}x{w} is not divisible into patches of {p}; change image_size or patch"
            )
        self.cfg = cfg
        self.spec = spec
        self.feature_dim = cfg.width
        future = len(spec.frame_offsets)
        frames = len(spec.history_offsets) + len(spec.frame_offsets)
        patches = spec.views * (h // p) * (w // p)
        self.present = slice(-(future + 1) * patches, -future * patches)
        d = cfg.width
        pixels = 3 * p * p
        self.text = EmbeddedText(cfg.text, d) if cfg.text else TextEmbedding(d)
        self.proprio = mlp(spec.proprio_dim, d, d)
        self.patch_past = nn.Linear(pixels, d)
        self.patch_last = nn.Linear(pixels, d)
        self.patch_noisy = nn.Linear(pixels, d, bias=False)
        self.position = nn.Parameter(torch.randn(1, 1, patches, d) * 0.02)
        self.frame_position = nn.Parameter(torch.randn(1, frames, 1, d) * 0.02)
        self.condition = modulations(d)
        self.blocks = nn.ModuleList(Block(d, cfg.heads, cfg.recompute) for _ in range(cfg.depth))
        self.norm = nn.LayerNorm(d)
        self.head = zero_(nn.Linear(d, pixels))

    def encode(self, obs: Obs) -> Context:
        """The past, and the pass at pure noise where that is read."""
        frames = self._pixels(obs.frames)
        t = obs.frames.shape[1]
        past = self.patch_past(frames) + self.position + self.frame_position[:, :t]
        x = torch.cat([self._state(obs), past.flatten(1, 2)], 1)
        modulation = self._modulation(x.new_zeros(1))
        layers = []
        taps = []
        for i, block in enumerate(self.blocks, 1):
            x, own = block(x, modulation, None)
            layers.append(own)
            if i in self.cfg.taps:
                taps.append(x)
        last = frames[:, -1:]
        tokens = self.patch_last(last) + self.position
        context = Context(last=last, tokens=tokens, layers=layers, taps=torch.stack(taps, 1))
        if self.spec.imagine_causes_action:  # then only the imagination starts from pure noise
            return context
        return replace(context, pure=self._future(None, x.new_ones(1), context))

    def features(self, context: Context, seeds: Tensor) -> Tensor:
        """Tokens of past and future after every tapped block, (B, taps, L, D)."""
        sigma = self.spec.feature_sigma
        z = None  # of pure noise nothing is seen, so none is drawn
        if sigma < 1:
            with torch.no_grad():
                grid = time_grid_down_to(sigma, self.spec.feature_steps)
                z = self._denoise(context, seeds, grid)
        future = self._at(z, sigma, context)
        return torch.cat([context.taps, torch.stack(future.taps, 1)], 2)

    def imagine(self, context: Context, seeds: Tensor, steps: int) -> Tensor:
        """See `WorldModel`; one step gives the conditional mean, whatever the seed."""
        return _frames(self._denoise(context, seeds, time_grid(steps)))

    def imagine_from_features(self, features: Tensor, obs: Obs) -> Tensor | None:
        """See `wam.ImaginesFromFeatures`: at pure noise the last block's tokens hold the answer."""
        if self.spec.imagine_causes_action or self.cfg.depth not in self.cfg.taps:
            return None
        last = self._pixels(obs.frames[:, -1:])
        f = len(self.spec.frame_offsets)
        tokens = features[:, self.cfg.taps.index(self.cfg.depth), -f * last.shape[2] :]
        shape = (len(last), f, *obs.frames.shape[2:])
        return _frames(self._unpatch(last + self._residual(tokens), shape))

    def loss(self, clip: Clip, context: Context, seeds: Tensor) -> Tensor:
        """Mean over real frames of w |x_hat - x|^2 / max(sigma, floor)^2.

        w = 1 + motion_weight min(8, p / (mean p + 1e-3)) with
        p = |x_hat - last|^2 of a patch, detached.
        The motion is that of the prediction, so w is a function of what the network saw.
        Then x_hat goes to the mean of what may follow: E[w x] / E[w] = E[x].
        Weighed by the target's motion, a motion of chance 0.1 was imagined at 0.6 to 0.8.
        """
        target = self._pixels(clip.future)
        chance, eps = draws(seeds, 2, target.shape[1:], target.device)
        sigma = torch.where(chance[:, 1] < self.cfg.noise_fraction, 1.0, chance[:, 0])
        moved = target - context.last  # what the residual should be
        residual = self._residual(self._at_each(target, eps, sigma, context))
        motion = residual.detach().square().mean(-1)  # (B, F, patches)
        relative = motion / (motion.mean((1, 2), keepdim=True) + 1e-3)  # 0 while it copies
        of_motion = 1 + self.cfg.motion_weight * relative.clamp(max=8)
        error = (residual - moved).square().mean(-1) * of_motion
        of_noise = sigma.to(error.device).clamp(min=self.cfg.sigma_floor) ** -2
        error = error.mean(-1) * clip.future_mask * of_noise[:, None]
        return error.sum(-1) / clip.future_mask.sum(-1).clamp(min=1)

    def noise(self, seeds: Tensor) -> Tensor:
        """What a denoising starts from: standard normal (B, F, V, H, W, 3), a row from its seed."""
        shape = (len(self.spec.frame_offsets), self.spec.views, *self.spec.image_hw, 3)
        return draws(seeds, 0, shape, self.position.device)[1]

    def velocity(self, z: Tensor, sigma: float, context: Context) -> Tensor:
        """What one pass predicts at z and one noise level, shaped like z (B, F, V, H, W, 3)."""
        future = self._at(z, sigma, context)
        clean = self._unpatch(context.last + self._residual(future.tokens), z.shape)
        return (z - clean) / max(sigma, 1e-3)  # no larger: the last Euler step ends at `clean`

    def _denoise(self, context: Context, seeds: Tensor, grid: Tensor) -> Tensor:
        """Pixels in [-1, 1] (B, F, V, H, W, 3), from the seeds' noise along the grid."""
        return euler(lambda z, s: self.velocity(z, s, context), self.noise(seeds), grid)

    def _at(self, z: Tensor | None, sigma: float, context: Context) -> Future:
        """`_future` of frames z (B, F, V, H, W, 3) at one noise level; z: None at pure noise."""
        if sigma == 1 and context.pure is not None:
            return context.pure
        level = context.last.new_full((1,), sigma)
        return self._future(None if sigma == 1 else self._patches(z), level, context)

    def _at_each(self, target: Tensor, eps: Tensor, sigma: Tensor, context: Context) -> Tensor:
        """Tokens after the last block, (B, F * patches, D), each row at its own noise level.

        target, eps: patches (B, F, patches, 3 p^2). sigma: (B,), on the CPU.
        Rows at pure noise are taken from the context, where it has them.
        """
        if context.pure is None:
            sigma = sigma.to(target.device)
            return self._future(interpolate(target, eps, sigma), sigma, context).tokens
        rows = (sigma < 1).nonzero().squeeze(1)
        if not len(rows):  # any row will do; no kernel likes none
            rows = torch.arange(min(1, len(sigma)))
        sigma = sigma[rows].to(target.device)
        rows = rows.to(target.device)
        noisy = interpolate(target[rows], eps[rows], sigma)
        future = self._future(noisy, sigma, context.rows(rows))
        return context.pure.tokens.index_copy(0, rows, future.tokens)

    def _future(self, noisy: Tensor | None, sigma: Tensor, context: Context) -> Future:
        """One pass over the future.

        noisy: patches (B, F, patches, 3 p^2) at sigma (B,) or (1,).
        None: pure noise, of which nothing is seen.
        """
        x = context.tokens + self.frame_position[:, -len(self.spec.frame_offsets) :]
        if noisy is not None:
            x = x + self.patch_noisy((1 - expand(sigma, noisy)) * noisy)
        x = x.flatten(1, 2)
        modulation = self._modulation(sigma)
        taps = []
        for i, (block, past) in enumerate(zip(self.blocks, context.layers, strict=True), 1):
            x, _ = block(x, modulation, past)
            if i in self.cfg.taps:
                taps.append(x)
        return Future(tokens=x, taps=taps)

    def _residual(self, x: Tensor) -> Tensor:
        """Clean minus last frame, as patches (B, F, patches, 3 p^2)."""
        return self.head(self.norm(x)).unflatten(1, (len(self.spec.frame_offsets), -1))

    def _state(self, obs: Obs) -> Tensor:
        return torch.stack([self.text(obs.text), self.proprio(obs.proprio)], 1)

    def _modulation(self, sigma: Tensor) -> Tensor:
        return self.condition(sinusoid(sigma, self.cfg.width)).unflatten(-1, (6, -1))

    def _pixels(self, frames: Tensor) -> Tensor:
        """uint8 frames (B, T, V, H, W, 3) to patches in [-1, 1].

        Rearranged as bytes, which moves a quarter of the memory.
        """
        wanted = (self.spec.views, *self.spec.image_hw)
        assert frames.shape[2:5] == wanted, (frames.shape, self.spec)
        return self._patches(frames).float() / 127.5 - 1

    def _patches(self, x: Tensor) -> Tensor:
        """(B, T, V, H, W, C) -> (B, T, V * patches, patch * patch * C)"""
        p = self.cfg.patch
        x = x.unflatten(4, (-1, p)).unflatten(3, (-1, p))  # B T V h p w p C
        return x.transpose(4, 5).flatten(5).flatten(2, 4)

    def _unpatch(self, x: Tensor, shape: torch.Size) -> Tensor:
        """The inverse of `_patches` for frames of `shape` (B, T, V, H, W, 3)."""
        b, t, v, h, w, c = shape
        p = self.cfg.patch
        x = x.view(b, t, v, h // p, w // p, p, p, c)
        return x.transpose(4, 5).reshape(shape)


def _frames(z: Tensor) -> Tensor:
    """Pixels in [-1, 1] to float32 frames in [0, 1]."""
    return ((z.float() + 1) / 2).clamp(0, 1)
