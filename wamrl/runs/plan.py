"""What a run of a configuration needs, before it is begun: memory by phase, disk, arithmetic.

The model is built from its configuration without weights, and every phase of a run is gone through
once on shapes (`runtime.shapes`): what the real functions hold at their peak is counted, not
guessed. Beside that stand the weights, their copies, AdamW's moments and what is kept of a rollout.

With weights over N ranks (`sft.shard`, `train.world.shard`) a rank holds a part of each; while it
trains, all of what lies outside the blocks and two blocks at a time; while it acts and scores, all.
Gradients of a sharded pass are added to its activations as if both were at their peak at once.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from wamrl.config import Config
from wamrl.envs.base import EnvSpec
from wamrl.models.latent import frozen_vae
from wamrl.models.wam import WAM, ActionChunk
from wamrl.rl.policy import ClippedPolicyConfig
from wamrl.rl.world_update import MixedBatch, WorldUpdate, frozen_copy
from wamrl.runs.needs import (
    Needs,
    Part,
    Phase,
    bytes_of,
    host_bytes,
    parts_of,
    trained_bytes,
)
from wamrl.runs.passes import Passes
from wamrl.runtime import sharding
from wamrl.runtime.shapes import Used, shapes_only
from wamrl.sft import joint_loss
from wamrl.types import Clip

MOMENTS = 2  # AdamW's, float32, of every weight that learns
IMAGINED = 64  # decisions whose imagination is computed at once (`rollout.samples.imagine`)
FITTED = 256  # clips on which the latent KL's variances are taken (`online.state`)
JOINED = 2  # a rollout's features as it ends: kept and joined, then joined and sorted
GATHERED = 2  # blocks that are whole at once while sharded weights train: this one and the next


class Planner:
    """One configuration's model, gone through on shapes; `needs` for any number of GPUs."""

    def __init__(self, cfg: Config, env: EnvSpec) -> None:
        """ValueError of one sentence where the parts do not fit together."""
        cfg.validate()
        self.cfg = cfg
        self.env = env
        with torch.device("meta"):
            self.wam = cfg.model.build(
                views=len(env.views),
                image_hw=env.image_hw,
                action_dim=env.action_dim,
                proprio_dim=env.proprio_dim,
                bounds=env.bounds,
            )
        self.vae = frozen_vae(self.wam.world)
        self.frozen = frozen_copy(self.wam)
        self.average = frozen_copy(self.wam)
        beside = [m for m in (self.frozen, self.average, self.vae) if m is not None]
        self.passes = Passes(self.wam, *beside)

    def needs(self, gpus: int) -> Needs:
        """ValueError where so many ranks cannot share the work."""
        return Needs(
            gpus=gpus,
            parts=self.parts,
            phases=tuple(self._phases(gpus)),
            host=host_bytes(self.cfg, self.env, self.decisions, gpus),
            disk=self._disk(),
            decisions=self.decisions,
            without_vae=self.vae is None and getattr(self._latent, "folder", None) == "",
        )

    def like(self, cfg: Config) -> Planner:
        """For another configuration; one of the same model takes over what was measured of it."""
        if cfg.model != self.cfg.model:
            return Planner(cfg, self.env)
        other = copy.copy(self)
        other.cfg = cfg
        return other

    def fits(self, gpus: int, limit: float) -> bool:
        """Whether no phase needs more bytes on a GPU. What is there anyway is looked at first, and
        nothing after the first phase that does not fit.
        """
        if self.least(gpus) > limit:
            return False
        return all(phase.total <= limit for phase in self._phases(gpus))

    def least(self, gpus: int) -> float:
        """Bytes of fine-tuning on a GPU without any activation."""
        return sum(self._tuning(gpus).values())

    # --- sizes

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """The world model by its own parts, VAE, actor, value head."""
        return tuple(parts_of(self.wam, self.vae, self._critic))

    @property
    def decisions(self) -> int:
        """Of an iteration, all ranks together, if every episode lasts to the horizon."""
        episodes = self.cfg.train.episodes(self.env.horizon)
        return episodes * -(-self.env.horizon // self.cfg.model.chunk)

    @property
    def _latent(self) -> Any:
        return getattr(self.cfg.model.world, "latent", None)

    @cached_property
    def _critic(self) -> nn.Module | None:
        value = getattr(self.cfg.train.learner, "value", None)
        if value is None or "policy" not in self.cfg.train.learn:
            return None
        spec = self.wam.spec
        with torch.device("meta"):
            return value.build(len(spec.taps), self.wam.world.feature_dim, spec.proprio_dim)

    def _models(self, copies: Iterable[WAM], gpus: int, shard: bool) -> dict[str, float]:
        """The weights of the model and of its copies on one GPU; what they share counts once."""
        seen: set[int] = set()
        world = bytes_of(self.wam.world, seen)
        actor = bytes_of(self.wam.actor, seen) + bytes_of(self.wam.normalize, seen)
        worlds = 0.0
        actors = 0.0
        for other in copies:
            worlds += bytes_of(other.world, seen)
            actors += bytes_of(other.actor, seen) + bytes_of(other.normalize, seen)
        share = gpus if shard else 1
        held = {"weights": world / share + actor, "copies": worlds / share + actors}
        held["VAE"] = 0.0 if self.vae is None else bytes_of(self.vae, seen)
        return held

    def _moments(self, world: bool, actors: int, gpus: int, shard: bool) -> float:
        share = gpus if shard else 1
        of_world = trained_bytes(self.wam.world) / share if world else 0.0
        return MOMENTS * (of_world + actors * trained_bytes(self.wam.actor))

    def _online_moments(self, gpus: int, shard: bool) -> float:
        """Of the world model, the actor once for each way it learns, and the value head."""
        learn = self.cfg.train.learn
        actors = ("policy" in learn) + ("clone" in learn)
        head = 0.0 if self._critic is None else trained_bytes(self._critic)
        return self._moments("world" in learn, actors, gpus, shard) + MOMENTS * head

    def _whole(self, worlds: int) -> float:
        """Sharded world models that were gathered to act."""
        return worlds * bytes_of(self.wam.world, set())

    def _gathered(self, worlds: int) -> float:
        """What of sharded world models is whole while they train: GATHERED blocks, and the rest."""
        blocks = [bytes_of(block, set()) for block in sharding.blocks_of(self.wam.world)]
        rest = self._whole(1) - sum(blocks)
        return worlds * (rest + GATHERED * max(blocks, default=0.0))

    @property
    def _feature_bytes(self) -> float:
        """Of one decision, as they are kept."""
        return self._features.numel() * self._features.element_size()

    @cached_property
    def _features(self) -> Tensor:
        with shapes_only(), torch.no_grad():
            obs = self.passes.clip(1).obs
            features = self.wam.features(self.wam.encode(obs), torch.arange(1))
            return features.to(self.wam.feature_dtype)

    def _kept(self, gpus: int) -> tuple[float, float]:
        """Features on a GPU while it acts, and from then to the end of the iteration."""
        limit = self.cfg.train.cache_mb * 1e6
        all_of_them = -(-self.decisions // gpus) * self._feature_bytes
        if all_of_them > limit:  # then none are kept, once there are so many
            return limit, 0.0
        return JOINED * all_of_them, all_of_them

    # --- phases

    def _phases(self, gpus: int) -> Iterator[Phase]:
        """In their order, each measured when it is asked for."""
        learn = set(self.cfg.train.learn)
        self.cfg.train.check_budget(self.env.horizon, gpus)
        yield self._sft(gpus)
        yield self._after_sft(gpus)
        if not self.cfg.env.playable:
            return
        yield self._fit(gpus)
        yield self._act(gpus)
        yield self._score(gpus)
        if "policy" in learn:
            yield self._actor(gpus)
        if {"world", "clone"} & learn:
            yield self._world(gpus)

    def _sft(self, gpus: int) -> Phase:
        cfg = self.cfg.sft
        shard = cfg.shard and gpus > 1
        rows = -(-cfg.batch // gpus)
        held = self._tuning(gpus)

        def step(clip: Clip, seeds: Tensor) -> None:
            part = joint_loss(self.wam, clip, seeds, cfg.batch, float(cfg.batch))
            (cfg.video_weight * part[0] + part[1]).backward()

        held |= self._training("sft", step, rows, cfg.microbatch, gpus, shard)
        held |= {"gathered": self._gathered(1)} if shard else {}
        flops = self.passes.flops("sft") * cfg.batch * cfg.steps
        return Phase(name="sft", held=held, flops=flops)

    def _tuning(self, gpus: int) -> dict[str, float]:
        """What fine-tuning has there without any activation."""
        shard = self.cfg.sft.shard and gpus > 1
        held = self._models([self.average], gpus, shard)
        held["optimiser"] = self._moments(True, 1, gpus, shard)
        held["gradients"] = self._gradients(True, True, gpus, shard)
        return held

    def _after_sft(self, gpus: int) -> Phase:
        """The average becomes a model of its own, after what trained is gone; weights that were
        sharded are gathered before that.
        """
        shard = self.cfg.sft.shard and gpus > 1
        state = float(sum(value.nbytes for value in self.wam.state_dict().values()))
        gathered = self._tuning(gpus)
        gathered["copies"] += state if shard else 0.0
        alone = self._models([], gpus, False)
        filled = alone | {"copies": state}
        measured = alone | {"activations": self._imagining().peak}
        held = max(gathered, filled, measured, key=lambda moment: sum(moment.values()))
        return Phase(name="base", held=held, flops=0.0)

    def _fit(self, gpus: int) -> Phase:
        held = self._online(gpus)
        used = self._free("fit", lambda clip, seeds: self._variances(clip, seeds), FITTED)
        held["activations"] = used.peak
        held |= {"gathered": self._gathered(1)} if self._shards(gpus) else {}
        return Phase(name="fit", held=held, flops=0.0)

    def _variances(self, clip: Clip, seeds: Tensor) -> object:
        return self.frozen.features(self.frozen.encode(clip.obs), seeds[0]).double().square()

    def _act(self, gpus: int) -> Phase:
        pool = self.cfg.pool
        held = self._online(gpus)
        used = self._free("act", self._decide, -(-pool.n_envs // min(pool.num_splits, pool.n_envs)))
        held |= {"features": self._kept(gpus)[0], "activations": used.peak}
        held |= {"gathered": self._whole(3)} if self._shards(gpus) else {}
        flops = self.passes.flops("act") * self.decisions
        return Phase(name="act", held=held, flops=flops)

    def _decide(self, clip: Clip, seeds: Tensor) -> object:
        generators = [torch.Generator() for _ in range(len(clip))]
        return self.wam.act(clip.obs, seeds[0], self.cfg.flow, generators, "explore")

    def _score(self, gpus: int) -> Phase:
        held = self._online(gpus)
        held |= {"features": self._kept(gpus)[1], "activations": self._imagining().peak}
        held |= {"gathered": self._whole(3)} if self._shards(gpus) else {}
        needed = self.cfg.train.reward.needs_imagination
        flops = self._imagining().flops / IMAGINED * self.decisions if needed else 0.0
        return Phase(name="score", held=held, flops=flops)

    def _imagining(self) -> Used:
        steps = self.cfg.train.reward.imagine_steps
        return self._free("score", lambda c, s: self.wam.imagine(c.obs, s[0], steps), IMAGINED)

    def _actor(self, gpus: int) -> Phase:
        learner = self.cfg.train.learner
        batch = getattr(learner, "batch", self.decisions)
        held = self._online(gpus)
        kept = self._kept(gpus)[1]

        def decided(clip: Clip, seeds: Tensor) -> ActionChunk:
            plan = self._decide(clip, seeds)
            return plan if kept else plan.drop_features()

        def step(clip: Clip, plan: ActionChunk) -> None:
            rows = plan[torch.arange(len(plan))]
            scored = getattr(learner, "transitions", 0)
            if 0 < scored < rows.chain_step.shape[1]:
                rows = rows.some(torch.zeros(len(rows), scored, dtype=torch.long))
            rows = self.wam.with_features(rows, clip.obs)
            self.wam.log_prob(rows, self.cfg.flow).sum().backward()

        rows = -(-min(batch, self.decisions) // gpus)
        name = f"actor, {'kept' if kept else 'again'}"  # the features
        held["gradients"] = self._gradients(False, True, gpus, False)
        used = self.passes.used(name, step, rows, first=decided)
        held["activations"] = max(0.0, used.peak - held["gradients"])
        held["features"] = kept
        held |= {"gathered": self._whole(3)} if self._shards(gpus) else {}
        flops = self.passes.flops(name) * self.decisions * getattr(learner, "epochs", 1)
        if isinstance(learner, ClippedPolicyConfig) and learner.recomputes(self.wam, bool(kept)):
            flops += self._old_log_prob(f"{name}, old", decided, rows) * self.decisions
        return Phase(name="actor", held=held, flops=flops)

    def _old_log_prob(self, name: str, decided: Callable[..., ActionChunk], rows: int) -> float:
        """FLOP of a decision whose log-probabilities are computed again before the first step."""

        @torch.no_grad()
        def again(clip: Clip, plan: ActionChunk) -> None:
            self.wam.log_prob(self.wam.with_features(plan, clip.obs), self.cfg.flow)

        self.passes.used(name, again, rows, first=decided)
        return self.passes.flops(name)

    def _world(self, gpus: int) -> Phase:
        cfg = self.cfg.train.world
        learn = self.cfg.train.learn
        shard = self._shards(gpus)
        held = self._online(gpus)
        rows = -(-cfg.batch // gpus)

        def step(clip: Clip, seeds: Tensor, video: bool = "world" in learn) -> None:
            own = torch.ones(len(clip), dtype=torch.bool)
            batch = MixedBatch(clip=clip, own=own, seeds=seeds)
            self._update.gradients(self.wam, batch, float(cfg.batch), video)

        def first(clip: Clip, seeds: Tensor) -> Tensor:
            assert self._update  # made before the pass, else it would count as a part of it
            return seeds

        which = {"world": "world" in learn, "actor": "clone" in learn}
        held |= self._training("world", step, rows, cfg.microbatch, gpus, shard, first, **which)
        held["features"] = self._kept(gpus)[1]  # the rollout is still at hand
        held |= {"gathered": self._gathered(2)} if shard else {}
        whole = -(-cfg.steps // cfg.video_every) if "world" in learn else cfg.steps
        flops = self.passes.flops("world") * whole
        if "clone" in learn and whole < cfg.steps:  # the steps without video
            self.passes.used("clone", partial(step, video=False), rows, first=first)
            flops += self.passes.flops("clone") * (cfg.steps - whole)
        return Phase(name="world", held=held, flops=flops * cfg.batch)

    @cached_property
    def _update(self) -> WorldUpdate:
        with shapes_only():
            return WorldUpdate(self.cfg.train.world, self.cfg.train.learn, self.wam, self.frozen)

    def _online(self, gpus: int) -> dict[str, float]:
        """What the loop carries from iteration to iteration."""
        shard = self._shards(gpus)
        held = self._models([self.frozen, self.average], gpus, shard)
        held["optimiser"] = self._online_moments(gpus, shard)
        return held

    def _shards(self, gpus: int) -> bool:
        return self.cfg.train.world.shard and gpus > 1

    # --- passes

    def _training(
        self,
        name: str,
        step: Callable[[Clip, Tensor], None],
        rows: int,
        microbatch: int,
        gpus: int,
        shard: bool,
        first: Callable[[Clip, Tensor], Any] = lambda clip, seeds: seeds,
        actor: bool = True,
        world: bool = True,
    ) -> dict[str, float]:
        """Gradients, and what else is there at the peak of the backward passes over `rows`."""
        size = min(microbatch or rows, rows)
        gradients = self._gradients(world, actor, gpus, shard)
        used = self.passes.used(name, step, size, size < rows, shard, first)
        beside = used.peak if shard else max(0.0, used.peak - gradients)
        return {"gradients": gradients, "activations": beside}

    def _gradients(self, world: bool, actor: bool, gpus: int, shard: bool) -> float:
        of_world = trained_bytes(self.wam.world) / (gpus if shard else 1)
        return world * of_world + actor * trained_bytes(self.wam.actor)

    def _free(self, name: str, run: Callable[[Clip, Tensor], object], rows: int) -> Used:
        """Without gradients."""
        return self.passes.used(name, torch.no_grad()(run), rows)

    # --- elsewhere

    def _disk(self) -> dict[str, float]:
        model = float(sum(value.nbytes for value in self.wam.state_dict().values()))
        clips = host_bytes(self.cfg, self.env, self.decisions, 1)["clips"]
        return {
            "a model": model,
            "sft-resume": 2 * model + self._moments(True, 1, 1, False),
            "a step": 3 * model + self._online_moments(1, False) + clips,
        }
