"""The verbs. `wamrl VERB RECIPE [--option value ...]`;
every field of the recipe's config is an option.

A recipe is a name from `wamrl list`,
or any importable function that returns a Config: `my_lab.push:my_recipe`.
What is slow to import (torch, simulators) is imported when a verb is called: `--help` needs none.
"""

from __future__ import annotations

import os

# Before torch loads OpenMP: threads that spin long beside busy simulators lose several-fold,
# threads that never spin lose the second core (LOG.md, 2026-11-23).
os.environ.setdefault("GOMP_SPINCOUNT", "2000")
os.environ.setdefault("MUJOCO_GL", "egl")

import errno
import re
import select
import sys
from collections.abc import Callable
from dataclasses import make_dataclass, replace
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from wamrl import __version__
from wamrl.commands import options as o
from wamrl.commands.verbs import VERBS, Verb
from wamrl.hub.repo import HubError, local
from wamrl.runs.options import Shares
from wamrl.runtime.processes import sigterm_interrupts
from wamrl.runtime.ranges import check_ranges

if TYPE_CHECKING:
    from wamrl.config import Config
    from wamrl.runs.options import Options
    from wamrl.runs.record import RunRecord


# these can run on several ranks
SHARED = tuple(name for name, verb in VERBS.items() if issubclass(verb.options or object, Shares))
_TORCHS_MEMORY = re.compile("DefaultCPUAllocator|out of memory")
HELP = ("-h", "--help")
USAGE = f"""usage: wamrl VERB [RECIPE] [--option value ...]

{chr(10).join(f"  {name:<16} {verb.summary}" for name, verb in VERBS.items())}

wamrl VERB --help shows the options of a verb, wamrl VERB RECIPE --help those of a recipe too;
wamrl list the recipes; wamrl --version the version."""
PLAIN = (tyro.conf.FlagCreatePairsOff,)


def main(argv: list[str] | None = None) -> None:
    """Entry point. Bad input gets one clear sentence, and exit code 2 where it is the command line
    itself, else 1.
    """
    args = sys.argv[1:] if argv is None else argv
    try:
        try:
            with sigterm_interrupts():
                _call(args)
        finally:
            sys.stdout.flush()  # here, so that a reader who has gone is noticed here
    except (ValueError, RuntimeError, FloatingPointError, OSError, MemoryError) as error:
        if _nobody_reads(error):
            sys.exit(0)
        if os.environ.get("WAMRL_TRACEBACK"):
            raise
        hint = "" if isinstance(error, ValueError) else " (WAMRL_TRACEBACK=1 shows where)"
        words = _out_of_memory(error) or str(error).strip() or type(error).__name__
        print(f"wamrl: error: {words}{hint}", file=sys.stderr)
        sys.exit(2 if isinstance(error, WrongUsage) else 1)
    except KeyboardInterrupt as stop:
        # whoever was interrupted knows how to go on
        how = "".join(f"; go on with: {command}" for command in stop.args)
        print(f"wamrl: stopped{how}", file=sys.stderr)
        sys.exit(getattr(stop, "exit_code", 130))


class WrongUsage(ValueError):
    """The command line cannot be understood."""


def _out_of_memory(error: Exception) -> str:
    """The sentence for Python's, NumPy's, torch's or the system's want of memory, "" for others."""
    said = " ".join(str(error).split())
    ours = isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM
    torchs = isinstance(error, RuntimeError) and _TORCHS_MEMORY.search(said)
    if not ours and not torchs:
        return ""
    return (
        f"memory is exhausted ({said or type(error).__name__}): what was saved is whole; free "
        "some, or use less with pool.n-envs, sft.batch, train.world.batch or train.cache-mb"
    )


def _nobody_reads(error: Exception) -> bool:
    """Has the reader of our output gone, as `head` does? Then there is nobody to tell."""
    if not isinstance(error, BrokenPipeError):
        return False
    watch = select.poll()
    watch.register(sys.stdout.fileno(), 0)
    gone = any(event & (select.POLLERR | select.POLLHUP) for _, event in watch.poll(0))
    if gone:
        # else Python complains when it flushes at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return gone


def _call(args: list[str]) -> None:
    if not args or args[0] in HELP:
        print(USAGE)
        sys.exit(0 if args else 2)
    if args[0] == "--version":
        print(f"wamrl {__version__}")
        return
    try:
        action = understood(args[0], args[1:])
    except HubError:  # the words are right: the hub does not answer them
        raise
    except ValueError as error:
        raise WrongUsage(str(error)) from error
    action()


def understood(name: str, args: list[str]) -> Callable[[], None]:
    """What the words ask for, ready to be called; ValueError of one sentence, or the exit of
    `--help` and of tyro's own complaints, with nothing done.
    """
    verb = VERBS.get(name)
    if verb is None:
        raise ValueError(f"unknown verb {name!r}: choose one of {', '.join(VERBS)}")
    if verb.options is None:
        return _entry(verb)(args)
    if verb.recipe:
        asked = chosen(name, args)
        return partial(_on_ranks, verb, asked, number_of_ranks(name, asked), [name, *args])
    found = tyro.cli(
        verb.options, args=args, prog=f"wamrl {name}", description=verb.summary, config=PLAIN
    )
    _validate(found)
    if hasattr(found, "words"):
        found = replace(found, words=tuple(args))
    return partial(_entry(verb), found)


def _validate(options: Any) -> None:
    check_ranges(options)
    if hasattr(options, "validate"):
        options.validate()


def _entry(verb: Verb) -> Callable[[Any], None]:
    module, _, function = verb.entry.partition(":")
    return getattr(import_module(module), function)


def _on_ranks(verb: Verb, asked: Options, n: int, args: list[str]) -> None:
    from wamrl.runtime import dist, launch
    from wamrl.runtime.log import console

    command = [sys.executable, "-m", "wamrl", *args]
    with launch.local_ranks(n, command), dist.ranks():
        console.quiet = not dist.is_main()
        asked.config.validate()
        _entry(verb)(asked)


def chosen(name: str, args: list[str]) -> Options:
    """The options of a verb that takes a recipe: that of the run to resume or of the base if none
    is named, else quickstart.
    """
    verb = VERBS[name]
    named = bool(args) and not args[0].startswith("-")
    rest = args[1:] if named else args
    if not named and set(rest) & set(HELP):
        _short_help(name, verb)
    asked, _ = tyro.cli(
        verb.options,
        args=rest,
        prog=f"wamrl {name}",
        return_unknown_args=True,
        add_help=False,
        config=PLAIN,
    )
    here = cache(local)  # asked twice, fetched once
    if not named and not set(rest) & set(HELP):
        asked = _with_places(asked, here)
    recipe, config, record = _defaults(name, args[0] if named else "", asked)
    config, rest = _with_actor(config, rest)
    asked, config = _parsed(verb, config, rest, f"wamrl {name} {recipe}")
    _validate(asked)
    asked = _with_places(asked, here)
    config = _with_dataset(config, here)
    check_ranges(config)  # before `smoke` overwrites some of it
    if asked.smoke and record is None:
        from wamrl.recipes.find import smoke

        config = smoke(config)
    from wamrl.runs.options import Options

    more = {"verb": name, "recipe": recipe, "words": tuple(args), "record": record}
    return Options(config=config, **vars(asked), **more)


def _with_places(asked: Any, here: Callable[..., Path]) -> Any:
    """The verb's options, with what is on the hub (`hf://`) brought to this machine."""
    kinds = {"base": "model", "data": "dataset"}
    given = {name: getattr(asked, name, None) for name in kinds}
    places = {name: here(place, kinds[name]) for name, place in given.items() if place is not None}
    return replace(asked, **places)


def _with_dataset(config: Config, here: Callable[..., Path]) -> Config:
    """The same for an environment that is a dataset: `--env.path hf://owner/name`."""
    path = str(getattr(config.env, "path", ""))
    if not path.startswith("hf://"):
        return config
    return replace(config, env=replace(config.env, path=str(here(path, "dataset"))))


def _with_actor(config: Config, args: list[str]) -> tuple[Config, list[str]]:
    """The configuration with the actor that `--model.actor NAME` chooses, and the other words."""
    from wamrl.recipes.actors import with_actor

    option = "--model.actor"
    rest = []
    words = iter(args)
    for word in words:
        given, _, name = word.partition("=")
        if given != option:
            rest.append(word)
        else:
            config = with_actor(config, name or next(words, ""))
    return config, rest


def _short_help(name: str, verb: Verb) -> None:
    """The verb's own options, then in a line each what a recipe adds; exits."""
    prog = f"wamrl {name} [RECIPE]"
    try:
        tyro.cli(verb.options, args=["--help"], prog=prog, description=verb.summary, config=PLAIN)
    finally:
        print("A recipe is one of `wamrl list`, or module:function. Options too is what it says:\n")
        for option, what in o.CONFIG.items():
            print(f"  --{option:<10} {what}")
        print(f"\n`wamrl {name} RECIPE --help` shows them all, as that recipe has them.")


def _parsed(verb: Verb, config: Config, args: list[str], prog: str) -> tuple[Any, Config]:
    """The verb's options and the recipe's config as `args` change them."""
    flat = tyro.conf.arg(name="")
    parts = [
        ("verb", Annotated[verb.options, flat]),
        # `--train.learn policy world clone`
        ("config", Annotated[type(config), flat, tyro.conf.FlagConversionOff]),
    ]
    both = make_dataclass("Command", parts)
    found = tyro.cli(
        both,
        default=both(verb=verb.options(), config=config),
        args=args,
        prog=prog,
        description=verb.summary,
        config=PLAIN,
    )
    return found.verb, found.config


def _defaults(name: str, recipe: str, asked: Any) -> tuple[str, Config, RunRecord | None]:
    """Recipe and configuration before options change it; and the record of the run to resume."""
    from wamrl.recipes.find import build, build_recorded, build_saved

    resume = getattr(asked, "resume", None)
    base = getattr(asked, "base", None)
    if resume is None and (recipe or base is None):
        recipe = recipe or "quickstart"
        return recipe, build(recipe), None
    from wamrl.runs.record import read_record, record_of, require_run

    if resume is not None:
        require_run(resume)
    record = record_of(base) if resume is None else read_record(resume)
    if record is None:  # a model folder, or of before there was run.json
        config = None if recipe or base is None else build_saved(base)
        if config is not None:
            return "", config, None
        recipe = recipe or "quickstart"
        return recipe, build(recipe), None
    if resume is None:
        return record.recipe, build_recorded(record, base), None
    _require_same_command(name, recipe, asked, record)
    return record.recipe or recipe, build_recorded(record, resume, recipe), record


def _require_same_command(name: str, recipe: str, asked: Any, record: RunRecord) -> None:
    run = asked.resume
    if record.verb == "study":
        raise ValueError(f"{run} is a cell of a study: give the same `wamrl study` command again")
    if name != record.verb:
        raise ValueError(
            f"{run} is a run of `wamrl {record.verb}`: go on with "
            f"`wamrl {record.verb} --resume {run}`"
        )
    if recipe and record.recipe and recipe != record.recipe:
        raise ValueError(
            f"cannot resume {run} with another recipe: recipe is {record.recipe} there and "
            f"{recipe} here; leave it out"
        )
    if asked.smoke and "--smoke" not in record.command:
        raise ValueError(f"cannot resume {run} with --smoke: it was begun without it; leave it out")


def number_of_ranks(name: str, asked: Options) -> int:
    """How many this process shall start; ValueError where the verb or torchrun do not allow it."""
    from wamrl.runs.folder import usual_ranks
    from wamrl.runtime import dist

    n = asked.ranks or (usual_ranks(asked.config) if name in SHARED else 1)
    started = max(1, dist.place_from_environment()["world_size"])
    if max(n, started) > 1 and name not in SHARED:
        raise ValueError(f"{name} runs on one rank: several serve {', '.join(SHARED)}")
    if started > 1 and asked.ranks not in (0, started):
        raise ValueError(f"torchrun has started {started} ranks: leave out --ranks {asked.ranks}")
    return n


if __name__ == "__main__":
    main()
