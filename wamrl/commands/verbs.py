"""The words that may come after `wamrl`, in a line each. No torch here: `wamrl --help` is quick."""

from __future__ import annotations

from dataclasses import dataclass

from wamrl.commands import options as o
from wamrl.commands.hub import PullOptions, PushOptions
from wamrl.commands.report import CompareRunsOptions, ReportOptions
from wamrl.commands.serve import ServeOptions


@dataclass(frozen=True)
class Verb:
    """A word after `wamrl`. To add one, add a line to VERBS."""

    summary: str
    entry: str  # module:function, imported when the verb is called
    # what `entry` is given; None: `entry` understands the words itself and returns what to call
    options: type | None = None
    recipe: bool = False  # a recipe comes first, and its config is options too: gives `Options`


VERBS = {
    "quickstart": Verb(
        "the whole method once: demonstrations, SFT, online WAM-RL, before and after",
        "wamrl.commands.runs:quickstart",
        o.QuickstartOptions,
        recipe=True,
    ),
    "demos": Verb(
        "record demonstrations of the scripted expert",
        "wamrl.commands.runs:demos",
        o.DemosOptions,
        recipe=True,
    ),
    "sft": Verb(
        "learn from demonstrations",
        "wamrl.commands.runs:sft",
        o.SFTOptions,
        recipe=True,
    ),
    "train": Verb(
        "improve a base model online",
        "wamrl.commands.runs:train",
        o.TrainOptions,
        recipe=True,
    ),
    "eval": Verb(
        "closed-loop success on held-out initial states",
        "wamrl.commands.runs:eval",
        o.EvalOptions,
        recipe=True,
    ),
    "compare-rewards": Verb(
        "which reward tells success from failure? one rollout under all of them",
        "wamrl.commands.rewards:compare_rewards",
        o.CompareOptions,
        recipe=True,
    ),
    "study": Verb(
        "arms x tasks x seeds from one base each, compared: tables, figures, claims",
        "wamrl.commands.studies:study",
        o.StudyOptions,
    ),
    "report": Verb(
        "one page of a run or a study, to look at: curves, videos, diagnostics",
        "wamrl.commands.report:report",
        ReportOptions,
    ),
    "compare": Verb(
        "runs side by side: success, paired differences, settings that differ",
        "wamrl.commands.report:compare",
        CompareRunsOptions,
    ),
    "serve": Verb(
        "answer observations with actions over websockets, for openpi's client",
        "wamrl.commands.serve:serve",
        ServeOptions,
    ),
    "push": Verb(
        "publish a model on the Hugging Face Hub, with a card of its run's own numbers",
        "wamrl.commands.hub:push",
        PushOptions,
    ),
    "pull": Verb(
        "fetch a model from the Hugging Face Hub",
        "wamrl.commands.hub:pull",
        PullOptions,
    ),
    "data": Verb(
        "convert, inspect and count recordings: our own, LeRobot, HDF5",
        "wamrl.commands.data:understood",
    ),
    "embed": Verb(
        "an environment's instructions, read by a text encoder, for --model.world.text",
        "wamrl.commands.embed:write",
        o.EmbedOptions,
        recipe=True,
    ),
    "plan": Verb(
        "what a run needs of GPUs, memory and disk; refuses what cannot fit",
        "wamrl.commands.plan:plan",
        o.PlanOptions,
        recipe=True,
    ),
    "list": Verb(
        "recipes, studies and tasks",
        "wamrl.commands.listing:show",
        o.ListOptions,
    ),
    "check": Verb(
        "does my environment, model or reward keep its contract?",
        "wamrl.commands.check:check",
        o.CheckOptions,
        recipe=True,
    ),
}
