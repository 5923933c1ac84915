"""One cell of a study, in a process of its own: train, evaluate,
write summary.json; goes on where it was killed.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import torch

from wamrl import report
from wamrl.config import Config
from wamrl.envs.base import EnvConfig
from wamrl.evaluate import deploy, measure
from wamrl.models.saved import save_wam
from wamrl.models.wam import WAM
from wamrl.report.results import EvalResult, paired
from wamrl.rollout.collect import collect
from wamrl.runs.demonstrations import env_spec, load_data, record
from wamrl.runs.folder import open_model
from wamrl.runs.phases import base_model, measure_after, open_state
from wamrl.runs.record import FILE, new_record, write_record
from wamrl.runs.videos import write_videos
from wamrl.runtime.files import locked, sweep, write_text
from wamrl.runtime.log import Logger, bar, console, read_config, read_metrics, resolved
from wamrl.runtime.restore import config_difference
from wamrl.study.config import BASE, Cell, StudyConfig
from wamrl.study.results import CellResult, cell_curves
from wamrl.train import improve
from wamrl.types import InitialState

SUMMARY, LOG = "summary.json", "log.txt"
BUSY = 75  # exit code of a cell that another process is running (EX_TEMPFAIL)
LENGTH_EPISODES = 100  # at each other length of a task; fewer where `eval.episodes` is less

Lengths = tuple[tuple[int, EnvConfig], ...]


def finished(out: Path, cell: Cell) -> bool:
    return (cell.folder(out) / SUMMARY).is_file()


def run_cell(study: StudyConfig, cell: Cell, out: Path) -> bool:
    """Run a cell to its end, or from where it was killed to its end;
    False if another process holds it.
    """
    cfg, folder = study.config(cell), cell.folder(out)
    with locked(folder) as mine:
        if not mine:
            return False
        if finished(out, cell):
            return True
        sweep(folder)
        _open_folder(cfg, folder)
        _record(study, cell, out)
        torch.set_num_threads(cfg.threads)
        lengths = study.task(cell).lengths
        _require_same_layout(cfg, lengths)
        if cell.arm == BASE:
            _base(cfg, folder, study.videos, lengths)
        else:
            _arm(cfg, folder, cell.base.folder(out), study.videos, lengths)
        tidy(folder, study.keep_models)
    return True


def _open_folder(cfg: Config, folder: Path) -> None:
    """Write the cell's configuration, or make sure that it is the one of what lies there."""
    path = folder / "config.json"
    if not path.is_file():
        write_text(path, json.dumps(resolved(cfg), indent=1))
    if (fault := config_difference(read_config(folder), resolved(cfg), "config")) is not None:
        raise ValueError(
            f"{folder} was begun with another configuration ({fault}): choose another --out"
        )


def _record(study: StudyConfig, cell: Cell, out: Path) -> None:
    """run.json, when the cell begins."""
    folder = cell.folder(out)
    if (folder / FILE).is_file():
        return
    command = ["wamrl", "study", study.name, "--cell", f"{cell.task}/{cell.arm}/{cell.seed}"]
    base = None if cell.arm == BASE else cell.base.folder(out)
    model = None if base is None else base / "checkpoints" / "base"
    write_record(folder, new_record(command, "", study.config(cell), base, model))


def _require_same_layout(cfg: Config, lengths: Lengths) -> None:
    """Before anything is trained: ValueError if the model could not act at one of the lengths."""
    if not lengths:
        return
    own = env_spec(cfg)
    for goals, env in lengths:
        spec = env_spec(replace(cfg, env=env))
        if spec.stages != goals or spec.stages == own.stages:
            raise ValueError(
                f"length K = {goals} has an environment of {spec.stages} sub-goals and the task "
                "itself has "
                f"{own.stages}: give an environment of K sub-goals, other than the task's"
            )
        for name in ("views", "image_hw", "action_dim", "proprio_dim", "action_low", "action_high"):
            if getattr(spec, name) != getattr(own, name):
                raise ValueError(
                    f"length K = {goals} has {name} {getattr(spec, name)} and the task "
                    f"{getattr(own, name)}: "
                    "give an environment that looks and acts as the task's own"
                )


def _base(cfg: Config, folder: Path, videos: int, lengths: Lengths) -> None:
    """Demonstrations, fine-tuning, evaluation."""
    begin = time.monotonic()
    record(cfg, folder)
    data = load_data(cfg, folder)
    wam = base_model(cfg, data, folder)
    flow = cfg.flow.at(1.0)
    with cfg.build_pool() as pool:
        deploy(wam, pool, cfg.eval, flow, seed=cfg.seed)
        # now with the sampler that suits it
        save_wam(cfg.model, pool.spec, wam, folder, "base", config=cfg)
        options = {"seed": cfg.seed, "heldout": data.heldout, "title": "base"}
        result, rollout = measure(wam, pool, cfg.eval, flow, **options)
    if videos:
        write_videos(cfg, wam, rollout, folder / "videos", videos)
    seconds = time.monotonic() - begin
    other = _at_lengths(cfg, wam, lengths)
    _finish(folder, result, {}, control_steps=0, seconds=seconds, lengths=other)


def _arm(cfg: Config, folder: Path, base: Path, videos: int, lengths: Lengths) -> None:
    """The online loop from the base model of the same task and seed, then evaluation."""
    wam = open_model(cfg, base / "checkpoints" / "base")
    data = load_data(cfg, base)
    before = report.read_summary(base / SUMMARY)["arms"]["after"]
    with cfg.build_pool() as pool:
        state = open_state(cfg, wam, data, pool, folder)
        with Logger(folder, resume_step=state.iteration) as logger:
            improve(state, pool, folder, logger, before=before)
            seconds = logger.seconds
            result, rollout = measure_after(state, data, pool, folder, logger)
    if videos:
        write_videos(cfg, wam, rollout, folder / "videos", videos)
    steps = int(sum(row.get("rollout/steps", 0) for row in read_metrics(folder)))
    other = _at_lengths(cfg, wam, lengths)
    _finish(folder, result, before, control_steps=steps, seconds=seconds, lengths=other)


def _at_lengths(cfg: Config, wam: WAM, lengths: Lengths) -> dict[str, dict]:
    """Success of the deployed sampler at every other length of the task, for summary.json, by K.

    The same states, and the same noise, for every model of a seed:
    the first ones of the split `eval`.
    """
    found, episodes = {}, min(LENGTH_EPISODES, cfg.eval.episodes)
    starts = [InitialState(split="eval", index=i) for i in range(episodes)]
    options = {"seed": cfg.seed, "sampler": wam.sampler, "cache_mb": 0.0}
    for goals, env in lengths:
        with (
            replace(cfg, env=env).build_pool() as pool,
            bar(f"evaluating at K = {goals}", episodes) as advance,
        ):
            rollout = collect(wam, pool, starts, cfg.flow.at(1.0), on_done=advance, **options)
        wins, n = int(rollout.success.sum()), len(rollout.success)
        found[str(goals)] = {
            "successes": wins,
            "episodes": n,
            "success": rollout.success.int().tolist(),
            "starts": [s.index for s in rollout.starts],
            "sampler": wam.sampler,
            "env": resolved(env),
        }
        console.print(
            f"K = {goals}, sampler {wam.sampler!r}: {wins}/{n} = {wins / n:.1%}", markup=False
        )
    return found


def _finish(
    folder: Path,
    after: EvalResult,
    before: dict,
    *,
    control_steps: int,
    seconds: float,
    lengths: dict[str, dict],
) -> None:
    """summary.json, written last and at once: with it the cell is finished.

    before: the base's arm of its summary, empty for the base itself.
    """
    arms = {"after": after.summary()}
    pairs = {}
    if before:
        arms["before"] = before
        pairs["after - before"] = paired(_outcomes(before, after), after)
    more = {"lengths": lengths} if lengths else {}
    report.write_summary(
        folder / SUMMARY,
        arms,
        pairs,
        control_steps=control_steps,
        stages_done=after.stages.tolist(),
        seconds=seconds,
        **more,
    )


def _outcomes(summary: dict, like: EvalResult) -> EvalResult:
    """`like`, with the starts and outcomes of a summary's arm."""
    success = torch.tensor(summary["success"], dtype=torch.bool)
    return replace(like, starts=torch.tensor(summary["starts"]), success=success)


def tidy(folder: Path, keep_models: bool) -> None:
    """Delete what a finished cell no longer needs:
    checkpoints to resume from, with their clip buffers.
    """
    keep = {"base"} | ({"best", "final"} if keep_models else set())
    for path in (folder / "checkpoints").glob("*"):
        if path.name not in keep:
            shutil.rmtree(path)
    sweep(folder)


def result(study: StudyConfig, cell: Cell, out: Path) -> CellResult:
    """What a finished cell says."""
    folder = cell.folder(out)
    curve, evaluated = cell_curves([] if cell.arm == BASE else read_metrics(folder))
    task = study.task(cell)
    summary = report.read_summary(folder / SUMMARY)
    saved = summary.get("lengths", {})  # none in cells of before the task had any
    for goals, env in task.lengths:
        if str(goals) in saved and (
            fault := config_difference(saved[str(goals)]["env"], resolved(env), "env")
        ):
            raise ValueError(
                f"{folder} was evaluated at K = {goals} in another environment ({fault}): "
                "delete the cell, or use the study that made it"
            )
    names = {"task": cell.task, "kind": task.kind, "arm": cell.arm, "seed": cell.seed}
    return CellResult.from_summary(summary, **names, curve=curve, evaluated=evaluated)
