"""The verbs. `wamrl VERB RECIPE [--option value ...]`;
every field of the recipe's config is an option.

A recipe is a name from `wamrl list`,
or any importable function that returns a Config: `my_lab.push:my_recipe`.
"""

from __future__ import annotations

import os

# Before torch loads OpenMP: threads that spin long beside busy simulators lose several-fold,
# threads that never spin lose the second core (LOG.md, 2026-11-23).
os.environ.setdefault("GOMP_SPINCOUNT", "2000")
os.environ.setdefault("MUJOCO_GL", "egl")

import inspect
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import tyro

from wamrl.commands import data, report, runs, studies
from wamrl.commands.check import check
from wamrl.commands.rewards import compare_rewards
from wamrl.commands.studies import StudyOptions
from wamrl.recipes.find import find_recipe, recipes, smoke
from wamrl.runs.folder import Options, usual_ranks
from wamrl.runtime import dist, launch
from wamrl.runtime.log import console
from wamrl.runtime.ranges import check_ranges
from wamrl.study import StudyConfig

VERBS = {
    "quickstart": "the whole method once: demonstrations, SFT, online WAM-RL, before and after",
    "demos": "record demonstrations of the scripted expert",
    "sft": "learn from demonstrations",
    "train": "improve a base model online",
    "eval": "closed-loop success on held-out initial states",
    "compare-rewards": "which reward tells success from failure? one rollout under all of them",
    "study": "arms x tasks x seeds from one base each, compared: tables, figures, claims",
    "report": "one page of a run or a study, to look at: curves, videos, diagnostics",
    "compare": "runs side by side: success, paired differences, settings that differ",
    "data": "convert, inspect and count recordings: our own, LeRobot, HDF5",
    "list": "recipes, studies and tasks",
    "check": "does my environment, model or reward keep its contract?",
}
SHARED = ("quickstart", "sft", "train", "eval")  # these can run on several ranks
USAGE = "usage: wamrl VERB [RECIPE] [--option value ...]\n\n" + "\n".join(
    f"  {v:<16} {t}" for v, t in VERBS.items()
)
USAGE += "\n\nwamrl VERB RECIPE --help shows every option of that recipe; `wamrl list` the recipes."


def main(argv: list[str] | None = None) -> None:
    """Entry point: one clear sentence and a non-zero exit code for bad input."""
    args = sys.argv[1:] if argv is None else argv
    if not args or args[0] in ("-h", "--help"):
        print(USAGE)
        sys.exit(0 if args else 2)
    verb = args[0]
    try:
        if verb not in VERBS:
            raise ValueError(f"unknown verb {verb!r}: choose one of {', '.join(VERBS)}")
        if verb in ALONE:
            return ALONE[verb](args[1:])
        options = chosen(verb, args[1:])
        n = number_of_ranks(verb, options)
        command = [sys.executable, "-m", "wamrl.cli", *args]
        with launch.local_ranks(n, command), dist.ranks():
            console.quiet = not dist.is_main()
            options.config.validate()
            BODIES[verb](options)
    except (ValueError, RuntimeError, FloatingPointError, OSError) as error:
        if os.environ.get("WAMRL_TRACEBACK"):
            raise
        hint = "" if isinstance(error, ValueError) else " (WAMRL_TRACEBACK=1 shows where)"
        print(f"wamrl: error: {error}{hint}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        how = "the same command" if verb == "study" else "--resume and the run folder"
        print(f"wamrl: stopped; go on with {how}", file=sys.stderr)
        sys.exit(130)


def chosen(verb: str, args: list[str]) -> Options:
    """The options of a verb that takes a recipe (default: quickstart)."""
    named = bool(args) and not args[0].startswith("-")
    name = args[0] if named else "quickstart"
    rest = args[1:] if named else args
    options = tyro.cli(
        Options,
        default=Options(config=find_recipe(name)(), words=(name, *rest)),
        args=rest,
        prog=f"wamrl {verb} {name}",
        description=VERBS[verb],
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    check_ranges(options.config)  # before `smoke` overwrites some of it
    if options.smoke:
        options = replace(options, config=smoke(options.config))
    if options.ranks < 0:
        raise ValueError(
            f"ranks={options.ranks} is not possible: give the number of processes, or 0 for the "
            "usual"
        )
    return options


def number_of_ranks(verb: str, options: Options) -> int:
    """How many this process shall start; ValueError where the verb or torchrun do not allow it."""
    n = options.ranks or (usual_ranks(options.config) if verb in SHARED else 1)
    started = max(1, dist.place_from_environment()["world_size"])
    if max(n, started) > 1 and verb not in SHARED:
        raise ValueError(f"{verb} runs on one rank: several serve {', '.join(SHARED)}")
    if started > 1 and options.ranks not in (0, started):
        raise ValueError(f"torchrun has started {started} ranks: leave out --ranks {options.ranks}")
    return n


def run_study(args: list[str]) -> None:
    """`wamrl study NAME`; a cell's process gets the same words and `--cell`."""
    if not args or args[0].startswith("-"):
        raise ValueError(
            f"which study? give one of {', '.join(recipes(StudyConfig))}, or module:function"
        )
    options = tyro.cli(
        StudyOptions,
        args=args[1:],
        prog=f"wamrl study {args[0]}",
        description=VERBS["study"],
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    study = find_recipe(args[0], StudyConfig)()
    if options.smoke:
        tasks = tuple(replace(task, config=smoke(task.config)) for task in study.tasks)
        study = replace(study, name=f"{study.name}-smoke", tasks=tasks, seeds=study.seeds[:1])
    studies.study(
        study,
        options,
        [sys.executable, "-m", "wamrl.cli", "study", *args],
        f"wamrl study {' '.join(args)}",
    )


def print_list(_: list[str]) -> None:
    """`wamrl list`: recipes, studies and tasks."""
    print("recipes:")
    for name, function in recipes().items():
        print(f"  {name:<28} {(inspect.getdoc(function) or '').splitlines()[0]}")
    print("\nstudies (wamrl study NAME):")
    for name, function in recipes(StudyConfig).items():
        print(f"  {name:<28} {(inspect.getdoc(function) or '').splitlines()[0]}")
    from wamrl.envs.metaworld import tasks as metaworld_tasks
    from wamrl.envs.robosuite import tasks as robosuite_tasks

    print("\nMetaWorld tasks (--env.task):")
    for name, task in metaworld_tasks.TASKS.items():
        marks = ", ".join(
            m
            for m, on in (
                ("staged: --env.stages 1..4", task.stageable),
                ("multi-phase", task.holds),
            )
            if on
        )
        print(f"  {name:<28} {task.instruction}{f'  [{marks}]' if marks else ''}")
    print("\nrobosuite tasks (--env.task of a robosuite recipe such as lift; docs/robosuite.md):")
    for name, task in robosuite_tasks.TASKS.items():
        stages = len(task.things)
        print(f"  {name:<28} {task.instruction}{f'  [{stages} stages]' if stages > 1 else ''}")
    from wamrl.envs.libero.assets import SUITES

    suites = ", ".join(f"{name} (0..{size - 1})" for name, size in SUITES.items())
    print(
        "\nLIBERO suites and tasks (--env.suite, --env.task; own environment, docs/libero.md): "
        f"{suites}"
    )


def _alone(verb: str, options: type, body: Callable, args: list[str]) -> None:
    """A verb whose options are all there is to it."""
    body(tyro.cli(options, args=args, prog=f"wamrl {verb}", description=VERBS[verb]))


BODIES: dict[str, Callable[[Options], None]] = {
    "quickstart": runs.quickstart,
    "demos": runs.demos,
    "sft": runs.sft,
    "train": runs.train,
    "eval": runs.eval,
    "compare-rewards": compare_rewards,
    "check": check,
}
# verbs that take no recipe of a run
ALONE: dict[str, Callable[[list[str]], None]] = {
    "study": run_study,
    "report": partial(_alone, "report", report.ReportOptions, report.report),
    "compare": partial(_alone, "compare", report.CompareRunsOptions, report.compare),
    "data": data.run,
    "list": print_list,
}


if __name__ == "__main__":
    main()
