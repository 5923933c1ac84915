"""`WAM`: a world model and the actor that reads it; and `ActionChunk`, what it decides.

The noise of imaginations comes from seeds, the noise of actions from generators: both can be
repeated. Everything that touches a log-probability is float32.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from wamrl.models.base import Actor, EpisodicWorldModel, ReentrantActor, WorldModel
from wamrl.models.flow import (
    Chain,
    FlowConfig,
    chain_log_prob,
    draws,
    noisy_steps,
    ode_sample,
    sde_sample,
    time_grid,
    without_noise,
)
from wamrl.models.normalize import Normalization, NormalizeConfig
from wamrl.types import Batch, Clip, Obs, Past, Sampler, where


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
        """The noisy transitions by which the chunk was sampled; J = 0 without exploration."""
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

    @property
    def has_features(self) -> bool:
        """Whether it still holds what the actor read; else `WAM.with_features` computes it."""
        return self.features.shape[1] > 0

    def drop_features(self) -> ActionChunk:
        """Without the features, which are nearly all of its bytes.

        `WAM.with_features` computes them again.
        """
        return replace(self, features=self.features.new_zeros(len(self), 0, 0, 0))


@runtime_checkable
class ImaginesFromFeatures(Protocol):
    """A saving that a world model may offer: features that hold the answer need no second pass."""

    def imagine_from_features(self, features: Tensor, obs: Obs) -> Tensor | None:
        """The frames of `imagine` in one step, where these features hold them, else None.

        features: float32 (B, taps, L, D), what this very model read at `obs`.
        """


class WAM(nn.Module):
    """A world model and the actor that reads it. Final: wrap it, do not override it.

    `normalize` stands between the two and everything else: world model and actor see normalised
    states and actions only, whoever calls this class sees the environment's own units.
    """

    def __init__(
        self,
        world: WorldModel,
        actor: Actor,
        normalize: Normalization | None = None,
        feature_dtype: torch.dtype = torch.float32,
        compute: torch.dtype = torch.float32,
    ):
        """normalize: None stands for actions in -1..1 and states as they are.

        feature_dtype: what the features are rounded to and kept in; the actor never reads anything
        finer. compute: bfloat16 runs the world model under autocast, weights stay float32; the
        actor, its losses and log-probabilities are float32 always.
        """
        super().__init__()
        world.spec.validate()
        if isinstance(actor, ReentrantActor):
            actor.shared(world)  # refuses a world model that has no such thing
        if isinstance(world, EpisodicWorldModel) != (world.spec.past > 0):
            raise ValueError(
                f"past={world.spec.past}: an EpisodicWorldModel remembers 1 decision or more, any "
                "other world model 0; set `past` of its configuration"
            )
        self.world = world
        self.actor = actor
        self.spec = world.spec
        self.feature_dtype = feature_dtype
        self.compute = compute
        self.sampler: Sampler | None = None  # to deploy, saved beside the weights; None: not chosen
        one = [1.0] * self.spec.action_dim
        self.normalize = normalize or NormalizeConfig().build(
            [-x for x in one], one, self.spec.proprio_dim
        )

    def policy(self, shared: bool) -> tuple[nn.Module, ...]:
        """What the policy gradient trains: the actor; and, if `shared`, what it runs through of the
        world model. ValueError where there is no such thing.
        """
        if not shared:
            return (self.actor,)
        if not isinstance(self.actor, ReentrantActor):
            raise ValueError(
                "train.learner.shared: this actor runs through nothing of the world model; leave "
                "it False"
            )
        return self.actor, self.actor.shared(self.world)

    def condition(self, features: Tensor, proprio: Tensor) -> Any:
        """What all denoising steps of the actor share.

        features: float32 (B, taps, L, D). proprio: float32 (B, P), normalised.
        """
        if isinstance(self.actor, ReentrantActor):
            return self.actor.condition(features, proprio, self.world)
        return self.actor.condition(features, proprio)

    def precision(self) -> torch.autocast:
        """The block in which the world model is called: autocast to `compute`."""
        device = self.normalize.state_shift.device
        return torch.autocast(device.type, self.compute, enabled=self.compute != torch.float32)

    def encode(self, obs: Obs, state: Batch | None = None) -> Any:
        """The world model's context of B observations, raw units.

        state: of a model that remembers, after `obs.past`; None: it is recalled.
        """
        seen = replace(obs, proprio=self.normalize.state(obs.proprio), past=None)
        if isinstance(self.world, EpisodicWorldModel):
            state = self.recall(obs.past, obs.text) if state is None else state
            with self.precision():
                return self.world.encode(seen, state)
        with self.precision():
            return self.world.encode(seen)

    def recall(self, past: Past | None, text: tuple[str, ...]) -> Batch:
        """The state of a model that remembers, after a past in raw units."""
        if past is None:
            raise ValueError(
                "this world model remembers: its observations need their `past` (see Memory in "
                "wamrl/rollout/memory.py)"
            )
        with self.precision():
            return self.world.recall(self._normalized(past), text)

    @torch.no_grad()
    def observe(self, state: Batch, step: Past, text: tuple[str, ...]) -> Batch:
        """The state after one more decision, raw units (R = 1); a row whose step is empty stays."""
        obs, actions, executed = self._normalized(step).decision(0, text)
        with self.precision():
            after = self.world.observe(state, obs, actions, executed)
        return where(executed > 0, after, state)

    def _normalized(self, past: Past) -> Past:
        """As the world model sees it; actions that were not executed stay 0."""
        places = past.executed.shape
        done = torch.arange(past.actions.shape[2], device=past.executed.device)
        done = (done < past.executed[..., None])[..., None]
        actions = self.normalize.actions(past.actions.flatten(0, 1), past.proprio.flatten(0, 1))
        return replace(
            past,
            proprio=self.normalize.state(past.proprio),
            actions=actions.unflatten(0, places).masked_fill(~done, 0.0),
        )

    def features(self, context: Any, seeds: Tensor) -> Tensor:
        """What the actor reads, float32 (B, taps, L, D), rounded to `feature_dtype`.

        seeds: int64 (B,) of the video noise.
        """
        with self.precision():
            features = self.world.features(context, seeds)
        return features.to(self.feature_dtype).float()

    def video_loss(self, clip: Clip, context: Any, seeds: Tensor) -> Tensor:
        """The world model's loss per sample, float32 (B,)."""
        state = self.normalize.state(clip.proprio)
        actions = self.normalize.actions(clip.actions, clip.proprio)
        clip = replace(clip, proprio=state, actions=actions)
        with self.precision():
            return self.world.loss(clip, context, seeds).float()

    @torch.no_grad()
    def with_features(self, plan: ActionChunk, obs: Obs) -> ActionChunk:
        """`plan` with float32 features: the kept ones, or the same again from what it saw.

        The noise is the same, so the world model must still be the one that acted. That is why the
        actor is updated first.
        """
        kept = plan.has_features
        features = plan.features.float() if kept else self.features(self.encode(obs), plan.seed)
        return replace(plan, features=features)

    @torch.no_grad()
    def imagine(
        self, obs: Obs, seeds: Tensor, steps: int = 2, features: Tensor | None = None
    ) -> Tensor:
        """Imagined frames float32 in [0, 1], (B, F, V, H, W, 3), from the noise of `features`.

        features: float32, what this very model read at `obs` and `seeds`, if it is at hand.
        Where it holds the answer (`ImaginesFromFeatures`), no pass is needed.
        """
        if features is not None and steps == 1 and isinstance(self.world, ImaginesFromFeatures):
            with self.precision():
                frames = self.world.imagine_from_features(features, obs)
            if frames is not None:
                return frames
        context = self.encode(obs)
        with self.precision():
            return self.world.imagine(context, seeds, steps)

    @torch.no_grad()
    def act(
        self,
        obs: Obs,
        seeds: Tensor,
        flow: FlowConfig,
        generators: list[torch.Generator],
        sampler: Sampler,
        state: Batch | None = None,
    ) -> ActionChunk:
        """Decide one chunk for each of B observations.

        seeds: int64 (B,) of the video noise. generators: one per row, so that an episode's noise
        does not depend on which other episodes share the batch. `ode` and `zero` integrate the ODE
        (the chain is then empty, J = 0). state: see `encode`.
        """
        features = self.features(self.encode(obs, state), seeds)
        state = self.normalize.state(obs.proprio)
        condition = self.condition(features, state)
        shape = (self.spec.chunk, self.spec.action_dim)
        device = obs.proprio.device

        def velocity(a: Tensor, sigma: Tensor) -> Tensor:
            return self.actor.velocity(a, sigma, condition)

        def draw(*lead: int) -> Tensor:
            rows = [torch.randn(*lead, *shape, generator=g) for g in generators]
            return torch.stack(rows).to(device)

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
        """Elementwise log-density (B, J, N, A) of a plan's chain under the present actor.

        On the features that `plan` holds (`with_features`).
        """
        condition = self.condition(plan.features.float(), plan.proprio)
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
        condition = self.condition(self.with_features(plan, obs).features, plan.proprio)
        chunks = without_noise(lambda a, s: self.actor.velocity(a, s, condition), plan.chain, flow)
        return self.normalize.raw_actions(chunks, obs.proprio)

    def action_loss(self, clip: Clip, features: Tensor, seeds: Tensor) -> Tensor:
        """Flow-matching loss of the actions per sample, (B,).

        The mean of |v - (eps - a)|^2 over action dims and unmasked actions.
        seeds: int64 (B,) of noise level and noise.
        """
        a = self.normalize.actions(clip.actions, clip.proprio)
        state = self.normalize.state(clip.proprio)
        sigma, eps = draws(seeds, 1, a.shape[1:], a.device)
        sigma = sigma.squeeze(1).to(a.device)
        x = a + (eps - a) * sigma.view(-1, 1, 1)
        v = self.actor.velocity(x, sigma, self.condition(features, state))
        error = (v - (eps - a)).square().mean(-1) * clip.action_mask
        return error.sum(-1) / clip.action_mask.sum(-1).clamp(min=1)


@torch.no_grad()
def ema_update(average: nn.Module, model: nn.Module, decay: float) -> None:
    """average <- decay average + (1 - decay) model, parameter by parameter."""
    for a, p in zip(average.parameters(), model.parameters(), strict=True):
        a.lerp_(p, 1 - decay)
