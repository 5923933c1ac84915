"""A run as frozen data.

Every class stands beside what it builds; this file only puts them together.
A recipe is a function that returns a `Config`; a variant is `dataclasses.replace`. `validate` is
the first line of every verb.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Le

from wamrl.data.demos import DemoConfig
from wamrl.diagnostics import DiagnosticsConfig
from wamrl.envs.base import EnvConfig
from wamrl.evaluate import EvalConfig
from wamrl.models.flow import FlowConfig
from wamrl.models.wam_config import WAMConfig
from wamrl.pool.pool import Pool, PoolConfig, check_offsets
from wamrl.reward_comparison import RewardComparisonConfig
from wamrl.rewards.reward import RewardConfig
from wamrl.rl.initial_states import InitialStatesConfig
from wamrl.rl.learner import LearnerConfig
from wamrl.rl.ppo import PPOConfig
from wamrl.rl.world_update import WorldUpdateConfig
from wamrl.runtime.cores import all_cores
from wamrl.runtime.ranges import Count, Decay, NotNegative, Processes, Seed, Size, check_ranges
from wamrl.sft import SFTConfig
from wamrl.types import Split


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Demonstrations of the scripted expert; failures are kept, marked, and not trained on."""

    episodes: Count = 40
    heldout: Count = 12  # only to measure the world model
    # std of the disturbance during recording; labels stay clean
    noise: Annotated[float, Ge(0), Le(2)] = 0.3


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The online loop."""

    # what learns. policy: the actor, by the learner; world: the world model, by video SFT with the
    # latent KL; clone: the actor, from its own successes (co-training; not in the paper)
    learn: tuple[Literal["policy", "world", "clone"], ...] = ("policy", "world")
    iterations: Count = 8
    # initial states per iteration; episodes = groups * initial_states.group; unused under env_steps
    groups: Size = 64
    # control steps of the whole run, in even shares for the iterations; 0: `groups` decides
    env_steps: Annotated[int, Ge(0), Le(10**12)] = 0

    initial_states: InitialStatesConfig = field(default_factory=InitialStatesConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    learner: LearnerConfig = field(default_factory=PPOConfig)
    world: WorldUpdateConfig = field(default_factory=WorldUpdateConfig)
    diagnostics: DiagnosticsConfig = field(default_factory=DiagnosticsConfig)
    ema: Decay = 0.9  # per iteration, of the world model that scores under reward.scorer="ema"
    # features kept from a rollout to its update; beyond, they are computed again
    cache_mb: NotNegative = 2048.0
    save_every: Count = 1  # iterations

    def step_budget(self, iteration: int, used: int, horizon: int) -> int | None:
        """Control steps for iteration 0, 1, ... after `used` ones, so that k iterations take
        env_steps * k / iterations in sum and what one leaves the next one takes;
        None: there is no budget."""
        if not self.env_steps:
            return None
        done = iteration + 1
        share = self.env_steps * done // self.iterations - used
        least = self.initial_states.group * horizon
        if share < least:
            needed = -(-(used + least) * self.iterations // done)
            raise ValueError(
                f"train: env_steps={self.env_steps} leaves {share} control steps for iteration "
                f"{done} and a group of episodes may take {least}: "
                f"give {needed} or more, or fewer iterations"
            )
        return share

    def episodes(self, horizon: int) -> int:
        """Of an iteration; under `env_steps` as if all lasted to the horizon."""
        if self.env_steps:
            return self.env_steps // (self.iterations * horizon)
        return self.groups * self.initial_states.group

    def check_budget(self, horizon: int, ranks: int) -> None:
        """ValueError where the ranks cannot share the work, or the first iteration's control steps
        do not hold one group of episodes of `horizon` steps."""
        if self.groups < ranks or (self.env_steps and ranks > 1):
            raise ValueError(
                f"train: {ranks} ranks need as many train.groups or more, and no train.env_steps"
            )
        self.step_budget(0, 0, horizon)

    def validate(self) -> None:
        """Raise ValueError with one sentence that says what to do."""
        check_ranges(self, "train")
        if not self.learn or len(set(self.learn)) < len(self.learn):
            raise ValueError("train: learn must name policy, world or clone, each once at most")
        if 0 < self.env_steps < self.iterations * self.initial_states.group:
            raise ValueError(
                f"train: env_steps={self.env_steps} cannot pay for {self.iterations} iterations: "
                "give iterations * initial_states.group * horizon or more, or 0 for no budget"
            )
        least = self.learner.least_group
        if self.initial_states.group < least:
            raise ValueError(
                "train: this learner compares episodes of one initial state; "
                f"set train.initial_states.group >= {least}"
            )
        for part in (
            self.initial_states,
            self.reward,
            self.learner,
            self.world,
            self.diagnostics,
        ):
            part.validate()


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that decides a run."""

    name: str
    env: EnvConfig
    seed: Seed = 0
    model: WAMConfig = field(default_factory=WAMConfig)
    flow: FlowConfig = field(default_factory=FlowConfig)
    data: DataConfig = field(default_factory=DataConfig)
    sft: SFTConfig = field(default_factory=SFTConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    rewards: RewardComparisonConfig = field(default_factory=RewardComparisonConfig)
    pool: PoolConfig = field(default_factory=PoolConfig)
    threads: Processes = 0  # of torch; 0: all cores of this process

    def validate(self) -> None:
        """Raise ValueError with one sentence that says what to do."""
        check_ranges(self)
        if not re.fullmatch(r"\w[\w.+-]*", self.name):
            raise ValueError(
                f"name={self.name!r} is not possible: it becomes a folder's name; "
                "give letters, digits, _, -, + and . only"
            )
        self.env.validate()
        for part in (self.model, self.flow, self.sft, self.train, self.eval, self.rewards):
            part.validate()
        self.pool.validate()
        check_offsets(self.model.chunk, self.model.frame_offsets, self.model.history_offsets)
        self.demos("demo").validate()

    def demos(self, split: Split) -> DemoConfig:
        """How the demonstrations of `split` ("demo" or "heldout") are recorded."""
        n = self.data.episodes if split == "demo" else self.data.heldout
        # the first rank records while the others wait
        processes = self.pool.n_workers or all_cores()
        return DemoConfig(
            env=self.env, episodes=n, split=split, noise=self.data.noise, n_workers=processes
        )

    def build_pool(self) -> Pool:
        """The simulators, which execute and look as the model needs it."""
        return self.pool.build(
            self.env,
            n_exec=self.model.chunk,
            frame_offsets=self.model.frame_offsets,
            history_offsets=self.model.history_offsets,
        )
