"""Evaluation during training: points of the learning curve, the checkpoint `best`."""

from __future__ import annotations

import time
from pathlib import Path

from wamrl import report
from wamrl.evaluate import choose_sampler, curve_point, deploy, glance
from wamrl.models.saved import save_wam
from wamrl.online.state import TrainingState
from wamrl.pool.pool import Pool
from wamrl.runtime import dist, sharding
from wamrl.runtime.log import Logger, Timer, bar, decorative, read_metrics
from wamrl.types import SAMPLERS, Sampler


def look(
    state: TrainingState, pool: Pool, run: Path, rates: dict[Sampler, float] | None = None
) -> dict[str, float]:
    """The metrics of an evaluation after this iteration; none if it has no turn (`eval.every`).

    Two sets of states, so that choosing does not flatter what is reported. On `eval.choose`
    training states the deployed sampler is chosen, and its success there (`eval/choose_success`)
    chooses `best`: the first of the highest, the model before the first update included. On the
    first `eval.during` evaluation states all samplers give a point of the curve, which chooses
    nothing. Both as the model would be deployed after the run: with the last iteration's noise.

    rates: what `deploy` has just returned, if it was called for this very model. Neither the run's
    random streams nor its budget of control steps are touched.
    """
    cfg = state.cfg
    done = state.iteration
    last = cfg.train.iterations
    if not cfg.eval.every or (done % cfg.eval.every and done < last):
        return {}
    timer = Timer()
    wam = state.wam
    flow = cfg.flow.at(1.0)
    metrics = {}
    with sharding.unsharded(wam.world):
        rates = rates or deploy(wam, pool, cfg.eval, flow, seed=cfg.seed, again=True)
        if not rates:  # there is no choice, but `best` needs the rate
            only = (wam.sampler,)
            rates = choose_sampler(wam, pool, cfg.eval, flow, seed=cfg.seed, samplers=only)
        if 0 < done < last:  # the evaluations before and after the run are points already
            episodes = len(SAMPLERS) * cfg.eval.during
            with bar("  evaluating", episodes, ranks=dist.world()) as advance:
                metrics = glance(wam, pool, cfg.eval, flow, seed=cfg.seed, on_done=advance)
    rate = rates[wam.sampler]
    if rate > state.best:
        state.best = rate
        found = {"iteration": done, "choose_success": rate}
        save_wam(cfg.model, pool.spec, wam, run, "best", config=cfg, **found)
    metrics["eval/choose_success"] = rate
    return metrics | timer("eval")


def log_result(
    logger: Logger, run: Path, step: int, arm: dict, more: dict[str, float] | None = None
) -> None:
    """An arm of a summary, and more, as the first or last point of the run's curve;
    once, also if resumed.
    """
    if not dist.is_main():
        return
    if any(row["step"] == step and "eval/success" in row for row in read_metrics(run)):
        return
    # older ones do not say
    sampler = arm.get("sampler", "ode")
    rates = arm.get("rates", {})
    by_task = {name: task["rate"] for name, task in arm.get("tasks", {}).items()}
    point = curve_point(sampler, arm["successes"], arm["episodes"], rates, by_task)
    logger.log(step, point | (more or {}))


@decorative("diagnostics.png")
def draw_diagnostics(run: Path, state: TrainingState, every: float = 0.0) -> None:
    """diagnostics.png: the diagnosed iterations so far; nothing if there are none.

    every: seconds since the last picture, or since the run began, before there is another. Drawing
    takes one or two, a tenth of a short iteration.
    """
    if not dist.is_main():
        return
    path = run / "diagnostics.png"
    last = path if path.exists() else run / "config.json"
    if time.time() - last.stat().st_mtime < every:
        return
    rows = [row for row in read_metrics(run) if row.get("diag/mean/reconstruction") is not None]
    if not rows:
        return
    seen = state.diagnostics
    scores = {name: score.numpy() for name, score in seen.scores.items()}
    title = f"{state.cfg.name}, seed {state.cfg.seed}"
    report.diagnostics_figure(path, rows, scores, seen.success.numpy(), title=title)
