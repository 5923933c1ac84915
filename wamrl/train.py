"""The method on one page: WAM-RL, online, in the order of the paper's hierarchical optimisation.

    obs -> imagine -> act -> execute -> reward -> advantage -> actor update
                                `-> success clips -> video SFT + latent KL -> world model update

Run it: `wamrl train --base runs/NAME`. The actor goes first, on the features of the world model
that acted; changing the order breaks the PPO ratio, and `ActorUpdate` notices.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from wamrl.config import Config
from wamrl.data.clips import ClipBuffer, ClipDataset
from wamrl.models.wam import WAM, ema_update
from wamrl.pool.pool import Pool
from wamrl.rl.actor_update import ActorUpdate
from wamrl.rl.batch import Outcomes
from wamrl.rl.initial_states import InitialStateSampler
from wamrl.rl.world_update import WorldUpdate, frozen_copy
from wamrl.rollout import Rollout, collect, everywhere, imagine, reward_inputs, rollout_metrics
from wamrl.rollout.samples import rare_success_weight, success_clips
from wamrl.runtime import dist, sharding
from wamrl.runtime.log import Timer

PARTS = ("wam", "frozen", "average", "starts", "reward", "actor", "online", "diagnostics")


class Learner:
    """All state of the online phase; `iterate` is one pass through the picture above."""

    def __init__(self, cfg: Config, wam: WAM, demos: ClipDataset, horizon: int):
        cfg.validate()
        self.cfg, self.wam, self.demos, self.horizon = cfg, wam, demos, horizon
        self.device = next(wam.parameters()).device
        self.frozen, self.average = frozen_copy(wam), frozen_copy(wam)
        self.worlds = [model.world for model in (wam, self.frozen, self.average)]
        sharding.shard(*(self.worlds if cfg.train.world.shard else []))
        self.generator = torch.Generator().manual_seed(cfg.seed)
        self.starts = InitialStateSampler(cfg.train.initial_states)
        reward = cfg.train.reward.build(max_chunks=math.ceil(horizon / cfg.model.chunk))
        self.reward = reward.to(self.device)
        self.actor = ActorUpdate(cfg.train.actor, wam).to(self.device)
        self.online = WorldUpdate(cfg.train.world, wam, self.frozen).to(self.device)
        self.online.fit(demos.sample(256, self.generator).to(self.device))
        self.buffer = ClipBuffer(cfg.train.world.capacity)
        self.diagnostics = cfg.train.diagnostics.build(
            self.reward.similarity,
            cfg.train.reward.imagine_steps,
            self.frozen,
            self.online.kl.var_old,
        )
        self.iteration, self.steps_used = 0, 0
        cfg.train.check_budget(horizon, ranks=dist.world())

    def iterate(
        self, pool: Pool, on_done=lambda n: None, on_rollout=lambda r: None
    ) -> dict[str, float]:
        train, metrics, timer = self.cfg.train, {}, Timer()
        flow = self.cfg.flow.at(self.iteration / max(1, train.iterations - 1))
        metrics["rollout/noise"] = flow.noise
        release = sharding.unshard(*self.worlds)  # ranks act and score at their own pace

        # 1. Roll out the current world model and actor, exploring by Flow-SDE.
        budget = train.share(self.iteration, self.steps_used, self.horizon)
        starts = self.starts.own(self.starts.next(train.groups, self.generator, max_steps=budget))
        noise = int(torch.randint(2**31, (), generator=self.generator))
        options = {
            "sampler": "explore",
            "max_steps": budget,
            "group": train.initial_states.group,
            "cache_mb": train.cache_mb,
        }
        rollout = collect(self.wam, pool, starts, flow, seed=noise, on_done=on_done, **options)
        self.starts.put_back(starts[rollout.started :])
        whole, first = everywhere(rollout)
        self.steps_used += whole.steps
        metrics |= rollout_metrics(whole, self.starts.unseen(whole.starts)) | timer("rollout")
        metrics["rollout/steps_total"] = float(self.steps_used)
        self.starts.observe(whole.starts, whole.success)

        # 2. Score: did reality match the imagination, and was the task solved?
        reward = self.score(rollout, metrics)
        metrics |= timer("score")

        # What co-training clones is asked of the model that acted, so before any update.
        cloned = rollout.noise_free(self.wam, flow) if train.world.clones_noise_free else None

        # 3. Actor first, on the features cached in the rollout.
        if train.actor.enabled:
            clock = rollout.decisions.step / self.horizon
            states = torch.tensor([s.index for s in whole.starts])
            outcome = Outcomes(state=states, success=whole.success, first=first)
            batch, found = self.actor.prepare(self.wam, rollout.decisions, clock, reward, outcome)
            metrics |= found
            warm = self.iteration >= train.actor.value_warmup or train.actor.algorithm == "grpo"
            if dist.offset_and_count(len(batch))[1]:
                metrics |= self.actor.step(self.wam, batch, flow, self.generator, policy=warm)
        release()
        metrics |= timer("actor")

        # 4. Then the world model, on clips of successful episodes,
        # leashed by the latent KL; 5. and co-training.
        if train.world.world or train.world.actor:
            self.buffer.append(success_clips(rollout, rare_success_weight(whole)[first:], cloned))
            if len(self.buffer) or train.world.demo_share == 1:
                metrics |= self.online.update(
                    self.wam, self.buffer.sample, self.demos.sample, self.generator
                )
        ema_update(self.average, self.wam, train.ema)
        self.iteration += 1
        metrics |= timer("online")
        on_rollout(rollout)
        return metrics | {"buffer/clips": float(len(self.buffer))}

    def score(self, rollout: Rollout, metrics: dict[str, float]) -> Tensor:
        """Chunk rewards (M,) under the chosen scorer; logs how well it imagined and scored."""
        cfg = self.cfg.train.reward
        scorer = {"current": self.wam, "frozen": self.frozen, "ema": self.average}[cfg.scorer]
        imagined = None
        if cfg.needs_imagination:
            acted = scorer is self.wam
            imagined = imagine(scorer, rollout.decisions, cfg.imagine_steps, acted)
        metrics |= self.diagnostics(rollout, self.wam, scorer, imagined)
        metrics |= self.diagnostics.watch(metrics, self.cfg.train.initial_states.group)
        inputs = reward_inputs(rollout, imagined, self.wam.spec.frame_offsets)
        episode = rollout.decisions.episode
        return self.reward(inputs, rollout.success[episode], episode)

    def state_dict(self) -> dict:
        """Everything that a bitwise resume needs; each rank adds `buffer.own_state`."""
        parts = {name: getattr(self, name).state_dict() for name in (*PARTS, "buffer")}
        counts = {"iteration": self.iteration, "steps_used": self.steps_used}
        return parts | counts | {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict, parts: Iterable[dict]) -> None:
        """parts: the `buffer.own_state` of all ranks that saved it."""
        for name in PARTS:
            sharding.load(getattr(self, name), state[name])
        self.buffer.load_state_dict(state["buffer"], parts)
        # old runs did not count
        self.iteration, self.steps_used = state["iteration"], state.get("steps_used", 0)
        self.generator.set_state(state["generator"])
