"""The verbs that make, improve or evaluate a run: demos, sft, train, quickstart, eval."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from wamrl import report
from wamrl.evaluate import deploy, measure
from wamrl.models.saved import save_wam
from wamrl.models.wam import WAM
from wamrl.report.results import gained, paired, paired_by_task
from wamrl.runs.demonstrations import Data, env_spec, keep_rollout, record
from wamrl.runs.folder import (
    changed_numbers,
    given_data,
    model_place,
    next_command,
    open_model,
    open_pool,
    open_run,
    recorded_data,
    require_playable,
)
from wamrl.runs.options import Options
from wamrl.runs.outputs import print_table, print_tasks, write_curve
from wamrl.runs.phases import (
    base_model,
    check_parts,
    measure_after,
    measure_before,
    open_state,
)
from wamrl.runs.videos import write_comparison, write_videos
from wamrl.runtime import dist, sharding
from wamrl.runtime.log import Logger, console
from wamrl.runtime.trackers import publish
from wamrl.train import improve


def demos(o: Options) -> Path:
    """Record demonstrations; returns the run folder."""
    require_playable(o.config)
    env_spec(o.config)  # what cannot be built is refused before a folder is made
    with open_run(o, None) as run:
        record(o.config, run)
    console.print(f"use them with: {next_command('sft', o, '--data', run)}", markup=False)
    return run


def sft(o: Options) -> Path:
    """Fine-tune a base model; returns the run folder."""
    data = given_data(o)
    check_parts(o.config, online=False)
    with open_run(o, data) as run:
        base_model(o.config, data or recorded_data(o, run), run, trackers=o.trackers)
    if o.config.env.playable:
        console.print(f"improve it with: {next_command('train', o, '--base', run)}", markup=False)
    return run


def train(o: Options) -> Path:
    """Improve a base model online; returns the run folder."""
    require_playable(o.config)
    wam = open_model(o.config, model_place(o))
    data = given_data(o)
    check_parts(o.config, online=True)
    with open_run(o, data) as run:
        if not (run / "checkpoints" / "base").is_dir():
            spec = env_spec(o.config)
            save_wam(o.config.model, spec, wam, run, "base", config=o.config)
        online(o, run, wam, data)
    return run


def quickstart(o: Options) -> Path:
    """The whole method once; returns the run folder."""
    require_playable(o.config)
    data = given_data(o)
    check_parts(o.config, online=True)
    with open_run(o, data) as run:
        data = data or recorded_data(o, run)
        wam = base_model(o.config, data, run, trackers=o.trackers)
        online(o, run, wam, data)
    return run


def online(o: Options, run: Path, wam: WAM, data: Data) -> None:
    """Evaluate, improve, evaluate again, report; resumes at the last checkpoint of the run."""
    cfg = o.config
    with open_pool(cfg) as pool:
        before, rates = measure_before(cfg, wam, data, pool, run)
        state = open_state(cfg, wam, data, pool, run)
        with Logger(run, resume_step=state.iteration, trackers=o.trackers) as logger:
            if changed := changed_numbers(o, run):
                logger.log(state.iteration, changed)
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
    by_task = paired_by_task(before, after)
    pairs = {"after - before": pair} | {f"after - before, {t}": p for t, p in by_task.items()}
    report.write_summary(run / "summary.json", arms, pairs, seconds=seconds)
    write_curve(run)
    publish(run, o.trackers, cfg.train.iterations)
    print_table(cfg, arms, pair, run, seconds)
    print_tasks(arms, by_task)


def eval(o: Options) -> None:  # noqa: A001 the verb's name
    """Closed-loop success of a model."""
    cfg = o.config
    require_playable(cfg)
    if o.rerun:
        report.require_rerun()
    wam = open_model(cfg, o.base)
    data = _known_data(o)
    with open_run(o, data) as run:
        heldout = None if data is None else data.heldout
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
        write_videos(cfg, wam, rollout, run / "videos", recordings=o.rerun)
        console.print(f"summary, videos -> {run}", markup=False)


def _known_data(o: Options) -> Data | None:
    """The demonstrations of --data, else those of the base as far as it knows."""
    try:
        return given_data(o)
    except ValueError as error:
        if o.data is not None:
            raise
        console.print(f"measured without held-out demonstrations: {error}", markup=False)
        return None


def _keep(o: Options, run: Path, rollout, iteration: int) -> None:
    """Write a training rollout as a dataset."""
    folder = run / "rollouts" / f"iteration-{iteration:04d}{_of_rank()}"
    keep_rollout(o.config, rollout, folder)


def _of_rank() -> str:
    return f"-rank{dist.rank()}" if dist.world() > 1 else ""
