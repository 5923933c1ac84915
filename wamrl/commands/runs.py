"""The bodies of the verbs: which parts of `experiment` run, and in which folder."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import tyro
from rich.table import Table

from wamrl import report, reward_comparison
from wamrl.config import Config
from wamrl.data.sources import KINDS
from wamrl.deploy import deploy, log_arm, save_wam, write_curve
from wamrl.envs.check import check_env
from wamrl.models.base import WAM
from wamrl.models.check import check_wam
from wamrl.pool.pool import Pool
from wamrl.rewards.reward import check_reward
from wamrl.runs.demonstrations import Data, has_data, keep_rollout, load_data, record
from wamrl.runs.phases import (
    Arm,
    build_wam,
    compare,
    difference,
    fine_tune,
    gained,
    improve,
    load_wam,
    measure,
)
from wamrl.runs.videos import write_comparison, write_videos
from wamrl.runtime import checkpoint, dist, sharding
from wamrl.runtime.cores import all_cores, ranks, threads_beside
from wamrl.runtime.log import Logger, bar, console, duration, new_run, resolved
from wamrl.study import Cell, StudyConfig
from wamrl.study.cells import BUSY, run_cell
from wamrl.study.runner import open_study, run_study, write_report
from wamrl.train import Learner


@dataclass(frozen=True, kw_only=True)
class Options:
    """One run."""

    # `--train.actor.enabled False`
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
    smoke: bool = False  # everything, but tiny: does it run here?


@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """Where and how a study runs; what it is stands in its recipe."""

    out: Path | None = None  # its folder, to which one returns to go on (default: runs/study-NAME)
    jobs: int | None = None  # cells at once (default: the study's own; 0: cores / threads)
    only: str = "*"  # run the cells that match this glob of TASK/ARM/SEED, and the bases they need
    report_only: bool = False  # run nothing: tables and figures of what is finished
    smoke: bool = False  # everything, but tiny, and one seed: does it run here?
    cell: str | None = None  # for the runner's own use: this one cell, in this process


def usual_ranks(cfg: Config) -> int:
    """One where somebody else shares out the cores (the user, Ray)
    or a budget of control steps holds for one rank.
    """
    if cfg.threads or cfg.pool.n_workers or cfg.pool.backend == "ray" or cfg.train.env_steps:
        return 1
    return min(ranks(min(cfg.sft.batch, cfg.train.world.batch)), cfg.train.groups)


def demos(o: Options) -> None:
    run = open_run(o)
    record(o.config, run)
    console.print(f"use them with: wamrl sft RECIPE --data {run}", markup=False)


def sft(o: Options) -> None:
    run = open_run(o)
    data = data_of(o, run)
    with sft_log(o, run) as logger:
        fine_tune(o.config, data, run, logger)
    console.print(f"improve it with: wamrl train RECIPE --base {run}", markup=False)


def train(o: Options) -> None:
    if o.base is None and o.resume is None:
        raise ValueError(
            "train starts from a base model: run `wamrl sft RECIPE` first, then give --base RUN"
        )
    run = open_run(o)
    base = o.base or run / "checkpoints" / "base"
    wam = load_wam(o.config, base)
    if not (run / "checkpoints" / "base").is_dir():
        save_wam(o.config, wam, run, "base")
    online(o, run, wam, data_of(o, run))


def quickstart(o: Options) -> None:
    run = open_run(o)
    cfg = o.config
    data = data_of(o, run)
    if (run / "checkpoints" / "base").is_dir():
        wam = load_wam(cfg, run / "checkpoints" / "base")
    else:
        with sft_log(o, run) as logger:
            wam = fine_tune(cfg, data, run, logger)
    online(o, run, wam, data)


def eval(o: Options) -> None:  # noqa: A001 the verb's name
    if o.base is None:
        raise ValueError("eval needs a model: give --base with a run folder or a checkpoint folder")
    run = open_run(o)
    cfg = o.config
    wam = load_wam(cfg, o.base)
    places = [o.data] if o.data else [o.base, *o.base.parents]
    folder = next((p for p in places if has_data(p)), None)
    heldout = load_data(cfg, folder).heldout if folder else None
    flow = cfg.flow.at(1.0)
    with open_pool(cfg) as pool:
        deploy(cfg, wam, pool, flow)
        arm, rollout = measure(cfg, wam, pool, heldout, "model", flow)
    if o.keep_rollouts:
        keep_rollout(
            cfg,
            rollout,
            run / "rollouts" / (f"eval-rank{dist.rank()}" if dist.world() > 1 else "eval"),
        )
    if not dist.is_main():
        return
    report.write_summary(run / "summary.json", {"model": arm.summary(cfg)}, {})
    write_videos(cfg, wam, rollout, run / "videos")
    console.print(f"summary, videos -> {run}", markup=False)


def rewards(o: Options) -> None:
    """One set of exploring rollouts under every similarity of `rewards.similarities`."""
    if o.base is None:
        raise ValueError(
            "rewards needs a model: give --base with a run folder or a checkpoint folder"
        )
    cfg = o.config
    wam = load_wam(o.config, o.base)
    run = open_run(o)
    with (
        open_pool(cfg) as pool,
        bar("exploring", cfg.rewards.states * cfg.rewards.group) as advance,
    ):
        found = reward_comparison.study(
            cfg.rewards,
            wam,
            pool,
            cfg.flow,
            seed=cfg.seed,
            imagine_steps=cfg.train.reward.imagine_steps,
            on_done=advance,
        )
    title = f"Rewards on {cfg.env.build().spec.name}"
    reward_comparison.write(found, run, title)
    table = Table(
        title=f"{title}: {int(found.success.sum())} of {len(found.success)} episodes succeeded"
    )
    for column in reward_comparison.COLUMNS:
        table.add_column(column)
    for row in found.rows:
        table.add_row(*reward_comparison.cells(row))
    console.print(table)
    for name, reason in found.missing.items():
        console.print(f"not scored: {name}: {reason}", markup=False)
    console.print(f"rewards.md, .csv, .json, .png -> {run}", markup=False)


def check(o: Options) -> None:
    """The contract of the recipe's environment, model and reward."""
    env = o.config.env.build()
    try:
        check_env(env)
    finally:
        env.close()
    console.print(f"environment {env.spec.name}: ok", markup=False)
    check_wam(build_wam(o.config))
    console.print("model: ok")
    frames = (2, max(2, len(o.config.model.frame_offsets)), len(env.spec.views), *env.spec.image_hw)
    check_reward(o.config.train.reward.similarity, shape=frames)
    console.print("reward: ok")


def study(cfg: StudyConfig, o: StudyOptions, command: Sequence[str], shown: str) -> None:
    """Run and report a study. command: runs one cell when `--cell TASK/ARM/SEED` is appended."""
    out = o.out or Path("runs") / f"study-{cfg.name}"
    if o.jobs is not None:
        cfg = replace(cfg, jobs=o.jobs)
    open_study(cfg, out)
    if o.cell is not None:
        task, arm, seed = (o.cell.split("/") + ["", ""])[:3]
        if not run_cell(cfg, Cell(task, arm, int(seed) if seed.isdigit() else -1), out):
            raise SystemExit(BUSY)
    elif o.report_only:
        write_report(cfg, out, shown)
        console.print(f"report, tables, figures -> {out}", markup=False)
    else:
        run_study(cfg, out, command, o.only, shown)


def open_run(o: Options) -> Path:
    """A new run folder, or the one to resume, whose configuration must be the same."""
    torch.set_num_threads(o.config.threads or torch.get_num_threads())
    if o.resume is None:
        run = Path(
            dist.broadcast_text(
                str(new_run(o.out, o.config.name, o.config)) if dist.is_main() else ""
            )
        )
        console.print(f"run folder: {run}", markup=False)
        return run
    import json

    if not (o.resume / "config.json").is_file():
        raise ValueError(
            f"{o.resume} is not a run folder (no config.json): give one that wamrl has made"
        )
    saved = json.loads((o.resume / "config.json").read_text(encoding="utf-8"))
    for name in ("iterations", "env_steps"):  # a run may be prolonged
        saved["train"][name] = getattr(o.config.train, name)
    if (fault := difference(saved, resolved(o.config), "config")) is not None:
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


def sft_log(o: Options, run: Path) -> Logger:
    """The log of the fine-tuning;
    to resume, lines later than the last resumable checkpoint are moved aside.
    """
    if o.resume is None:
        return Logger(run)
    last = run / "checkpoints" / "sft-resume"
    done = checkpoint.load(last)["done"] if last.is_dir() else 0
    return Logger(run, resume_step=done - o.config.sft.steps)


def data_of(o: Options, run: Path) -> Data:
    """Demonstrations from --data, from the run itself, from --base's run, or newly recorded."""
    base = [] if o.base is None else [o.base, *o.base.parents]
    places = ([o.data] if o.data else []) + [run] + base
    # The first rank looks for all: a late one would find what is being recorded,
    # and not wait where the others do.
    found = dist.broadcast_text(
        next((str(p) for p in places if has_data(p)), "") if dist.is_main() else ""
    )
    if found:
        return load_data(o.config, Path(found))
    if o.data:
        raise ValueError(
            f"{o.data} holds no demonstrations: name a run folder of `wamrl demos`, or {KINDS}"
        )
    record(o.config, run)
    return load_data(o.config, run)


def online(o: Options, run: Path, wam: WAM, data: Data) -> None:
    """Evaluate, improve, evaluate again, report; resumes at the last checkpoint of the run."""
    cfg = o.config
    with ExitStack() as stack:
        pool = stack.enter_context(open_pool(cfg))
        learner = Learner(cfg, wam, data.demos, pool.spec.horizon)
        flow = cfg.flow.at(1.0)
        rates = None
        resume = (run / "checkpoints" / "before").is_dir()
        if resume:
            before = Arm.load(checkpoint.load(run / "checkpoints" / "before"))
            if any((run / "checkpoints").glob("step-*")):
                last = checkpoint.latest(run)
                learner.load_state_dict(checkpoint.load(last), checkpoint.load_parts(last))
        else:
            with sharding.unsharded(wam.world):
                rates = deploy(cfg, wam, pool, flow, again=True)
                before, rollout = measure(cfg, wam, pool, data.heldout, "before", flow)
                if dist.is_main():
                    write_videos(cfg, wam, rollout, run / "videos" / "before")
            checkpoint.save_named(
                run, "before", {k: getattr(before, k) for k in before.__dataclass_fields__}
            )
        logger = stack.enter_context(Logger(run, resume_step=learner.iteration if resume else None))
        options = {"rates": rates, "keep": o.keep_rollouts}
        improve(cfg, learner, pool, run, logger, before.summary(cfg), **options)
        with sharding.unsharded(wam.world, learner.frozen.world):
            after, rollout = measure(cfg, wam, pool, data.heldout, "after", flow)
            log_arm(logger, run, learner.iteration, after.summary(cfg), {})
            if dist.is_main():
                write_videos(cfg, wam, rollout, run / "videos" / "after")
                learner.frozen.sampler = before.sampler
                folder = run / "videos" / "compare"
                write_comparison(cfg, learner.frozen, wam, pool, gained(before, after), folder)
    if not dist.is_main():
        return
    pair = compare(before, after)
    arms = {"before": before.summary(cfg), "after": after.summary(cfg)}
    report.write_summary(
        run / "summary.json", arms, {"after - before": pair}, seconds=logger.seconds
    )
    write_curve(run)
    print_table(cfg, arms, asdict(pair), run, logger.seconds)


def print_table(cfg: Config, arms: dict[str, dict], pair: dict, run: Path, seconds: float) -> None:
    table = Table(
        title=f"{cfg.name}, seed {cfg.seed}, {arms['before']['episodes']} held-out initial states"
    )
    for column in (
        "",
        "success",
        "95 % interval",
        "sampler",
        "mean length",
        "world-model error / copying (held-out)",
    ):
        table.add_column(column)
    for name, a in arms.items():
        ratios = report.ratio_text(a["error_over_copy"])
        low, high = a["wilson95"]
        interval = f"{low:.1%} to {high:.1%}"
        length = f"{a['mean_length']:.1f}"
        table.add_row(name, f"{a['rate']:.1%}", interval, a["sampler"], length, ratios)
    console.print(table)
    console.print(
        f"difference {pair['difference']:+.1%}, 95 % interval {pair['low']:+.1%} to "
        f"{pair['high']:+.1%} "
        f"({pair['gained']} states gained, {pair['lost']} lost, McNemar p = {pair['p_value']:.3g})",
        markup=False,
    )
    console.print(
        f"{duration(seconds)} online; videos, learning curve, summary -> {run}", markup=False
    )
