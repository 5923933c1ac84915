"""What tables and figures are made of: the finished cells, and groupings of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from wamrl.report import evaluations, recovered_in
from wamrl.stats.nested import Estimate, hierarchical
from wamrl.study.claims import Kind


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """One (task, arm, seed): its evaluation on held-out initial states, and what it used.

    Evaluated is the trained model under its deployed sampler.
    """

    task: str
    kind: Kind
    arm: str
    seed: int
    starts: np.ndarray  # int64 (E,) index of the initial state
    success: np.ndarray  # bool (E,)
    stages_done: np.ndarray  # int64 (E,) sub-goals completed
    goals: int  # sub-goals that make a success
    sampler: str  # the deployed one
    mean_length: float  # control steps per episode
    control_steps: int  # taken online, by training; 0 for the base
    seconds: float
    error_over_copy: dict[str, float | None]
    # episodes with more than one attempt, and how many of these succeeded
    recovery: tuple[int, int] | None
    # (control steps before, success on fresh training states), exploring
    curve: tuple[tuple[float, float], ...]
    # (episodes so far, success on held-out states), deployed sampler
    evaluated: tuple[tuple[float, float], ...] = ()
    # sampler -> success on the same states, where all were played
    rates: dict[str, float] = field(default_factory=dict)
    # K -> success, bool (E,), of the same model on the task with K sub-goals; without its own K
    lengths: dict[int, np.ndarray] = field(default_factory=dict)

    @classmethod
    def from_summary(
        cls,
        summary: dict,
        *,
        task: str,
        kind: Kind,
        arm: str,
        seed: int,
        curve: Sequence[tuple[float, float]],
        evaluated: Sequence[tuple[float, float]] = (),
    ) -> CellResult:
        """From the content of a cell's summary.json; ValueError naming what it lacks."""
        try:
            after = summary["arms"]["after"]
            lengths = summary.get("lengths", {})
            return cls(
                task=task,
                kind=kind,
                arm=arm,
                seed=seed,
                starts=np.array(after["starts"], int),
                success=np.array(after["success"], bool),
                stages_done=np.array(summary["stages_done"], int),
                goals=after["stages"],
                sampler=after.get("sampler", "ode"),
                mean_length=after["mean_length"],
                control_steps=summary["control_steps"],
                seconds=summary["seconds"],
                error_over_copy=after["error_over_copy"],
                recovery=recovered_in(after),
                curve=tuple(curve),
                evaluated=tuple(evaluated),
                rates=dict(after.get("rates", {})),
                lengths={int(k): np.array(v["success"], bool) for k, v in lengths.items()},
            )
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"summary of {task}/{arm}/{seed} lacks {error}: delete that cell and run it again"
            ) from error

    @property
    def rate(self) -> float:
        """Success of the evaluation."""
        return float(self.success.mean())

    def reached(self, stage: int) -> np.ndarray:
        """float (E,): at least `stage` sub-goals were completed; the last one is success itself."""
        return (self.success if stage == self.goals else self.stages_done >= stage).astype(float)

    def at_length(self, goals: int) -> np.ndarray | None:
        """float (E,): success on the task with `goals` sub-goals; None if not evaluated there."""
        won = self.success if goals == self.goals else self.lengths.get(goals)
        return None if won is None else won.astype(float)


def cell_curves(
    rows: Sequence[dict[str, float | None]],
) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """`CellResult.curve` and `evaluated`, from the lines of an arm's metrics.jsonl."""
    curve = []
    steps = 0.0
    for row in rows:  # an iteration's episodes show what the steps before them have taught
        if row.get("rollout/success_fresh") is not None:
            curve.append((steps, row["rollout/success_fresh"]))
        steps += row.get("rollout/steps") or 0
    return curve, [(episodes, row["eval/success"]) for episodes, row in evaluations(rows)]


def on_one_axis(curves: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """x (n,) and y (seeds, n) of curves, (points, 2) each, where all of them have been.

    Seeds take different numbers of steps per iteration, so all but a single one are interpolated.
    """
    low = max(curve[0, 0] for curve in curves)
    high = min(curve[-1, 0] for curve in curves)
    if len(curves) == 1 or low >= high:
        x, y = curves[0].T
        return x, y[None]
    x = np.linspace(low, high, max(map(len, curves)))
    return x, np.stack([np.interp(x, *curve.T) for curve in curves])


def unique(items: Iterable) -> list:
    """Distinct items in the order of their first appearance."""
    return list(dict.fromkeys(items))


class Results:
    """All finished cells, looked up by task and arm; `arms` and `tasks` in the study's order."""

    def __init__(self, cells: Sequence[CellResult], arms: Sequence[str], tasks: Sequence[str]):
        self.cells = list(cells)
        self.arms = [a for a in arms if any(c.arm == a for c in cells)]
        self.tasks = [t for t in tasks if any(c.task == t for c in cells)]
        self._at = {(c.task, c.arm, c.seed): c for c in cells}

    def of(self, task: str, arm: str) -> list[CellResult]:
        """The seeds of an arm on a task, in their order; empty where none is finished."""
        found = [c for c in self.cells if (c.task, c.arm) == (task, arm)]
        return sorted(found, key=lambda c: c.seed)

    def kind(self, task: str) -> Kind:
        """What kind of task it is."""
        return next(c.kind for c in self.cells if c.task == task)

    def goals(self, task: str) -> int:
        """The sub-goals that make a success there."""
        return next(c.goals for c in self.cells if c.task == task)

    def lengths(self, task: str) -> list[int]:
        """Every K that some cell of the task was evaluated at; empty if only at the task's own."""
        other = {k for c in self.cells if c.task == task for k in c.lengths}
        return sorted(other | {self.goals(task)}) if other else []

    def has_horizon(self, task: str) -> bool:
        """Whether success can be drawn over sub-goals: else there is one number of them."""
        return self.goals(task) > 1 or bool(self.lengths(task))

    def pairs(self, task: str, arm: str, against: str) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """Seed -> success of `against` and of `arm`, bool (E,), on the states that both finished.

        Seeds without both arms are left out.
        """
        found = {}
        for mine in self.of(task, arm):
            other = self._at.get((task, against, mine.seed))
            if other is None:
                continue
            common, i, j = np.intersect1d(other.starts, mine.starts, return_indices=True)
            if len(common):
                found[mine.seed] = other.success[i], mine.success[j]
        return found

    def difference(self, tasks: Sequence[str], arm: str, against: str) -> Estimate | None:
        """Hierarchical estimate of `arm` - `against`, pooled over those of `tasks` that have both.

        None if none has.
        """
        changes = []
        for task in tasks:
            pairs = self.pairs(task, arm, against).values()
            if pairs:
                changes.append([mine.astype(float) - other for other, mine in pairs])
        return hierarchical(changes, bounds=(-1, 1)) if changes else None

    def rate(self, task: str, arm: str, stage: int | None = None) -> Estimate:
        """Share of episodes that completed at least `stage` sub-goals, over seeds.

        None: that succeeded.
        """
        cells = self.of(task, arm)
        values = [c.reached(c.goals if stage is None else stage) for c in cells]
        return hierarchical([values], bounds=(0, 1))

    def at_length(self, task: str, arm: str, goals: int) -> Estimate | None:
        """Success on the task with `goals` sub-goals, over the seeds evaluated there, if any."""
        found = [c.at_length(goals) for c in self.of(task, arm)]
        values = [won for won in found if won is not None]
        return hierarchical([values], bounds=(0, 1)) if values else None
