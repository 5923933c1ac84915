"""The life of a run, in pieces that the verbs and the study's cells put together:
a base model, its evaluation, the online loop's state, the evaluation after it.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Sequence
from pathlib import Path

from wamrl.config import Config
from wamrl.evaluate import deploy, heldout_ratio, measure
from wamrl.models.saved import build_wam, save_wam
from wamrl.models.wam import WAM
from wamrl.online.lines import base_warning
from wamrl.online.look import log_result
from wamrl.online.state import TrainingState
from wamrl.pool.pool import Pool
from wamrl.report.results import EvalResult
from wamrl.rollout.types import Rollout
from wamrl.runs.demonstrations import Data, env_spec
from wamrl.runs.folder import open_model
from wamrl.runs.videos import write_videos
from wamrl.runtime import checkpoint, dist, sharding
from wamrl.runtime.cores import device
from wamrl.runtime.log import Logger, console, summary_line
from wamrl.runtime.trackers import DEFAULT
from wamrl.sft import SFT, fine_tune
from wamrl.types import Sampler


def fresh_model(cfg: Config) -> WAM:
    """A model that has learned nothing, for the config's environment, from the seed."""
    return build_wam(cfg.model, env_spec(cfg), seed=cfg.seed, device=device())


def check_parts(cfg: Config, *, online: bool) -> None:
    """Build what the run will need, before it does anything: ValueError of one sentence now where
    it would come after hours. online: the loop's parts too.
    """
    fresh_model(cfg)
    horizon = env_spec(cfg).horizon
    model = cfg.model
    past = [step for step in model.history_offsets if step]
    for name, steps in (("frame", model.frame_offsets), ("history", past)):
        if steps and min(map(abs, steps)) > horizon:
            raise ValueError(
                f"model.{name}_offsets: all of {tuple(steps)} lie beyond an episode, which has "
                f"{horizon} control steps at most: choose smaller ones"
            )
    if online:
        cfg.train.check_budget(horizon, dist.world())
        cfg.train.reward.build(max_chunks=math.ceil(horizon / cfg.model.chunk))


def base_model(cfg: Config, data: Data, run: Path, *, trackers: Sequence[str] = DEFAULT) -> WAM:
    """The run's `base`, fine-tuned on the demonstrations; from where that stood, if it was begun.

    To resume, lines of the log later than the last resumable checkpoint are moved aside.
    """
    folder = run / "checkpoints"
    if (folder / "base").is_dir():
        return open_model(cfg, folder / "base")
    state = _fine_tuning(cfg, data, folder / "sft-resume")
    with Logger(run, resume_step=state.done - cfg.sft.steps, trackers=trackers) as logger:
        fine_tune(state, data.demos.sample, run, logger)
        weights = sharding.whole(state.average.state_dict())
        # what trained, its gradients and moments go before a model is made beside the average
        del state
        gc.collect()
        wam = fresh_model(cfg)
        wam.load_state_dict(weights)
        del weights
        ratios = heldout_ratio(wam, data.heldout, cfg.eval.imagine_steps)
        metrics = {f"heldout/copy_ratio/{offset}": ratio for offset, ratio in ratios.items()}
        line = summary_line("world model on held-out demonstrations:", metrics)
        logger.log(0, metrics, line)
    save_wam(cfg.model, env_spec(cfg), wam, run, "base", config=cfg)
    return wam


def _fine_tuning(cfg: Config, data: Data, saved: Path) -> SFT:
    """The state of fine-tuning: new, or as it was saved; nobody else holds any of it."""
    wam = fresh_model(cfg)
    wam.normalize.fit(*data.demos.statistics())
    state = SFT(wam, cfg.sft, cfg.seed)
    if saved.is_dir():
        state.load_state_dict(checkpoint.load(saved))
    return state


def measure_before(
    cfg: Config, wam: WAM, data: Data, pool: Pool, run: Path
) -> tuple[EvalResult, dict[Sampler, float]]:
    """The base model's evaluation, and the rates by which its sampler was chosen.

    A resumed run has made it already: then as it was saved, with no rates.
    """
    saved = run / "checkpoints" / "before"
    if saved.is_dir():
        before = EvalResult(**checkpoint.load(saved))
        wam.sampler = before.sampler
        return before, {}
    flow = cfg.flow.at(1.0)
    rates = deploy(wam, pool, cfg.eval, flow, seed=cfg.seed, again=True)
    options = {"seed": cfg.seed, "heldout": data.heldout, "title": "before"}
    before, rollout = measure(wam, pool, cfg.eval, flow, **options)
    if warning := base_warning(int(before.success.sum()), len(before.success)):
        console.print(warning, style="bold red", markup=False)
    if dist.is_main():
        write_videos(cfg, wam, rollout, run / "videos" / "before")
    checkpoint.save_named(run, "before", before.state_dict())
    return before, rates


def open_state(cfg: Config, wam: WAM, data: Data, pool: Pool, run: Path) -> TrainingState:
    """The online loop's state: new, or as the run's last step checkpoint has it that is whole;
    damaged later ones are named and set aside.
    """
    state = TrainingState(cfg, wam, data.demos, pool.spec.horizon)
    if any((run / "checkpoints").glob("step-*")):
        last, faults = checkpoint.newest_sound(run)
        state.load_state_dict(checkpoint.load(last), checkpoint.load_parts(last))
        moved = checkpoint.set_aside(run, last)
        for fault, place in zip(faults, reversed(moved), strict=False):
            console.print(
                f"{fault}; going on from {last.name}, it is {place.name} now", markup=False
            )
    return state


def measure_after(
    state: TrainingState, data: Data, pool: Pool, run: Path, logger: Logger
) -> tuple[EvalResult, Rollout]:
    """The improved model's evaluation, the last point of the curve; and its episodes."""
    cfg = state.cfg
    options = {"seed": cfg.seed, "heldout": data.heldout, "title": "after"}
    with sharding.unsharded(state.wam.world):
        after, rollout = measure(state.wam, pool, cfg.eval, cfg.flow.at(1.0), **options)
    log_result(logger, run, state.iteration, after.summary())
    return after, rollout
