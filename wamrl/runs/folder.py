"""A run folder: which, with what data, and who simulates.

runs/NAME-TIME/  run.json  config.json  metrics.jsonl  tensorboard/  summary.json
                 learning_curve.png
                 diagnostics.png  videos/ before, after; compare: a state lost before, won after
                 demos/ heldout/          demonstrations (unless taken from another run)
                 checkpoints/             sft-resume, before, step-*; models: base, best, final
                 .lock                    of the process that writes here
"""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch

from wamrl.config import Config
from wamrl.data.dataset_env import DatasetConfig
from wamrl.data.keys import DataKeys
from wamrl.data.sources import KINDS
from wamrl.models.saved import load_wam, model_folder
from wamrl.models.wam import WAM
from wamrl.pool.pool import Pool
from wamrl.runs import record as records
from wamrl.runs.demonstrations import Data, env_spec, has_data, load_data, record
from wamrl.runs.options import Options
from wamrl.runs.record import Source
from wamrl.runtime import dist
from wamrl.runtime.cores import all_cores, device, ranks, threads_beside
from wamrl.runtime.files import holder, locked, sweep, write_text
from wamrl.runtime.log import console, new_run, read_config, resolved
from wamrl.runtime.trackers import check_trackers

CONFIG = "config.json"
BOOKS = (CONFIG, records.FILE)  # what a run folder holds in which nothing has happened


def require_playable(cfg: Config) -> None:
    """ValueError where the environment is only a dataset, in which no episode can be played."""
    if not cfg.env.playable:
        raise ValueError(
            f"{cfg.name} has no simulator, only a dataset: sft learns from it, this verb needs a "
            "recipe with an environment"
        )


def usual_ranks(cfg: Config) -> int:
    """One where somebody else shares out the cores (the user, Ray)
    or a budget of control steps holds for one rank.
    """
    if cfg.threads or cfg.pool.n_workers or cfg.pool.backend == "ray" or cfg.train.env_steps:
        return 1
    return min(ranks(min(cfg.sft.batch, cfg.train.world.batch)), cfg.train.groups)


def next_command(verb: str, o: Options, option: str, run: Path) -> str:
    """What goes on from a run, to be typed as it stands: the same recipe and options, and `option`
    (--data or --base) naming the run. Demonstrations that were given stay given.
    """
    kept = []
    skip = False
    for word in _as_begun(o):
        name, _, value = word.partition("=")
        named = name in ("--base", "--resume", option)
        if not named and not skip and word != "--force":
            kept.append(word)
        skip = named and not value
    return shlex.join(["wamrl", verb, *kept, option, str(run)])


def _as_begun(o: Options) -> list[str]:
    """The recipe and all options, those with which a resumed run was begun included."""
    words = list(o.words)
    if o.record is not None:
        named = bool(words) and not words[0].startswith("-")
        words = [*o.record.command[2:], *words[named:]]
    named = bool(words) and not words[0].startswith("-")
    return words if named or not o.recipe else [o.recipe, *words]


@contextlib.contextmanager
def open_run(o: Options, data: Data | None) -> Iterator[Path]:
    """A new run folder, or the one to resume, whose configuration must be the same but for what
    `record.changes` allows.

    The folder is ours alone within the block. data: of `given_data`. If the block raises before
    anything has happened in the folder, a new one vanishes and one to resume is as it was. A
    KeyboardInterrupt says what goes on from here.
    """
    check_trackers(o.trackers)
    torch.set_num_threads(o.config.threads or torch.get_num_threads())
    with contextlib.ExitStack() as held:
        if o.resume is not None and dist.is_main():
            held.enter_context(alone_in(o.resume))
        books = {} if o.resume is None else _books(o.resume)
        run = _new_run(o, data) if o.resume is None else _resumed_run(o)
        if o.resume is None and dist.is_main():
            held.enter_context(alone_in(run))
        before = _content(run)
        try:
            yield run
        except BaseException as error:
            if dist.is_main() and _content(run) == before:
                _take_back(run, books)
            if isinstance(error, KeyboardInterrupt) and run.is_dir():
                error.args = (shlex.join(["wamrl", o.verb, "--resume", str(run)]),)
            raise


def _content(run: Path) -> dict[Path, int]:
    """What has happened in a run folder: every file, and when it was written."""
    files = (path for path in run.rglob("*") if path.is_file())
    return {path: path.stat().st_mtime_ns for path in files if path.name not in (*BOOKS, ".lock")}


def _books(run: Path) -> dict[str, str]:
    paths = (run / name for name in BOOKS)
    return {path.name: path.read_text(encoding="utf-8") for path in paths if path.is_file()}


def _take_back(run: Path, books: dict[str, str]) -> None:
    if not books:
        shutil.rmtree(run)
    for name, text in books.items():
        write_text(run / name, text)


def _new_run(o: Options, data: Data | None) -> Path:
    made = ""
    if dist.is_main():
        place = None if data is None else data.place
        base = None if o.base is None else model_folder(o.base)
        command = ["wamrl", o.verb, *o.words]
        keys = DataKeys() if data is None else data.keys
        entry = records.new_record(command, o.recipe, o.config, place, base, keys)
        also = {records.FILE: records.record_text(entry)}
        made = str(new_run(o.out, o.config.name, o.config, also))
    run = Path(dist.broadcast_text(made))
    console.print(f"run folder: {run}", markup=False)
    return run


def _resumed_run(o: Options) -> Path:
    """The run to resume; what it has otherwise now is written into it, and said."""
    saved = read_config(o.resume)
    changed = records.changes(saved, resolved(o.config), force=o.force, run=o.resume)
    if dist.is_main():
        for name, (there, here) in changed.items():
            console.print(f"{name} is {here} from here on, it was {there}", markup=False)
        if o.record is not None:
            command = ["wamrl", o.verb, *o.words]
            entry = records.resumed(o.record, o.config, changed, command)
            records.write_record(o.resume, entry)
        if changed:
            write_text(o.resume / CONFIG, json.dumps(resolved(o.config), indent=1))
    dist.barrier()
    return o.resume


@contextlib.contextmanager
def alone_in(run: Path) -> Iterator[None]:
    """Nobody else writes into the run folder meanwhile; what killed processes have left half-made
    there is gone. ValueError of one sentence if somebody else is at work.
    """
    with locked(run) as mine:
        if not mine:
            raise ValueError(
                f"{run} is being written by {holder(run)}: wait for its end, or stop it first"
            )
        sweep(run)
        yield


def changed_numbers(o: Options, run: Path) -> dict[str, float]:
    """As metrics: what the online loop has otherwise since the run was resumed just now."""
    known = None if o.record is None else records.read_record(run)
    if known is None or not known.resumed:
        return {}
    found = {}
    for name, (_, here) in known.resumed[-1]["changed"].items():
        if name.startswith("train.") and isinstance(here, int | float):
            found[f"config/{name}"] = float(here)
    return found


def open_pool(cfg: Config) -> Pool:
    """The simulators; says how the cores are shared out."""
    pool = cfg.build_pool()
    n = pool.config.n_workers
    learning = torch.get_num_threads()
    with threads_beside(n if pool.config.num_splits > 1 else 0) as acting:
        each = f"{dist.world()} ranks, on each " if dist.world() > 1 else ""
        shares = (
            f"simulator processes {n}, torch threads beside them {acting}, while learning "
            f"{learning}"
        )
        console.print(f"{all_cores()} cores; {each}{shares}", markup=False)
    return pool


def given_data(o: Options) -> Data | None:
    """The demonstrations that a run is given: those of --data and no others, else those of the run
    to resume, else those of the base; None: it records its own.

    ValueError of one sentence where they are not there, do not fit, or are not what they were.
    """
    place, keys = _given(o)
    return None if place is None else load_data(o.config, place, keys)


def recorded_data(o: Options, run: Path) -> Data:
    """Demonstrations of the run's own; those that it has recorded already are kept."""
    record(o.config, run)
    return load_data(o.config, run)


def demonstrations_of(o: Options) -> tuple[Path | None, DataKeys]:
    """The demonstrations that are named, by --data or by an environment that is a dataset, and what
    their columns are called.
    """
    if o.data is None and o.keys != DataKeys():
        raise ValueError(
            "--views, --rename and the keys name columns of the dataset of --data: give --data "
            "(for the recipe dataset: --env.path and --env.keys.state-keys, ...)"
        )
    if o.data is not None or not isinstance(o.config.env, DatasetConfig):
        return o.data, o.keys
    return o.config.env.demonstrations


def _given(o: Options) -> tuple[Path | None, DataKeys]:
    """Where they are, if they are given at all, and what their columns are called."""
    given, keys = demonstrations_of(o)
    if given is not None and not has_data(given):
        raise ValueError(
            f"{given} holds no demonstrations: name a run folder of `wamrl demos`, or {KINDS}"
        )
    if o.record is not None:
        place = _same(o.record.data, given, "data", o.resume)
        return place, keys if o.data is not None else o.record.keys
    if given is not None:
        return given, keys
    if o.resume is not None and _has_recorded(o.resume):
        return o.resume, keys
    if o.base is not None:
        return data_of(o.base)
    if o.resume is not None and o.verb == "train":  # of before there was run.json
        raise ValueError(f"{o.resume} does not say what it learned from: give --data as before")
    return None, keys


def _has_recorded(run: Path) -> bool:
    """The first rank looks for all: a late one would find what is being recorded, and not wait
    where the others do.
    """
    return bool(dist.broadcast_text("yes" if dist.is_main() and has_data(run) else ""))


def data_of(base: Path) -> tuple[Path, DataKeys]:
    """Where the demonstrations are from which a model has learned, and what their columns are
    called; ValueError of one sentence where nobody knows, or they have changed.
    """
    for place in (base, *base.resolve().parents[:2]):
        if has_data(place):
            return place, DataKeys()
    known = records.record_of(base)
    if known is None or known.data is None:
        raise ValueError(
            f"{base} does not say which demonstrations it has learned from: give --data with a run "
            f"folder of `wamrl demos`, or {KINDS}"
        )
    return _same(known.data, None, "data", base), known.keys


def model_place(o: Options) -> Path:
    """The checkpoint folder of the model that a run begins with: the run's own, if it goes on, else
    that of --base. ValueError of one sentence where it is not what it was.
    """
    own = None if o.resume is None else o.resume / "checkpoints" / "base"
    known = None if o.record is None else o.record.base
    if known is not None and (o.base is not None or not own.is_dir()):
        given = None if o.base is None else model_folder(o.base)
        found = _same(known, given, "base", o.resume)
        return own if own.is_dir() else found
    return own if own is not None else model_folder(o.base)


def _same(known: Source | None, given: Path | None, what: str, run: Path) -> Path | None:
    """Where the data or base of a run is: at its own place, or at the given one if that holds the
    same. ValueError of one sentence if it does not, or has changed.
    """
    if known is None:
        if given is not None and given.resolve() != run.resolve():
            raise ValueError(
                f"cannot go on with {run} with other {what}: {what} is its own there and {given} "
                f"here; leave out --{what}"
            )
        return None
    place = Path(known.path) if given is None else given
    if not place.exists():
        raise ValueError(
            f"the {what} of {run} was {place}, which is gone: give --{what} with where it is now"
        )
    if records.digest(place) != known.digest:
        if given is None:
            raise ValueError(
                f"the {what} of {run}, {place}, is not what it was then: bring back what it was"
            )
        raise ValueError(
            f"cannot go on with {run} with other {what}: {what} is {known.path} there and {given} "
            f"here; leave out --{what}"
        )
    return place


def open_model(cfg: Config, path: Path) -> WAM:
    """The model that a path means (see `models.saved.model_folder`), which is said where it is not
    the path itself; ValueError where the recipe differs.
    """
    folder = model_folder(path)
    if folder != path:
        console.print(f"model: {folder}", markup=False)
    return load_wam(cfg.model, env_spec(cfg), folder, seed=cfg.seed, device=device())
