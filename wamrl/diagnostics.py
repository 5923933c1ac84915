"""What is watched in every online iteration: can the reward tell success from failure, are the
imagined frames alive and sharp, how far have the features drifted, and is the reward being gamed?

Nothing here touches the training: no weight,
no statistic of the reward and no random stream of the run is used up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor

from wamrl.models.wam import WAM
from wamrl.rewards.base import Similarity
from wamrl.rewards.episode_scores import (
    early,
    episode_mean,
    motion_energy,
    over_verifiable,
    raw_rewards,
    sharpness,
)
from wamrl.rollout.samples import imagine
from wamrl.rollout.types import Decisions, Rollout
from wamrl.runtime import dist
from wamrl.runtime.ranges import Count, check_ranges
from wamrl.stats.auc import auc
from wamrl.stats.trend import chance_of_fall, chance_of_rise

LOGGED = ("reconstruction", "gain")
MIN_TREND = 4  # iterations before a trend is looked for


@dataclass(frozen=True, kw_only=True)
class DiagnosticsConfig:
    """Cheap by a bound on the chunks looked at;
    they are spread evenly over the episodes of the rollout.
    """

    enabled: bool = True
    # per iteration; each costs one imagination, one frozen feature pass and two distances
    chunks: Count = 256
    window: Annotated[int, Ge(MIN_TREND), Le(10_000)] = 8  # iterations that the alarm looks back on
    level: Annotated[float, Gt(0), Lt(1)] = 0.05  # of both one-sided tests of the alarm

    def validate(self) -> None:
        """Raise ValueError with one sentence that says what to do."""
        check_ranges(self, "diagnostics")

    def build(
        self, similarity: Similarity, imagine_steps: int, frozen: WAM, variance: Tensor
    ) -> Diagnostics:
        """variance: the frozen model's feature variance per tap and channel, (taps, D)."""
        self.validate()
        return Diagnostics(self, similarity, imagine_steps, frozen, variance)


class Diagnostics:
    """The history that the alarm needs (checkpointed),
    and the last iteration's episode scores for the histograms.
    """

    def __init__(
        self,
        cfg: DiagnosticsConfig,
        similarity: Similarity,
        steps: int,
        frozen: WAM,
        variance: Tensor,
    ):
        self.cfg = cfg
        self.similarity = similarity
        self.steps = steps
        self.frozen = frozen
        self.variance = variance
        self.history: list[dict[str, float]] = []  # the last `window` iterations, oldest first
        self.scores: dict[str, Tensor] = {}  # float64 (n,) per reward, of episodes with a score
        self.success = torch.zeros(0, dtype=torch.bool)  # (n,)

    @torch.no_grad()
    def __call__(
        self, rollout: Rollout, wam: WAM, scorer: WAM, imagined: Tensor | None
    ) -> dict[str, float]:
        """Metrics of one iteration over the episodes of all ranks, see docs/metrics.md.

        rollout: with the outcomes of all ranks. wam: what acted; scorer: the world model whose
        imagination is judged; imagined: its frames (M, F, V, H, W, 3), if the reward has needed
        them already. Each rank looks at those of the chosen chunks that are its own.
        """
        if not self.cfg.enabled:
            return {}
        episode = dist.all_gather(rollout.decisions.episode)
        before, _ = dist.offset_and_count(len(rollout.decisions))
        rows = spread(episode, self.cfg.chunks)
        own = rows[(rows >= before) & (rows < before + len(rollout.decisions))] - before
        # a rank without any computes one that counts for nothing
        seen = own if len(own) else torch.tensor([0])
        decisions = rollout.decisions[seen]
        if imagined is None:
            frames = imagine(scorer, decisions, self.steps, scorer is wam)
        else:
            frames = imagined[seen]
        table, rewards = self._frames(decisions, frames, scorer)
        table = {k: dist.all_gather(v[: len(own)]) for k, v in table.items()}
        rewards = {k: dist.all_gather(v[: len(own)]) for k, v in rewards.items()}
        metrics = summary(table, scorer.spec.frame_offsets)
        first = early(episode, rollout.success)[rows]
        metrics |= self._outcomes(rollout, episode[rows], first, rewards)
        return metrics | self._drift(decisions[slice(0, len(own))], wam)

    def _frames(
        self, decisions: Decisions, imagined: Tensor, scorer: WAM
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What is measured on each frame (m, F), and the raw rewards of each chunk (m,)."""
        executed = decisions.frames.float() / 255
        last = decisions.obs.frames[:, -1].float() / 255
        real = decisions.verifiable
        table = {
            "real": real,
            "error": (imagined - executed).square().mean((2, 3, 4, 5)),
            "motion/executed": motion_energy(executed, last),
            "motion/imagined": motion_energy(imagined, last),
            "sharpness/executed": sharpness(executed),
            "sharpness/imagined": sharpness(imagined),
        }
        device = next(scorer.parameters()).device
        return table, raw_rewards(self.similarity, imagined, executed, last, real, device=device)

    def _outcomes(
        self, rollout: Rollout, episode: Tensor, first: Tensor, rewards: dict[str, Tensor]
    ) -> dict[str, float]:
        """episode (m,), first (m,) and rewards (m,) of the chosen chunks,
        among the episodes of all ranks.
        """
        metrics = {}
        states = rollout.state.tolist()
        for name in LOGGED:
            for window, use in (("", torch.ones_like(first)), ("_early", first)):
                score = episode_mean(rewards[name], episode, use, len(states))
                found = auc(score.numpy(), rollout.success.numpy(), states)
                metrics[f"diag/auc{window}/{name}"] = found.value
                metrics[f"diag/auc{window}_low/{name}"] = found.low
                metrics[f"diag/auc{window}_high/{name}"] = found.high
                if not window:
                    known = ~score.isnan()
                    self.scores[name] = score[known]
                    self.success = rollout.success[known]
            metrics[f"diag/mean/{name}"] = rewards[name].nanmean().item()
            metrics[f"diag/mean_success/{name}"] = self.scores[name][self.success].mean().item()
            metrics[f"diag/mean_failure/{name}"] = self.scores[name][~self.success].mean().item()
        return metrics

    def _drift(self, decisions: Decisions, wam: WAM) -> dict[str, float]:
        """Mean of |z - z_frozen|^2 / var_frozen per tap;
        z as cached when acting, same input, same noise.
        """
        device = self.variance.device
        total = torch.zeros(len(self.variance), device=self.variance.device)
        for i in range(0, len(decisions), 64):
            part = decisions[slice(i, i + 64)]
            old = self.frozen.features(self.frozen.encode(part.obs.to(device)), part.plan.seed)
            new = wam.with_features(part.plan.to(device), part.obs.to(device)).features
            moved = (new - old).square() / self.variance[:, None]
            total = total + moved.mean((2, 3)).sum(0)
        drift = (dist.all_sum(total) / dist.offset_and_count(len(decisions))[1]).tolist()
        return {f"diag/drift/{tap}": d for tap, d in zip(self.frozen.spec.taps, drift, strict=True)}

    def watch(self, metrics: dict[str, float], group: int) -> dict[str, float]:
        """`diag/alarm`:
        1 if over the last `window` iterations reconstruction rises and success falls.

        Rises: p < level in the t-test of the slope. Falls: p < level in the Cochran-Armitage trend
        test of success on fresh initial states (all episodes, if an iteration had none), where the
        `group` episodes of one state count as one trial, because they succeed and fail together.
        Not before four iterations.
        """
        reconstruction = metrics.get("diag/mean/reconstruction", math.nan)
        if not self.cfg.enabled or math.isnan(reconstruction):
            return {}
        fresh = metrics["rollout/fresh"]
        episodes = metrics["rollout/episodes"]
        self.history.append(
            {
                "reconstruction": reconstruction,
                "success": metrics["rollout/success"],
                "trials": max(1.0, episodes / group),
                "fresh": metrics.get("rollout/success_fresh", 0.0),
                "fresh_trials": fresh / group,
            }
        )
        self.history = self.history[-self.cfg.window :]
        rise, fall = trends(self.history)
        alarm = float(rise < self.cfg.level and fall < self.cfg.level)
        return {"diag/p_rise": rise, "diag/p_fall": fall, "diag/alarm": alarm}

    def state_dict(self) -> dict:
        return {
            "history": [dict(h) for h in self.history],
            "scores": dict(self.scores),
            "success": self.success,
        }

    def load_state_dict(self, state: dict) -> None:
        self.history = list(state["history"])
        self.scores = dict(state["scores"])
        self.success = state["success"]


def summary(table: dict[str, Tensor], offsets: tuple[int, ...]) -> dict[str, float]:
    """Metrics from what was measured on each frame, see `Diagnostics._frames`."""
    real = table["real"]
    metrics = {}
    copied = (table["motion/executed"] * real).sum(0)
    ratio = (table["error"] * real).sum(0) / copied.clamp(min=1e-9)
    ratio = ratio.where(real.sum(0) > 0, ratio.new_tensor(math.nan))  # where no chunk reached
    for offset, value in zip(offsets, ratio.tolist(), strict=True):
        metrics[f"world/copy_ratio/{offset}"] = value
    for name in ("motion/executed", "motion/imagined", "sharpness/executed", "sharpness/imagined"):
        metrics[f"diag/{name}"] = over_verifiable(table[name], real)
    return metrics


def trends(history: list[dict[str, float]]) -> tuple[float, float]:
    """p-values of rising reconstruction and of falling success;
    1 while the history is too short to tell.
    """
    if len(history) < MIN_TREND:
        return 1.0, 1.0
    kind = (
        ("fresh", "fresh_trials")
        if all(h["fresh_trials"] > 0 for h in history)
        else ("success", "trials")
    )
    rates, trials = ([h[k] for h in history] for k in kind)
    return chance_of_rise([h["reconstruction"] for h in history]), chance_of_fall(rates, trials)


def alarm_line(metrics: dict[str, float]) -> str:
    """For the console; empty while all is well."""
    if not metrics.get("diag/alarm"):
        return ""
    return (
        f"ALARM: reconstruction rises (p = {metrics['diag/p_rise']:.2g}) while success falls "
        f"(p = {metrics['diag/p_fall']:.2g}): the reward may be gamed, see diagnostics.png"
    )


def spread(episode: Tensor, n: int) -> Tensor:
    """int64 (min(n, M),), ascending: which chunks to look at, from the episode of each (M,).

    Every episode gives as many as the others (or all it has), at places drawn with a fixed seed:
    evenly spaced rows would fall into step with episodes of equal length.
    """
    shuffled = torch.randperm(len(episode), generator=torch.Generator().manual_seed(0))
    grouped = shuffled[episode[shuffled].argsort(stable=True)]  # by episode, in random order within
    count = torch.bincount(episode)
    rank = torch.empty_like(grouped)
    rank[grouped] = torch.arange(len(episode)) - (count.cumsum(0) - count)[episode[grouped]]
    return shuffled[rank[shuffled].argsort(stable=True)][:n].sort().values
