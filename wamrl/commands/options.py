"""The options of every verb, without its recipe's. No torch here: `wamrl VERB --help` is quick."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from wamrl.recipes.find import listed
from wamrl.runs.options import (
    Alone,
    Embeds,
    Films,
    Fits,
    Keeps,
    Learns,
    Makes,
    Resumes,
    Shares,
    Starts,
    Tells,
)
from wamrl.runtime.shown import Place, Whole

# The fields of a recipe's Config, in a line each; a test holds them to be all.
CONFIG = {
    "name": "of the run folder",
    "env.*": "the environment: task, cameras, horizon",
    "seed": "of everything that is drawn",
    "model.*": "world model and actor: size, frames, chunk, normalisation; "
    "--model.actor head, bridge or prefix puts another actor into the recipe",
    "flow.*": "samplers and exploration noise",
    "data.*": "how many demonstrations are recorded, and how",
    "sft.*": "learning from demonstrations",
    "train.*": "the online loop: iterations, reward, learner, world model, diagnostics",
    "eval.*": "on how many initial states success is measured",
    "rewards.*": "what compare-rewards compares",
    "pool.*": "the simulators: how many, in how many processes",
    "threads": "of torch",
}

StudyName = Annotated[str, tyro.conf.arg(metavar="NAME", help_behavior_hint="")]


@dataclass(frozen=True, kw_only=True)
class CheckOptions(Alone):
    """Options of `check`."""

    smoke: bool = False  # the recipe's smallest version


@dataclass(frozen=True, kw_only=True)
class PlanOptions(Alone, Fits):
    """Options of `plan`."""

    smoke: bool = False  # the recipe's smallest version


@dataclass(frozen=True, kw_only=True)
class EmbedOptions(Alone, Embeds):
    """Options of `embed`."""

    smoke: bool = False  # the recipe's smallest version

    def validate(self) -> None:
        """ValueError where there is nothing to read with."""
        if not self.encoder:
            raise ValueError("embed needs a text encoder: give --encoder with its local folder")


@dataclass(frozen=True, kw_only=True)
class DemosOptions(Alone, Makes, Resumes):
    """Options of `demos`."""


@dataclass(frozen=True, kw_only=True)
class SFTOptions(Makes, Tells, Shares, Resumes, Learns):
    """Options of `sft`."""


@dataclass(frozen=True, kw_only=True)
class QuickstartOptions(Makes, Tells, Keeps, Shares, Resumes, Learns):
    """Options of `quickstart`."""


@dataclass(frozen=True, kw_only=True)
class TrainOptions(Makes, Tells, Keeps, Shares, Resumes, Learns, Starts):
    """Options of `train`."""

    def validate(self) -> None:
        """ValueError where there is nothing to begin with."""
        if self.base is None and self.resume is None:
            raise ValueError(
                "train starts from a base model: run `wamrl sft RECIPE` first, then give --base RUN"
            )


@dataclass(frozen=True, kw_only=True)
class EvalOptions(Makes, Films, Keeps, Shares, Learns, Starts):
    """Options of `eval`."""

    def validate(self) -> None:
        """ValueError where there is nothing to measure."""
        if self.base is None:
            raise ValueError(
                "eval needs a model: give --base with a run folder or a checkpoint folder"
            )


@dataclass(frozen=True, kw_only=True)
class CompareOptions(Alone, Makes, Starts):
    """Options of `compare-rewards`."""

    def validate(self) -> None:
        """ValueError where there is nothing to roll out."""
        if self.base is None:
            raise ValueError(
                "compare-rewards needs a model: give --base with a run folder or a checkpoint "
                "folder"
            )


@dataclass(frozen=True, kw_only=True)
class ListOptions:
    """Options of `list`: none."""


@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """Options of `study`: where and how it runs; what it is stands in its recipe."""

    name: tyro.conf.Positional[StudyName] = ""  # one of `wamrl list`, or module:function
    out: Place = None  # its folder, to which one returns to go on (default: runs/study-NAME)
    jobs: Whole = None  # cells at once (default: the study's own; 0: cores / threads)
    only: str = "*"  # run the cells that match this glob of TASK/ARM/SEED, and the bases they need
    report_only: bool = False  # run nothing: tables and figures of what is finished
    smoke: bool = False  # everything, but tiny, and one seed: does it run here?
    keep_models: bool = False  # the final and the best model of every arm
    # for the runner's own use: this one cell, in this process
    cell: Annotated[str | None, tyro.conf.arg(metavar="CELL", help_behavior_hint="")] = None
    words: tyro.conf.Suppress[tuple[str, ...]] = ()  # as they were typed

    def validate(self) -> None:
        """ValueError where there is no such study."""
        known = listed("StudyConfig")
        if ":" not in self.name and self.name not in known:
            which = f"unknown study {self.name!r}:" if self.name else "which study?"
            raise ValueError(f"{which} give one of {', '.join(known)}, or module:function")
