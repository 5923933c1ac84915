"""The run on one page: WAM-RL, online, in the order of the paper's hierarchical optimisation.

    obs -> imagine -> act -> execute -> reward -> advantage -> actor update
                                `-> success clips -> video SFT + latent KL -> world model update

Run it: `wamrl train --base runs/NAME`. The actor goes first, on the features of the world model
that acted; changing the order breaks the PPO ratio, and the learner notices.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from wamrl.diagnostics import alarm_line
from wamrl.evaluate import deploy
from wamrl.models.saved import save_wam
from wamrl.models.wam import ema_update
from wamrl.online.lines import HEADER, iteration_line, iteration_warning
from wamrl.online.look import draw_diagnostics, log_result, look
from wamrl.online.state import TrainingState
from wamrl.pool.pool import Pool
from wamrl.rollout.collect import collect
from wamrl.rollout.gather import gather_outcomes
from wamrl.rollout.samples import rare_success_weight, success_clips
from wamrl.rollout.types import Rollout
from wamrl.runtime import checkpoint, dist, sharding
from wamrl.runtime.log import Logger, Timer, bar, console
from wamrl.types import Sampler


def improve(
    state: TrainingState,
    pool: Pool,
    run: Path,
    logger: Logger,
    *,
    before: dict,
    rates: dict[Sampler, float] | None = None,
    keep: Callable[[Rollout, int], None] = lambda rollout, iteration: None,
) -> None:
    """The online loop from wherever `state` stands to its end: learn, look, log, save.

    before: the base's arm of the summary, the first point of the curve. rates: what `deploy` has
    just returned for the base, if it was called. keep: is given every rollout and its iteration.
    """
    cfg = state.cfg
    last = cfg.train.iterations
    if state.iteration == 0:
        log_result(logger, run, 0, before, look(state, pool, run, rates))
    console.print(HEADER, markup=False)
    with bar("improving online", last, done=state.iteration) as advance:
        while state.iteration < last:
            episodes = cfg.train.episodes(state.horizon)
            with bar("  episodes", episodes, ranks=dist.world()) as tell:
                metrics, rollout = iterate(state, pool, tell)
            state.require_finite()
            keep(rollout, state.iteration)
            del rollout  # its features go before the next one has any
            metrics |= look(state, pool, run)
            logger.log(state.iteration, metrics, iteration_line(state.iteration, last, metrics))
            for warning in filter(None, (iteration_warning(metrics), alarm_line(metrics))):
                console.print(warning, style="bold red", markup=False)
            if state.iteration % cfg.train.save_every == 0 or state.iteration == last:
                own = state.buffer.own_state()
                checkpoint.save_step(run, state.iteration, state.state_dict(), own, keep=2)
                draw_diagnostics(run, state, every=0.0 if state.iteration == last else 60.0)
            advance(1)
    if not cfg.eval.every:  # else the last look has chosen
        with sharding.unsharded(state.wam.world):
            deploy(state.wam, pool, cfg.eval, cfg.flow.at(1.0), seed=cfg.seed, again=True)
    save_wam(cfg.model, pool.spec, state.wam, run, "final", config=cfg)


def iterate(
    state: TrainingState, pool: Pool, on_done: Callable[[int], None] = lambda n: None
) -> tuple[dict[str, float], Rollout]:
    """One pass through the picture above; its metrics (docs/metrics.md) and this rank's rollout."""
    train = state.cfg.train
    wam = state.wam
    metrics = {}
    timer = Timer()
    with sharding.unsharded(*state.worlds):  # ranks act and score at their own pace
        # 1. Act: explore by Flow-SDE with the current world model and actor.
        flow = state.exploration()
        starts, budget = state.next_starts()
        options = {"sampler": "explore", "group": train.initial_states.group, "max_steps": budget}
        options |= {"seed": state.next_seed(), "cache_mb": train.cache_mb, "on_done": on_done}
        rollout = gather_outcomes(collect(wam, pool, starts, flow, **options))
        metrics |= state.observe(rollout) | timer("rollout")
        metrics["rollout/noise"] = flow.noise

        # 2. Score: did reality match the imagination, and was the task solved?
        reward = state.score(rollout, metrics)
        metrics |= timer("score")

        # What is cloned is asked of the model that acted, so before any update.
        cloned = rollout.noise_free(wam, flow) if state.world.clones_noise_free else None

        # 3. The actor first, on the features of the model that acted.
        if "policy" in train.learn:
            metrics |= state.learner.update(wam, rollout, reward, flow, state.generator)
    metrics |= timer("actor")

    # 4. Then the world model, on clips of successful episodes, held by the latent KL; and cloning.
    if "world" in train.learn or "clone" in train.learn:
        state.buffer.append(success_clips(rollout, rare_success_weight(rollout), cloned))
        if len(state.buffer) or train.world.demo_share == 1:
            own = state.buffer.sample
            metrics |= state.world.update(wam, own, state.demos.sample, state.generator)
    ema_update(state.average, wam, train.ema)
    state.iteration += 1
    metrics |= timer("online")
    metrics["buffer/clips"] = float(len(state.buffer))
    return metrics, rollout
