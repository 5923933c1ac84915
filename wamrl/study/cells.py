"""One cell of a study, in a process of its own: train, evaluate,
write summary.json; goes on where it was killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from wamrl import checkpoint, report
from wamrl.config import Config
from wamrl.datasets import load_data, record
from wamrl.deploy import deploy, log_arm, save_wam
from wamrl.envs.workers import Pool
from wamrl.experiment import Arm as Evaluated
from wamrl.experiment import compare, difference, fine_tune, improve, load_wam, measure
from wamrl.log import Logger, read_metrics, resolved
from wamrl.models.base import WAM
from wamrl.report.study_data import CellResult, from_summary
from wamrl.runs.videos import write_videos
from wamrl.study.config import BASE, Cell, StudyConfig
from wamrl.train import Learner

SUMMARY, LOCK, LOG = "summary.json", ".lock", "log.txt"
BUSY = 75  # exit code of a cell that another process is running (EX_TEMPFAIL)


def finished(out: Path, cell: Cell) -> bool:
    return (cell.folder(out) / SUMMARY).is_file()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[bool]:
    """Yields whether this process got the cell.
    The kernel frees the lock when the process dies, however it dies.

    The file stays: deleting it would let two processes lock two files of one name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK, "a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


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
        _open_folder(cfg, folder)
        torch.set_num_threads(cfg.threads)
        if cell.arm == BASE:
            _base(cfg, folder, study.videos)
        else:
            _arm(cfg, folder, cell.base.folder(out), study.videos)
        tidy(folder, study.keep_models)
    return True


def _open_folder(cfg: Config, folder: Path) -> None:
    """Write the cell's configuration, or make sure that it is the one of what lies there."""
    path = folder / "config.json"
    if not path.is_file():
        draft = path.with_suffix(".tmp")
        draft.write_text(json.dumps(resolved(cfg), indent=1), encoding="utf-8")
        draft.replace(path)
    saved = json.loads(path.read_text(encoding="utf-8"))
    if (fault := difference(saved, resolved(cfg), "config")) is not None:
        raise ValueError(
            f"{folder} was begun with another configuration ({fault}): choose another --out"
        )


def _base(cfg: Config, folder: Path, videos: int) -> None:
    """Demonstrations, fine-tuning, evaluation."""
    begin = time.monotonic()
    record(cfg, folder)
    data = load_data(cfg, folder)
    if (folder / "checkpoints" / "base").is_dir():
        wam = load_wam(cfg, folder / "checkpoints" / "base")
    else:
        last = folder / "checkpoints" / "sft-resume"
        done = checkpoint.load(last)["done"] if last.is_dir() else 0
        with Logger(folder, resume_step=done - cfg.sft.steps) as logger:
            wam = fine_tune(cfg, data, folder, logger)
    with cfg.pool().build() as pool:
        deploy(cfg, wam, pool, cfg.flow.at(1.0))
        save_wam(cfg, wam, folder, "base")  # now with the sampler that suits it
        evaluated = _evaluate(cfg, wam, pool, data.heldout, folder, videos)
    _finish(cfg, folder, evaluated, {}, control_steps=0, seconds=time.monotonic() - begin)


def _arm(cfg: Config, folder: Path, base: Path, videos: int) -> None:
    """The online loop from the base model of the same task and seed, then evaluation."""
    wam, data = load_wam(cfg, base / "checkpoints" / "base"), load_data(cfg, base)
    before = report.read_summary(base / SUMMARY)["arms"]["after"]
    with cfg.pool().build() as pool:
        learner = Learner(cfg, wam, data.demos, pool.spec.horizon)
        if any((folder / "checkpoints").glob("step-*")):
            last = checkpoint.latest(folder)
            learner.load_state_dict(checkpoint.load(last), checkpoint.load_parts(last))
        with Logger(folder, resume_step=learner.iteration) as logger:
            improve(cfg, learner, pool, folder, logger, before)
            seconds = logger.seconds
            evaluated = _evaluate(cfg, wam, pool, data.heldout, folder, videos)
            log_arm(logger, folder, learner.iteration, evaluated.summary(cfg), {})
    steps = sum(row.get("rollout/steps", 0) for row in read_metrics(folder))
    _finish(cfg, folder, evaluated, before, control_steps=int(steps), seconds=seconds)


def _evaluate(cfg: Config, wam: WAM, pool: Pool, heldout, folder: Path, videos: int) -> Evaluated:
    evaluated, rollout = measure(cfg, wam, pool, heldout, "after", cfg.flow.at(1.0))
    if videos:
        write_videos(cfg, wam, rollout, folder / "videos", videos)
    return evaluated


def _finish(
    cfg: Config, folder: Path, after: Evaluated, before: dict, *, control_steps: int, seconds: float
) -> None:
    """summary.json, written last and at once: with it the cell is finished."""
    arms = {"after": after.summary(cfg)} | ({"before": before} if before else {})
    pairs = {"after - before": compare(_outcomes(before, after), after)} if before else {}
    report.write_summary(
        folder / SUMMARY,
        arms,
        pairs,
        control_steps=control_steps,
        stages_done=after.stages.tolist(),
        seconds=seconds,
    )


def _outcomes(summary: dict, like: Evaluated) -> Evaluated:
    starts, success = (
        torch.tensor(summary["starts"]),
        torch.tensor(summary["success"], dtype=torch.bool),
    )
    return replace(like, starts=starts, success=success)


def tidy(folder: Path, keep_models: bool) -> None:
    """Delete what a finished cell no longer needs:
    checkpoints to resume from, with their clip buffers.
    """
    keep = {"base"} | ({"best", "final"} if keep_models else set())
    for path in (folder / "checkpoints").glob("*"):
        if path.name not in keep:
            shutil.rmtree(path)
    # drafts of a killed process
    for path in (*folder.glob(".*.tmp"), *(folder / "checkpoints").glob(".*")):
        shutil.rmtree(path, ignore_errors=True)


def result(study: StudyConfig, cell: Cell, out: Path) -> CellResult:
    """What a finished cell says."""
    folder, steps, curve = cell.folder(out), 0.0, []
    rows = [] if cell.arm == BASE else read_metrics(folder)
    for row in rows:  # an iteration's episodes show what the steps before them have taught
        if row.get("rollout/success_fresh") is not None:
            curve.append((steps, row["rollout/success_fresh"]))
        steps += row.get("rollout/steps", 0)
    evaluated = [(episodes, row["eval/success"]) for episodes, row in report.evaluations(rows)]
    kind = next(t.kind for t in study.tasks if t.name == cell.task)
    summary = report.read_summary(folder / SUMMARY)
    names = {"task": cell.task, "kind": kind, "arm": cell.arm, "seed": cell.seed}
    return from_summary(summary, **names, curve=curve, evaluated=evaluated)
