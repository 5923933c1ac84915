"""Everything that the online loop carries from one iteration to the next."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from wamrl.config import Config
from wamrl.data.clips import ClipBuffer, ClipDataset
from wamrl.models.flow import FlowConfig
from wamrl.models.wam import WAM
from wamrl.rl.initial_states import InitialStateSampler
from wamrl.rl.world_update import WorldUpdate, frozen_copy
from wamrl.rollout.metrics import rollout_metrics
from wamrl.rollout.samples import imagine, reward_inputs
from wamrl.rollout.types import Rollout
from wamrl.runtime import dist, sharding
from wamrl.types import InitialState

FITTED_ON = 256  # demonstrations on which the latent KL's pretrained variances are taken


class TrainingState:
    """The model, what it is held against, what learns and what it has learned from."""

    def __init__(self, cfg: Config, wam: WAM, demos: ClipDataset, horizon: int):
        """horizon: control steps of the longest episode. ValueError where `cfg` cannot be run."""
        cfg.validate()
        train = cfg.train
        self.cfg = cfg
        self.wam = wam
        self.demos = demos
        self.horizon = horizon
        device = next(wam.parameters()).device
        self.frozen = frozen_copy(wam)
        self.average = frozen_copy(wam)
        self.worlds = [model.world for model in (wam, self.frozen, self.average)]
        sharding.shard(*(self.worlds if train.world.shard else []))
        self.generator = torch.Generator().manual_seed(cfg.seed)
        self.initial_states = InitialStateSampler(train.initial_states)
        reward = train.reward.build(max_chunks=math.ceil(horizon / cfg.model.chunk))
        self.reward = reward.to(device)
        self.learner = train.learner.build(wam)
        self.world = WorldUpdate(train.world, train.learn, wam, self.frozen)
        self.world.fit(demos.sample(FITTED_ON, self.generator).to(device))
        self.buffer = ClipBuffer(train.world.capacity)
        self.diagnostics = train.diagnostics.build(
            self.reward.similarity, train.reward.imagine_steps, self.frozen, self.world.kl.var_old
        )
        self.iteration = 0
        self.steps_used = 0
        self.best = -1.0  # success on training states of the best model so far, see `look`
        train.check_budget(horizon, ranks=dist.world())

    @property
    def scorer(self) -> WAM:
        """Whose imagination is compared with what was executed."""
        models = {"current": self.wam, "frozen": self.frozen, "ema": self.average}
        return models[self.cfg.train.reward.scorer]

    def exploration(self) -> FlowConfig:
        """The noise to act with in this iteration."""
        progress = self.iteration / max(1, self.cfg.train.iterations - 1)
        return self.learner.exploration(self.cfg.flow, progress)

    def next_starts(self) -> tuple[Iterable[InitialState], int | None]:
        """Where this rank's episodes of the iteration start; and their budget of control steps."""
        train = self.cfg.train
        budget = train.step_budget(self.iteration, self.steps_used, self.horizon)
        if budget is not None:  # then there is one rank
            return self.initial_states.stream(budget, self.generator), budget
        starts = self.initial_states.draw(train.groups, self.generator)
        return self.initial_states.own(starts), None

    def next_seed(self) -> int:
        """Of the noise of a rollout, the same on all ranks."""
        return int(torch.randint(2**31, (), generator=self.generator))

    def observe(self, rollout: Rollout) -> dict[str, float]:
        """Count the outcomes of all ranks; what the log says of them."""
        self.steps_used += rollout.steps
        unseen = self.initial_states.unseen(rollout.state)
        self.initial_states.observe(rollout.state, rollout.success)
        metrics = rollout_metrics(rollout, unseen)
        metrics["rollout/steps_total"] = float(self.steps_used)
        return metrics

    def score(self, rollout: Rollout, metrics: dict[str, float]) -> Tensor:
        """Chunk rewards (M,) under the chosen scorer; logs how well it imagined and scored."""
        cfg = self.cfg.train
        scorer = self.scorer
        imagined = None
        if cfg.reward.needs_imagination:
            acted = scorer is self.wam
            imagined = imagine(scorer, rollout.decisions, cfg.reward.imagine_steps, acted)
        metrics |= self.diagnostics(rollout, self.wam, scorer, imagined)
        metrics |= self.diagnostics.watch(metrics, cfg.initial_states.group)
        inputs = reward_inputs(rollout, imagined, self.wam.spec.frame_offsets)
        episode = rollout.decisions.episode
        return self.reward(inputs, rollout.success[episode], episode)

    def require_finite(self) -> None:
        """Nothing that is not a number is ever saved."""
        if not sharding.finite(self.wam.parameters()):
            raise FloatingPointError(
                "a weight is not finite any more: start from the base with lower learning rates"
            )

    def state_dict(self) -> dict:
        """Everything that a bitwise resume needs; each rank adds `buffer.own_state`."""
        return {
            "wam": self.wam.state_dict(),
            "sampler": self.wam.sampler,
            "frozen": self.frozen.state_dict(),
            "average": self.average.state_dict(),
            "initial_states": self.initial_states.state_dict(),
            "reward": self.reward.state_dict(),
            "learner": self.learner.state_dict(),
            "world": self.world.state_dict(),
            "diagnostics": self.diagnostics.state_dict(),
            "buffer": self.buffer.state_dict(),
            "generator": self.generator.get_state(),
            "iteration": self.iteration,
            "steps_used": self.steps_used,
            "best": self.best,
        }

    def load_state_dict(self, state: dict, parts: Iterable[dict]) -> None:
        """Take over what `state_dict` gave. parts: the `buffer.own_state` of all ranks that saved
        it.
        """
        sharding.load(self.wam, state["wam"])
        self.wam.sampler = state["sampler"]
        sharding.load(self.frozen, state["frozen"])
        sharding.load(self.average, state["average"])
        self.initial_states.load_state_dict(state["initial_states"])
        self.reward.load_state_dict(state["reward"])
        self.learner.load_state_dict(state["learner"])
        self.world.load_state_dict(state["world"])
        self.diagnostics.load_state_dict(state["diagnostics"])
        self.buffer.load_state_dict(state["buffer"], parts)
        self.generator.set_state(state["generator"])
        self.iteration = state["iteration"]
        self.steps_used = state["steps_used"]
        self.best = state["best"]
