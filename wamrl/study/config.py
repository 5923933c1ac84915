"""A study as frozen data: tasks x arms x seeds, and the claims that it decides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt

from wamrl.config import Config
from wamrl.envs.base import EnvConfig
from wamrl.runtime.log import resolved
from wamrl.runtime.ranges import CountOrZero, Processes, Seed, check_ranges
from wamrl.study.claims import KINDS, Claim, Kind

BASE = "base"


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to train on from the base model."""

    name: str
    tests: str  # in one line: what this arm is there to show
    # a module-level function; may change reward, actor, world, ema and flow
    change: Callable[[Config], Config]


@dataclass(frozen=True, kw_only=True)
class StudyTask:
    """One task of a study, on which its arms are compared."""

    name: str
    # short: one motion; multi-phase: several in order (grasp, carry, place);
    # staged: goal after goal
    kind: Kind
    config: Config  # of the base, and of every arm except for what the arm changes
    arms: tuple[str, ...] | None = None  # names of the arms that run here; None: all
    # Other lengths of the task, (K sub-goals, environment): every finished model is evaluated there
    # too, untrained for it. The task's own length is evaluated anyway.
    lengths: tuple[tuple[int, EnvConfig], ...] = ()

    def runs(self, arm: str) -> bool:
        """Whether the arm of this name runs here, if the study has it; the base always does."""
        return arm == BASE or self.arms is None or arm in self.arms

    def check_lengths(self) -> None:
        """Raise ValueError unless each K >= 1 stands once, with an environment that is possible."""
        counts = [k for k, _ in self.lengths]
        if any(k < 1 for k in counts) or len(set(counts)) < len(counts):
            raise ValueError(
                f"study: task {self.name} has lengths K = {counts}; give each K >= 1 once"
            )
        for _, env in self.lengths:
            env.validate()


@dataclass(frozen=True, order=True)
class Cell:
    """One training run."""

    task: str
    arm: str
    seed: int

    def __str__(self) -> str:
        return f"{self.task}/{self.arm}/{self.seed}"

    def folder(self, out: Path) -> Path:
        """Where it runs, in the folder of the study."""
        return Path(out) / self.task / self.arm / f"seed{self.seed}"

    @property
    def base(self) -> Cell:
        """The cell whose model it begins from."""
        return replace(self, arm=BASE)


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """Everything that decides the numbers of a study.

    And how it is run: jobs, keep_models and videos decide no number.
    """

    name: str
    tasks: tuple[StudyTask, ...]
    arms: tuple[Arm, ...]  # without the base, which always runs
    seeds: tuple[Seed, ...] = (0, 1, 2)
    claims: tuple[Claim, ...] = field(default_factory=tuple)
    margin: Annotated[float, Gt(0), Lt(1)] = 0.05  # of the claims' rule: a smaller gain is none
    # of torch, per cell; the last bits of all results depend on it
    threads: Annotated[int, Ge(1), Le(4096)] = 1
    jobs: Processes = 0  # cells at once; 0: cores / threads
    keep_models: bool = False  # the final and the best model of every arm
    videos: CountOrZero = 0  # of evaluated episodes, per cell

    def validate(self) -> None:
        """Raise ValueError with one sentence that says what to do."""
        self._check_names("task", [t.name for t in self.tasks])
        self._check_names("arm", [BASE, *(a.name for a in self.arms)])
        self._check_numbers()
        for task in self.tasks:
            self._check_task(task)
        known = {BASE} | {a.name for a in self.arms}
        for claim in self.claims:
            if not {claim.arm, claim.against} <= known:
                raise ValueError(
                    f"study: claim {claim.number} compares arms that the study lacks; "
                    "drop it or add them"
                )

    def _check_names(self, what: str, names: list[str]) -> None:
        for name in names:
            plain = name.replace("-", "").replace("_", "").isalnum()
            if not plain or names.count(name) > 1:
                raise ValueError(
                    f"study: {what} name {name!r} must be unique, of letters, digits, - and _"
                )

    def _check_numbers(self) -> None:
        check_ranges(replace(self, tasks=()), "study")  # tasks say themselves what is wrong
        distinct = len(set(self.seeds)) == len(self.seeds)
        if not self.tasks or not self.seeds or not distinct:
            raise ValueError(
                "study: at least one task and one seed >= 0 are needed, and no seed twice"
            )

    def _check_task(self, task: StudyTask) -> None:
        if task.kind not in KINDS:
            raise ValueError(
                f"study: task {task.name} is of kind {task.kind!r}; "
                f"choose one of {', '.join(KINDS)}"
            )
        if unknown := set(task.arms or ()) - {a.name for a in self.arms}:
            raise ValueError(
                f"study: task {task.name} names unknown arms {sorted(unknown)}; add them to `arms`"
            )
        task.check_lengths()
        for arm in self.arms_of(task):
            self._check_fair(task, arm)

    def _check_fair(self, task: StudyTask, arm: Arm) -> None:
        """All that an arm may change is how it learns from the same number of episodes."""
        base = task.config
        cfg = arm.change(base)
        same = {
            name: getattr(base.train, name)
            for name in ("reward", "learn", "learner", "world", "ema")
        }
        if replace(cfg, flow=base.flow, train=replace(cfg.train, **same)) != base:
            raise ValueError(
                f"study: arm {arm.name} changes more than flow and train.reward, actor, world and "
                f"ema on task {task.name}, so it cannot be compared with the others: "
                "leave the rest alone"
            )
        cfg.validate()

    def arms_of(self, task: StudyTask) -> list[Arm]:
        """The arms that run on a task."""
        return [a for a in self.arms if task.runs(a.name)]

    def cells(self, only: str = "*") -> list[Cell]:
        """Bases first, then arms, seed by seed.

        only: a glob of TASK/ARM/SEED; the bases of chosen arms come along.
        """
        bases = []
        arms = []
        for seed in self.seeds:
            for task in self.tasks:
                bases.append(Cell(task.name, BASE, seed))
                arms += [Cell(task.name, arm.name, seed) for arm in self.arms_of(task)]
        chosen = [c for c in arms if fnmatchcase(str(c), only)]
        needed = {c.base for c in chosen}
        return [c for c in bases if c in needed or fnmatchcase(str(c), only)] + chosen

    def config(self, cell: Cell) -> Config:
        """The run of one cell; ValueError if the study has no such cell."""
        if cell not in self.cells():
            raise ValueError(f"the study {self.name} has no cell {cell}: name one as TASK/ARM/SEED")
        cfg = self.task(cell).config
        if cell.arm != BASE:
            cfg = next(a for a in self.arms if a.name == cell.arm).change(cfg)
        return replace(
            cfg, name=f"{self.name}-{cell.task}-{cell.arm}", seed=cell.seed, threads=self.threads
        )

    def task(self, cell: Cell) -> StudyTask:
        """The task that a cell runs on."""
        return next(t for t in self.tasks if t.name == cell.task)

    def identity(self) -> dict:
        """What must be equal to go on in a folder: all that decides numbers, as plain JSON.

        Not the other lengths of a task: they may be added later, since they change no other number.
        Each cell says itself in which environments it was evaluated.
        """
        tasks = {}
        for task in self.tasks:
            arms = {a.name: resolved(a.change(task.config)) for a in self.arms_of(task)}
            tasks[task.name] = {"kind": task.kind, "base": resolved(task.config), "arms": arms}
        return {
            "name": self.name,
            "seeds": list(self.seeds),
            "threads": self.threads,
            "tasks": tasks,
        }
