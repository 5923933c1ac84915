"""One evaluated model, and two of them compared on the same initial states."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields

import numpy as np
from torch import Tensor

from wamrl.report.recovery import recovery, recovery_line
from wamrl.report.summary import arm
from wamrl.stats.paired import Paired, paired_difference, wilson


@dataclass(frozen=True, kw_only=True)
class EvalResult:
    """One evaluated model: success on the evaluation states,
    and the world model's error over copying per offset.
    """

    task: str  # the environment's name
    goals: int  # sub-goals that make a success
    seed: int
    starts: Tensor  # int64 (E,) index of the initial state in the split `eval`
    success: Tensor  # bool (E,)
    length: Tensor  # int64 (E,) control steps
    stages: Tensor  # int64 (E,)
    heldout: dict[int, float]  # on held-out demonstrations
    executed: dict[int, float]  # on the evaluated episodes
    counters: Tensor  # int64 (E, C) what the environment counted
    counter_names: tuple[str, ...]  # C of them
    sampler: str  # whose episodes these are: the deployed one
    rates: dict[str, float]  # success of every sampler on the evaluation states
    # of a suite: bool (E,) per task, which episodes are its
    by_task: dict[str, Tensor] = field(default_factory=dict)

    def state_dict(self) -> dict:
        """For a checkpoint."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def summary(self) -> dict:
        """For summary.json, see docs/metrics.md."""
        found = arm(
            task=self.task,
            stages=self.goals,
            seed=self.seed,
            success=self.success.numpy(),
            length=self.length.numpy(),
            error_over_copy=self.heldout,
        )
        found["error_over_copy_executed"] = {str(k): v for k, v in self.executed.items()}
        found["mean_stages"] = self.stages.float().mean().item()
        found["starts"] = self.starts.tolist()
        found["success"] = self.success.int().tolist()
        found["sampler"] = self.sampler
        found["rates"] = self.rates
        found |= {"tasks": self.rates_of_tasks()} if self.by_task else {}
        counters = self.counters.numpy()
        return found | recovery(self.counter_names, counters, self.success.numpy())

    def rates_of_tasks(self) -> dict[str, dict]:
        """Successes, episodes, rate and Wilson's 95 % interval of each task of a suite."""
        found = {}
        for name, own in self.by_task.items():
            wins = int(self.success[own].sum())
            n = int(own.sum())
            rate = wins / n if n else math.nan
            interval = list(wilson(wins, n))
            found[name] = {"successes": wins, "episodes": n, "rate": rate, "wilson95": interval}
        return found


def success_line(result: EvalResult) -> str:
    """For the console."""
    wins = int(result.success.sum())
    n = len(result.success)
    low, high = wilson(wins, n)
    counters = result.counters.numpy()
    recovered = recovery_line(result.counter_names, counters, result.success.numpy())
    others = ", ".join(f"{name} {rate:.1%}" for name, rate in result.rates.items())
    return (
        f"sampler {result.sampler!r}: {wins}/{n} = {wins / n:.1%}, "
        f"95 % interval {low:.1%} to {high:.1%} (of all: {others})"
        f"{recovered and '; '}{recovered}"
    )


def paired(before: EvalResult, after: EvalResult) -> Paired:
    """Success after - before, on the initial states that neither lost with a worker.

    Of a suite, the interval is stratified by task.
    """
    common = _common(before, after)
    old, new = (_on(result, common) for result in (before, after))
    if not after.by_task:
        return paired_difference(old, new)
    numbers = sum(i * own.long() for i, own in enumerate(after.by_task.values()))
    task = dict(zip(after.starts.tolist(), numbers.tolist(), strict=True))
    return paired_difference(old, new, strata=np.array([task[i] for i in common]))


def paired_by_task(before: EvalResult, after: EvalResult) -> dict[str, Paired]:
    """`paired` for each task of a suite; empty where there is one task."""
    found = {}
    for name, own in after.by_task.items():
        mine = set(after.starts[own].tolist())
        common = [i for i in _common(before, after) if i in mine]
        if common:
            found[name] = paired_difference(_on(before, common), _on(after, common))
    return found


def gained(before: EvalResult, after: EvalResult) -> list[int]:
    """The evaluation states that were lost before and won after, in their order."""
    old = _outcomes(before)
    new = _outcomes(after)
    return [i for i in sorted(old.keys() & new.keys()) if new[i] and not old[i]]


def _common(before: EvalResult, after: EvalResult) -> list[int]:
    """The initial states of both, in their order."""
    return sorted(set(before.starts.tolist()) & set(after.starts.tolist()))


def _on(result: EvalResult, states: list[int]) -> np.ndarray:
    """Success on these initial states, bool."""
    found = _outcomes(result)
    return np.array([found[i] for i in states], bool)


def _outcomes(result: EvalResult) -> dict[int, bool]:
    """Success by initial state."""
    return dict(zip(result.starts.tolist(), result.success.tolist(), strict=True))
