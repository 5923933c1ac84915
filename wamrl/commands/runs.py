"""The verbs that make, improve or evaluate a run: demos, sft, train, quickstart, eval."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from wamrl import report
from wamrl.evaluate import deploy, gained, measure, paired
from wamrl.models.saved import save_wam
from wamrl.models.wam import WAM
from wamrl.runs.demonstrations import Data, has_data, keep_rollout, load_data, record
from wamrl.runs.folder import (
    Options,
    next_command,
    open_data,
    open_model,
    open_pool,
    open_run,
)
from wamrl.runs.outputs import print_table, write_curve
from wamrl.runs.phases import base_model, measure_after, measure_before, open_state
from wamrl.runs.videos import write_comparison, write_videos
from wamrl.runtime import dist, sharding
from wamrl.runtime.log import Logger, console
from wamrl.runtime.trackers import publish
from wamrl.train import improve


def demos(o: Options) -> None:
    """Record demonstrations."""
    run = open_run(o)
    record(o.config, run)
    console.print(f"use them with: {next_command('sft', o, '--data', run)}", markup=False)


def sft(o: Options) -> None:
    """Fine-tune a base model."""
    run = open_run(o)
    base_model(o.config, open_data(o, run), run, trackers=o.trackers)
    console.print(f"improve it with: {next_command('train', o, '--base', run)}", markup=False)


def train(o: Options) -> None:
    """Improve a base model online."""
    if o.base is None and o.resume is None:
        raise ValueError(
            "train starts from a base model: run `wamrl sft RECIPE` first, then give --base RUN"
        )
    run = open_run(o)
    wam = open_model(o.config, o.base or run / "checkpoints" / "base")
    if not (run / "checkpoints" / "base").is_dir():
        save_wam(o.config.model, wam, run, "base")
    online(o, run, wam, open_data(o, run))


def quickstart(o: Options) -> None:
    """The whole method once."""
    run = open_run(o)
    data = open_data(o, run)
    online(o, run, base_model(o.config, data, run, trackers=o.trackers), data)


def online(o: Options, run: Path, wam: WAM, data: Data) -> None:
    """Evaluate, improve, evaluate again, report; resumes at the last checkpoint of the run."""
    cfg = o.config
    with open_pool(cfg) as pool:
        before, rates = measure_before(cfg, wam, data, pool, run)
        state = open_state(cfg, wam, data, pool, run)
        with Logger(run, resume_step=state.iteration, trackers=o.trackers) as logger:
            options = {"before": before.summary(), "rates": rates}
            if o.keep_rollouts:
                options["keep"] = partial(_keep, o, run)
            improve(state, pool, run, logger, **options)
            after, rollout = measure_after(state, data, pool, run, logger)
            seconds = logger.seconds
        with sharding.unsharded(wam.world, state.frozen.world):
            if not dist.is_main():
                return
            write_videos(cfg, wam, rollout, run / "videos" / "after")
            folder = run / "videos" / "compare"
            write_comparison(cfg, state.frozen, wam, pool, gained(before, after), folder)
    arms = {"before": before.summary(), "after": after.summary()}
    pair = paired(before, after)
    report.write_summary(run / "summary.json", arms, {"after - before": pair}, seconds=seconds)
    write_curve(run)
    publish(run, o.trackers, cfg.train.iterations)
    print_table(cfg, arms, pair, run, seconds)


def eval(o: Options) -> None:  # noqa: A001 the verb's name
    """Closed-loop success of a model."""
    if o.base is None:
        raise ValueError("eval needs a model: give --base with a run folder or a checkpoint folder")
    run = open_run(o)
    cfg = o.config
    wam = open_model(cfg, o.base)
    places = [o.data] if o.data else [o.base, *o.base.parents]
    folder = next((place for place in places if has_data(place)), None)
    heldout = load_data(cfg, folder).heldout if folder else None
    flow = cfg.flow.at(1.0)
    with open_pool(cfg) as pool:
        deploy(wam, pool, cfg.eval, flow, seed=cfg.seed)
        options = {"seed": cfg.seed, "heldout": heldout, "title": "model"}
        result, rollout = measure(wam, pool, cfg.eval, flow, **options)
    if o.keep_rollouts:
        keep_rollout(cfg, rollout, run / "rollouts" / f"eval{_of_rank()}")
    if not dist.is_main():
        return
    report.write_summary(run / "summary.json", {"model": result.summary()}, {})
    write_videos(cfg, wam, rollout, run / "videos")
    console.print(f"summary, videos -> {run}", markup=False)


def _keep(o: Options, run: Path, rollout, iteration: int) -> None:
    """Write a training rollout as a dataset."""
    folder = run / "rollouts" / f"iteration-{iteration:04d}{_of_rank()}"
    keep_rollout(o.config, rollout, folder)


def _of_rank() -> str:
    return f"-rank{dist.rank()}" if dist.world() > 1 else ""
