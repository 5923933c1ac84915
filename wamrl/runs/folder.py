"""A run folder: which, with what data, and who simulates.

runs/NAME-TIME/  config.json  metrics.jsonl  tensorboard/  summary.json  learning_curve.png
                 diagnostics.png  videos/ before, after; compare: a state lost before, won after
                 demos/ heldout/          demonstrations (unless taken from another run)
                 checkpoints/             sft-resume, base, step-*, best, final
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro

from wamrl.config import Config
from wamrl.data.sources import KINDS
from wamrl.models.saved import load_wam
from wamrl.models.wam import WAM
from wamrl.pool.pool import Pool
from wamrl.runs.demonstrations import Data, env_spec, has_data, load_data, record
from wamrl.runtime import dist
from wamrl.runtime.cores import all_cores, device, ranks, threads_beside
from wamrl.runtime.files import config_difference
from wamrl.runtime.log import console, new_run, resolved
from wamrl.runtime.trackers import DEFAULT, TrackerName, check_trackers

PROLONGED = ("iterations", "env_steps")  # of `train`: a resumed run may have more of them


@dataclass(frozen=True, kw_only=True)
class Options:
    """One run."""

    # `--train.learn policy world clone`
    config: Annotated[Config, tyro.conf.arg(name=""), tyro.conf.FlagConversionOff]
    out: Path = Path("runs")  # where the run folder is made
    # demonstrations: a run folder or a dataset (default: those of --base, else record)
    data: Path | None = None
    # a run folder or checkpoint to start from (train) or to evaluate (eval)
    base: Path | None = None
    resume: Path | None = None  # a run folder that was interrupted: go on there
    # processes that share the run; 0: on CPUs one per core (see `usual_ranks`), else 1
    ranks: int = 0
    keep_rollouts: bool = False  # also write every frame of the rollouts, as datasets in rollouts/
    # tensorboard, wandb, trackio: where numbers, pictures and videos go beside metrics.jsonl
    trackers: tuple[TrackerName, ...] = DEFAULT
    smoke: bool = False  # everything, but tiny: does it run here?
    # recipe and options as they were typed, for `next_command`
    words: tyro.conf.Suppress[tuple[str, ...]] = ()


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
    for word in o.words:
        name, _, value = word.partition("=")
        named = name in ("--base", "--resume", option)
        if not named and not skip:
            kept.append(word)
        skip = named and not value
    return shlex.join(["wamrl", verb, *kept, option, str(run)])


def open_run(o: Options) -> Path:
    """A new run folder, or the one to resume, whose configuration must be the same."""
    check_trackers(o.trackers)
    torch.set_num_threads(o.config.threads or torch.get_num_threads())
    if o.resume is None:
        made = str(new_run(o.out, o.config.name, o.config)) if dist.is_main() else ""
        run = Path(dist.broadcast_text(made))
        console.print(f"run folder: {run}", markup=False)
        return run
    path = o.resume / "config.json"
    if not path.is_file():
        raise ValueError(
            f"{o.resume} is not a run folder (no config.json): give one that wamrl has made"
        )
    saved = json.loads(path.read_text(encoding="utf-8"))
    for name in PROLONGED:
        saved["train"][name] = getattr(o.config.train, name)
    fault = config_difference(saved, resolved(o.config), "config")
    if fault is not None:
        raise ValueError(f"cannot resume {o.resume} with another configuration: {fault}")
    return o.resume


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


def open_data(o: Options, run: Path) -> Data:
    """Demonstrations from --data, from the run itself, from --base's run, or newly recorded."""
    base = [] if o.base is None else [o.base, *o.base.parents]
    places = ([o.data] if o.data else []) + [run] + base
    # The first rank looks for all: a late one would find what is being recorded,
    # and not wait where the others do.
    found = ""
    if dist.is_main():
        found = next((str(place) for place in places if has_data(place)), "")
    found = dist.broadcast_text(found)
    if found:
        return load_data(o.config, Path(found))
    if o.data:
        raise ValueError(
            f"{o.data} holds no demonstrations: name a run folder of `wamrl demos`, or {KINDS}"
        )
    record(o.config, run)
    return load_data(o.config, run)


def open_model(cfg: Config, path: Path) -> WAM:
    """The model of a checkpoint folder, or of a run folder's `final` or `base`;
    ValueError where the recipe differs.
    """
    return load_wam(cfg.model, env_spec(cfg), path, seed=cfg.seed, device=device())
