"""Which reward tells success from failure?
One set of rollouts under every similarity: the paper's reward analysis.

In the run folder of `wamrl compare-rewards RECIPE --base RUN`:
rewards.md  rewards.csv  rewards.json  rewards.png
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wamrl import report
from wamrl.models.flow import FlowConfig
from wamrl.models.wam import WAM
from wamrl.pool.pool import Pool
from wamrl.rewards.base import Similarity, SimilarityConfig
from wamrl.rewards.episode_scores import early, episode_mean, raw_rewards
from wamrl.rollout.collect import collect
from wamrl.rollout.samples import imagine
from wamrl.rollout.types import Rollout
from wamrl.runtime.files import write_text
from wamrl.runtime.ranges import Count, Size, check_ranges
from wamrl.stats.auc import AUC, Within, auc, within_groups
from wamrl.types import InitialState

# of the split `train`; training itself counts up from 0 and never gets here
FIRST_START = 50_000_000


@dataclass(frozen=True, kw_only=True)
class RewardComparisonConfig:
    """Exploring episodes on training states that no run has trained on,
    and the similarities to score them with.
    """

    similarities: tuple[SimilarityConfig, ...] = ()  # filled in by the recipe
    states: Count = 50  # initial states
    group: Size = 4  # episodes per state; their outcomes are compared with each other too

    def validate(self) -> None:
        """Raise ValueError with one sentence that says what to do."""
        check_ranges(self, "rewards")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One reward on one set of episodes."""

    reward: str  # the similarity
    variant: str  # reconstruction | gain | copy
    all_chunks: AUC
    early_chunks: AUC
    within: Within  # early chunks, pairs of one initial state
    mean_success: float  # of the episodes' mean raw rewards, all chunks
    mean_failure: float


@dataclass(frozen=True, kw_only=True)
class Study:
    """All rewards on the same E episodes."""

    rows: list[Row]
    scores: dict[tuple[str, str], np.ndarray]  # (reward, variant) -> (E,) over early chunks
    success: np.ndarray  # bool (E,)
    missing: dict[str, str]  # similarity -> why it could not be built


def study(
    cfg: RewardComparisonConfig,
    wam: WAM,
    pool: Pool,
    flow: FlowConfig,
    *,
    seed: int,
    imagine_steps: int,
    on_done: Callable[[int], None] = lambda n: None,
) -> Study:
    """Roll out, imagine once, score under every similarity that can be built."""
    similarities, missing = available(cfg.similarities)
    if not similarities:
        reasons = (
            "; ".join(f"{k}: {v}" for k, v in missing.items())
            or "the recipe's rewards.similarities is empty"
        )
        raise ValueError(f"no similarity to score with ({reasons})")
    states = [
        InitialState(split="train", index=FIRST_START + i)
        for i in range(cfg.states)
        for _ in range(cfg.group)
    ]
    rollout = collect(wam, pool, states, flow, seed=seed, sampler="explore", on_done=on_done)
    imagined = imagine(wam, rollout.decisions, imagine_steps)
    rows = []
    scores = {}
    for name, similarity in similarities.items():
        for variant, reward in _raw(
            similarity, rollout, imagined, next(wam.parameters()).device
        ).items():
            row, scores[name, variant] = judge(name, variant, reward, rollout)
            rows.append(row)
    return Study(rows=rows, scores=scores, success=rollout.success.numpy(), missing=missing)


def available(
    configs: tuple[SimilarityConfig, ...],
) -> tuple[dict[str, Similarity], dict[str, str]]:
    """Those that can be built, by name,
    and for each other one the reason (missing package or weights).
    """
    built = {}
    missing = {}
    for config in configs:
        if config.name in built or config.name in missing:
            raise ValueError(
                f"rewards.similarities holds two named {config.name}: their rows could not be told "
                "apart"
            )
        try:
            built[config.name] = config.build()
        except (ImportError, OSError, ValueError) as error:
            missing[config.name] = " ".join(str(error).split())
    return built, missing


def _raw(
    similarity: Similarity, rollout: Rollout, imagined: Tensor, device: torch.device
) -> dict[str, Tensor]:
    chunks = rollout.decisions
    last = chunks.obs.frames[:, -1]
    return raw_rewards(similarity, imagined, chunks.frames, last, chunks.verifiable, device=device)


def judge(name: str, variant: str, reward: Tensor, rollout: Rollout) -> tuple[Row, np.ndarray]:
    """A row of the table from chunk rewards (M,),
    and the episodes' scores over early chunks (E,).
    """
    episode = rollout.decisions.episode
    n = len(rollout.success)
    windows = torch.ones(len(episode), dtype=torch.bool), early(episode, rollout.success)
    whole, first = (episode_mean(reward, episode, use, n).numpy() for use in windows)
    success = rollout.success.numpy()
    states = np.array([s.index for s in rollout.starts])
    row = Row(
        reward=name,
        variant=variant,
        all_chunks=auc(whole, success, states),
        early_chunks=auc(first, success, states),
        within=within_groups(first, success, states),
        mean_success=_mean(whole[success]),
        mean_failure=_mean(whole[~success]),
    )
    return row, first


def _mean(x: np.ndarray) -> float:
    known = x[~np.isnan(x)]
    return float(known.mean()) if len(known) else math.nan


COLUMNS = (
    "reward",
    "AUC, early chunks",
    "n",
    "AUC, same state",
    "AUC, all chunks",
    "n",
    "success",
    "failure",
)
NOTES = """\
AUC: the chance that a successful episode scores above a failed one, with its 95 % interval
(Newcombe 2006, with the design effect of episodes that share an initial state). 0.5 is a coin;
below 0.5 the reward prefers failures. An episode's score is the mean raw reward of its chunks,
over verifiable frames. `reconstruction`: imagined against executed (the paper's reward); `copy`:
the last frame against executed, a control that imagines nothing; `gain`: reconstruction less
copy (what the composite reward is made of).

- **Early chunks** is the honest comparison. Failures last until the clock runs out, so over *all
  chunks* a reward can exploit that late chunks look different. Here every episode counts with
  the same number K of first chunks, none of them its last (K: the 10 % quantile of chunks per
  episode, of the outcome where it is smaller, less one, at least 1); episodes that ended within
  K chunks are left out.
- **Same state**: early chunks, only pairs of episodes with the same initial state, so that easy
  states cannot explain it (bootstrap over states; twice this less 1 is Somers' rank correlation
  with success within a state).
- **n**: successes + failures compared at its left. **success**, **failure**: mean score by
  outcome, all chunks.
"""


def cells(row: Row) -> tuple[str, ...]:
    """A row as text, under COLUMNS."""
    first = row.early_chunks
    whole = row.all_chunks
    w = row.within
    same = f"{interval(w.value, w.low, w.high)} ({w.groups} states)" if w.groups else "-"
    return (
        f"{row.reward} {row.variant}",
        interval(first.value, first.low, first.high),
        f"{first.successes} + {first.failures}",
        same,
        interval(whole.value, whole.low, whole.high),
        f"{whole.successes} + {whole.failures}",
        f"{row.mean_success:.3g}",
        f"{row.mean_failure:.3g}",
    )


def interval(value: float, low: float, high: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.2f}" if math.isnan(low) else f"{value:.2f} [{low:.2f}, {high:.2f}]"


def write(found: Study, folder: Path, title: str) -> None:
    """rewards.md, rewards.csv, rewards.json and rewards.png;
    undefined numbers are empty (csv) or null (json).
    """
    wins = int(found.success.sum())
    n = len(found.success)
    lines = [f"# {title}", "", f"{n} exploring episodes, {wins} of them successful.", ""]
    lines += ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    lines += ["| " + " | ".join(cells(row)) + " |" for row in found.rows]
    lines += [
        "",
        *(f"Not scored: **{name}**: {reason}\n" for name, reason in found.missing.items()),
        NOTES,
    ]
    write_text(folder / "rewards.md", "\n".join(lines))
    flat = [flatten(row) for row in found.rows]
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, fieldnames=list(flat[0]))
    writer.writeheader()
    writer.writerows({k: "" if v is None else v for k, v in row.items()} for row in flat)
    write_text(folder / "rewards.csv", table.getvalue())
    content = {"episodes": n, "successes": wins, "rewards": flat, "missing": found.missing}
    write_text(folder / "rewards.json", json.dumps(content, indent=1, allow_nan=False) + "\n")
    aucs = {(row.reward, row.variant): row.early_chunks.value for row in found.rows}
    report.rewards_figure(
        folder / "rewards.png", found.scores, aucs, found.success, title=f"{title} (early chunks)"
    )


def flatten(row: Row) -> dict[str, str | float | int | None]:
    """{"reward", "variant", "all_chunks_value", ..., "mean_failure"}; NaN becomes None."""
    out = {}
    for key, value in asdict(row).items():
        out |= (
            {f"{key}_{k}": v for k, v in value.items()} if isinstance(value, dict) else {key: value}
        )
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in out.items()}
