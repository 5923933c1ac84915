"""The interface of a World-Action model:
a wrapper brings encoders and velocities, the framework brings the rest.

Solvers, SDE, losses' weights, KL and the loop live once, elsewhere. To bring your own model:
subclass `WorldModel` and `Actor`, put both in a `WAM`, and let `wamrl.models.check.check_wam` tell
you what is missing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from wamrl.models.flow import (
    Chain,
    FlowConfig,
    Sampler,
    chain_log_prob,
    draws,
    euler,
    noisy_steps,
    ode_sample,
    sde_sample,
    time_grid,
    without_noise,
)
from wamrl.models.normalize import Normalization, NormalizeConfig
from wamrl.types import Batch, Clip, Obs


@dataclass(frozen=True, kw_only=True)
class WAMSpec:
    """Static facts of a model; streams are checked against them where they meet."""

    views: int
    image_hw: tuple[int, int]
    history_offsets: tuple[int, ...]  # control steps <= 0, ascending, the last is 0
    frame_offsets: tuple[int, ...]  # imagined frames, control steps > 0, ascending
    chunk: int  # N
    action_dim: int  # A
    proprio_dim: int  # P
    taps: tuple[str, ...]  # features the actor reads and the latent KL holds
    feature_sigma: float  # noise level of the imagined frames when the features are read

    @property
    def imagine_causes_action(self) -> bool:
        """Whether the imagination must be denoised before the
        actor can act (else it may be deferred).
        """
        return self.feature_sigma < 1

    def validate(self) -> None:
        if list(self.history_offsets) != sorted(self.history_offsets) or self.history_offsets[
            -1:
        ] != (0,):
            raise ValueError(
                f"history_offsets={self.history_offsets} must ascend and end with 0 (the present "
                "frame)"
            )
        if (
            not self.frame_offsets
            or min(self.frame_offsets) < 1
            or list(self.frame_offsets) != sorted(self.frame_offsets)
        ):
            raise ValueError(
                f"frame_offsets={self.frame_offsets} must be positive control steps, ascending"
            )
        if not 0 <= self.feature_sigma <= 1:
            raise ValueError(
                f"feature_sigma={self.feature_sigma} must lie in [0, 1] (1 = one pass at pure "
                "noise)"
            )


class WorldModel(nn.Module, ABC):
    """Imagines the frames at `spec.frame_offsets`.
    `Context` below is whatever `encode` returns for B observations.
    """

    spec: WAMSpec
    feature_dim: int  # D
    # False: at sigma = 1 `features` does not look at z, which is then not drawn
    sees_pure_noise: bool = True

    @abstractmethod
    def encode(self, obs: Obs):
        """What all denoising steps share: the encoded history,
        state (normalised) and instruction.
        """

    @abstractmethod
    def velocity(self, z: Tensor, sigma: float, context) -> Tensor:
        """Video velocity at one noise level, shaped like z (B, F, V, H, W, 3).

        z lives in the model's own latent space (here: pixels in [-1, 1]); `to_frames` translates.
        """

    @abstractmethod
    def features(self, z: Tensor | None, sigma: float, context) -> Tensor:
        """What a pass at z and noise level sigma holds at all taps, (B, taps, L, D).
        z: None if it is not looked at.
        """

    def from_features(self, features: Tensor, obs: Obs) -> Tensor | None:
        """The latents of a one-step imagination, where features read at pure noise hold them;
        None: they do not.

        features: float32 (B, taps, L, D), as `features` gave them at sigma = 1.
        A last tap may be all that is needed.
        """
        return None

    @abstractmethod
    def loss(self, clip: Clip, context, seeds: Tensor) -> Tensor:
        """Flow-matching loss of the future frames, one value per sample (B,),
        masked beyond the episode's end.

        seeds: int64 (B,); all that is random about a sample comes from its seed (see `flow.draws`).
        """

    @abstractmethod
    def noise(self, seeds: Tensor) -> Tensor:
        """The starting noise that belongs to each int64 seed (B,):
        replayable, so it is stored as a number.
        """

    @abstractmethod
    def to_frames(self, z: Tensor) -> Tensor:
        """Latents to float32 frames in [0, 1], (B, F, V, H, W, 3)."""


class Actor(nn.Module, ABC):
    """Reads features, emits a chunk by flow matching."""

    @abstractmethod
    def condition(self, features: Tensor, proprio: Tensor):
        """What all denoising steps share,
        from features (B, taps, L, D) and normalised proprio (B, P).
        """

    @abstractmethod
    def velocity(self, a: Tensor, sigma: Tensor, condition, repeat: int = 1) -> Tensor:
        """Action velocity (B*repeat, N, A);
        each condition row serves `repeat` consecutive rows of `a`.
        """


@dataclass(frozen=True, kw_only=True)
class ActionChunk(Batch):
    """What the model decided in B environments, with everything needed to score it again."""

    # (B, taps, L, D) for the update, feature dtype, on the model's device; none kept: (B, 0, 0, 0)
    features: Tensor
    proprio: Tensor  # float32 (B, P) normalised, as the actor read it
    seed: Tensor  # int64 (B,) of the video noise
    actions: Tensor  # float32 (B, N, A) in the environment's units, before clipping
    chain_x: Tensor  # float32 (B, J, N, A) normalised, see flow.Chain
    chain_x_next: Tensor
    chain_step: Tensor
    chain_log_prob: Tensor

    @property
    def chain(self) -> Chain:
        return Chain(
            x=self.chain_x,
            x_next=self.chain_x_next,
            step=self.chain_step,
            log_prob=self.chain_log_prob,
        )

    def some(self, chosen: Tensor) -> ActionChunk:
        """With the transitions `chosen`, int64 (B, C), of each chunk's chain."""
        chosen = chosen.to(self.chain_step.device)
        rows = torch.arange(len(self), device=chosen.device)[:, None]
        return replace(
            self,
            chain_x=self.chain_x[rows, chosen],
            chain_x_next=self.chain_x_next[rows, chosen],
            chain_step=self.chain_step[rows, chosen],
            chain_log_prob=self.chain_log_prob[rows, chosen],
        )

    def drop_features(self) -> ActionChunk:
        """Without the features, which are nearly all of its bytes;
        `WAM.with_features` computes them again.
        """
        return replace(self, features=self.features.new_zeros(len(self), 0, 0, 0))


class WAM(nn.Module):
    """A world model and the actor that reads it. Final: wrap it, do not override it.

    `normalize` stands between the two and everything else: world model and actor see normalised
    states and actions only, whoever calls this class sees the environment's own units.
    """

    def __init__(
        self,
        world: WorldModel,
        actor: Actor,
        feature_steps: int = 2,
        normalize: Normalization | None = None,
        feature_dtype: torch.dtype = torch.float32,
        compute: torch.dtype = torch.float32,
    ):
        """feature_dtype: what the features are rounded to and kept in;
        the actor never reads anything finer.

        compute: bfloat16 runs the world model under autocast, weights stay float32; the actor, its
        losses and log-probabilities are float32 always.
        """
        super().__init__()
        world.spec.validate()
        self.world = world
        self.actor = actor
        self.spec = world.spec
        self.feature_steps = feature_steps
        self.feature_dtype = feature_dtype
        self.compute = compute
        self.sampler: Sampler | None = None  # to deploy, saved beside the weights; None: not chosen
        one = [1.0] * self.spec.action_dim
        self.normalize = normalize or NormalizeConfig().build(
            [-x for x in one], one, self.spec.proprio_dim
        )

    def encode(self, obs: Obs):
        """The world model's context of B observations, raw units."""
        with self._precision():
            return self.world.encode(replace(obs, proprio=self.normalize.state(obs.proprio)))

    def features(self, context, seeds: Tensor) -> Tensor:
        """What the actor reads, float32 (B, taps, L, D): one pass at `spec.feature_sigma`.

        At feature_sigma = 1 that is one pass at pure noise. Below, the noise is first denoised to
        feature_sigma in `feature_steps` Euler steps without gradient;
        only the last pass carries one.
        """
        sigma = self.spec.feature_sigma
        world = self.world
        z = world.noise(seeds) if sigma < 1 or world.sees_pure_noise else None
        with self._precision():
            if sigma < 1:
                grid = 1 - (1 - sigma) * (1 - time_grid(self.feature_steps))
                with torch.no_grad():
                    z = euler(lambda z, s: world.velocity(z, s, context), z, grid)
            features = world.features(z, sigma, context)
        return features.to(self.feature_dtype).float()

    def video_loss(self, clip: Clip, context, seeds: Tensor) -> Tensor:
        """The world model's loss per sample, float32 (B,)."""
        with self._precision():
            return self.world.loss(clip, context, seeds).float()

    def _precision(self) -> torch.autocast:
        device = self.normalize.state_shift.device
        return torch.autocast(device.type, self.compute, enabled=self.compute != torch.float32)

    @torch.no_grad()
    def with_features(self, plan: ActionChunk, obs: Obs) -> ActionChunk:
        """`plan` with float32 features: the cached ones,
        or the same again from what it saw, under the same noise.

        The world model must still be the one that acted, which is why the actor is updated first.
        """
        kept = plan.features.shape[1] > 0
        features = plan.features.float() if kept else self.features(self.encode(obs), plan.seed)
        return replace(plan, features=features)

    @torch.no_grad()
    def imagine(
        self, obs: Obs, seeds: Tensor, steps: int = 2, features: Tensor | None = None
    ) -> Tensor:
        """Imagined frames float32 [0, 1] (B, F, V, H, W, 3),
        from the same noise that the features were read at.

        features: those that this very model read at `obs` and `seeds`;
        where they hold the answer, no pass is needed.
        """
        with self._precision():
            z = (
                self.world.from_features(features, obs)
                if features is not None and steps == 1
                else None
            )
        if z is None:
            context = self.encode(obs)
            with self._precision():
                z = self.world.noise(seeds)
                z = euler(lambda z, s: self.world.velocity(z, s, context), z, time_grid(steps))
        return self.world.to_frames(z)

    @torch.no_grad()
    def act(
        self,
        obs: Obs,
        seeds: Tensor,
        flow: FlowConfig,
        generators: list[torch.Generator],
        sampler: Sampler,
    ) -> ActionChunk:
        """Decide one chunk for each of B observations.

        seeds: int64 (B,) of the video noise. generators: one per row, so that an episode's noise
        does not depend on which other episodes share the batch. `ode` and `zero` integrate the ODE
        (the chain is then empty, J = 0).
        """
        features = self.features(self.encode(obs), seeds)
        state = self.normalize.state(obs.proprio)
        condition = self.actor.condition(features, state)
        shape = (self.spec.chunk, self.spec.action_dim)
        device = obs.proprio.device

        def velocity(a, sigma):
            return self.actor.velocity(a, sigma, condition)

        def draw(*lead):
            return torch.stack([torch.randn(*lead, *shape, generator=g) for g in generators]).to(
                device
            )

        from_zero = sampler == "zero" or (sampler == "explore" and flow.start == "zero")
        x = torch.zeros(len(generators), *shape, device=device) if from_zero else draw()
        if sampler == "explore":
            noisy = torch.cat([noisy_steps(flow, 1, g) for g in generators])
            actions, chain = sde_sample(velocity, x, flow, noisy, draw(noisy.shape[1]))
        else:
            actions = ode_sample(velocity, x, time_grid(flow.steps, flow.shift))
            none = actions.new_zeros(len(x), 0, *shape)
            chain = Chain(x=none, x_next=none, step=none[..., 0, 0].long(), log_prob=none)
        return ActionChunk(
            features=features.to(self.feature_dtype),
            proprio=state,
            seed=seeds,
            actions=self.normalize.raw_actions(actions, obs.proprio),
            chain_x=chain.x,
            chain_x_next=chain.x_next,
            chain_step=chain.step,
            chain_log_prob=chain.log_prob,
        )

    def log_prob(self, plan: ActionChunk, flow: FlowConfig) -> Tensor:
        """Elementwise log-density (B, J, N, A) of a plan's chain under the present actor,
        on the cached features.
        """
        condition = self.actor.condition(plan.features.float(), plan.proprio)
        j = plan.chain_step.shape[1]
        return chain_log_prob(
            lambda a, s: self.actor.velocity(a, s, condition, repeat=j), plan.chain, flow
        )

    @torch.no_grad()
    def noise_free(self, plan: ActionChunk, flow: FlowConfig, obs: Obs) -> Tensor:
        """The chunks of `plan` without exploration noise: float32 (B, N, A), raw units, unclipped.

        The ODE from the same initial draw, on the features that acted (`with_features`): this model
        must still be the one that acted. An evaluated plan has no noise: its actions are returned.
        """
        if not plan.chain_step.shape[1]:
            return plan.actions
        condition = self.actor.condition(self.with_features(plan, obs).features, plan.proprio)
        chunks = without_noise(lambda a, s: self.actor.velocity(a, s, condition), plan.chain, flow)
        return self.normalize.raw_actions(chunks, obs.proprio)

    def action_loss(self, clip: Clip, features: Tensor, seeds: Tensor) -> Tensor:
        """Flow-matching loss of the actions per sample (B,):
        mean of |v - (eps - a)|^2 over unmasked entries.
        """
        a = self.normalize.actions(clip.actions, clip.proprio)
        state = self.normalize.state(clip.proprio)
        sigma, eps = draws(seeds, 1, a.shape[1:], a.device)
        sigma = sigma.squeeze(1).to(a.device)
        x = a + (eps - a) * sigma.view(-1, 1, 1)
        v = self.actor.velocity(x, sigma, self.actor.condition(features, state))
        error = (v - (eps - a)).square().mean(-1) * clip.action_mask
        return error.sum(-1) / clip.action_mask.sum(-1).clamp(min=1)


@torch.no_grad()
def ema_update(average: nn.Module, model: nn.Module, decay: float) -> None:
    """average <- decay average + (1 - decay) model"""
    for a, p in zip(average.parameters(), model.parameters(), strict=True):
        a.lerp_(p, 1 - decay)
