"""How a model is deployed and saved, and evaluation during training:
the learning curve, the checkpoint `best`.
"""

from __future__ import annotations

from pathlib import Path

from wamrl import report
from wamrl.config import Config
from wamrl.evaluate import choose_sampler, curve_point, glance
from wamrl.models.flow import SAMPLERS, FlowConfig, Sampler
from wamrl.models.saved import model_state
from wamrl.models.wam import WAM
from wamrl.pool.pool import Pool
from wamrl.runtime import checkpoint, dist, sharding
from wamrl.runtime.log import Logger, Timer, bar, console, read_metrics
from wamrl.train import Learner


def deploy(
    cfg: Config, wam: WAM, pool: Pool, flow: FlowConfig, *, again: bool = False
) -> dict[Sampler, float]:
    """Settle how `wam` is deployed: as `flow.deploy` says,
    else as saved, else chosen on training states.

    again: choose although the model knows one, since it has learned since.
    Returns the rates by which it was chosen, the best one first; empty where there was no choice.
    """
    if flow.deploy != "auto":
        wam.sampler = flow.deploy
    if wam.sampler is not None and (flow.deploy != "auto" or not again):
        return {}
    with bar("choosing the sampler", len(SAMPLERS) * cfg.eval.choose) as advance:
        rates = choose_sampler(wam, pool, cfg.eval, flow, seed=cfg.seed, on_done=advance)
    wam.sampler = next(iter(rates))
    shown = ", ".join(f"{name} {rate:.1%}" for name, rate in rates.items())
    console.print(
        f"sampler {wam.sampler!r}, by {cfg.eval.choose} training states: {shown}", markup=False
    )
    return rates


class Watch:
    """Evaluation during training, every `eval.every` iterations, and the checkpoint `best`.

    Two sets of states, so that choosing does not flatter what is reported. On `eval.choose`
    training states the deployed sampler is chosen,
    and its success there (`eval/choose_success`) chooses
    `best`: the first of the highest, the model before the first update included. On the first
    `eval.during` evaluation states all samplers give a point of the curve, which chooses nothing.
    Both as the model would be deployed after the run: with the noise of the last iteration.

    Neither the run's random streams nor its budget of control steps are touched.
    """

    def __init__(self, cfg: Config, learner: Learner, pool: Pool, run: Path):
        self.cfg = cfg
        self.learner = learner
        self.pool = pool
        self.run = run
        self.settled: int | None = None  # the iteration whose sampler was chosen last
        self.best = -1.0  # success of `best`
        if (run / "checkpoints" / "best").is_dir():
            saved = checkpoint.load(run / "checkpoints" / "best")
            if saved["iteration"] <= learner.iteration:  # else of iterations that are repeated now
                self.best = saved["choose_success"]

    def __call__(self, rates: dict[Sampler, float] | None = None) -> dict[str, float]:
        """The metrics of an evaluation after this iteration; none if it has no turn.

        rates: what `deploy` has just returned, if it was called for this very model.
        """
        done = self.learner.iteration
        last = self.cfg.train.iterations
        if not self.cfg.eval.every or (done % self.cfg.eval.every and done < last):
            return {}
        timer = Timer()
        wam = self.learner.wam
        flow = self.cfg.flow.at(1.0)
        where = (wam, self.pool, self.cfg.eval, flow)
        seed = self.cfg.seed
        point = {}
        with sharding.unsharded(wam.world):
            rates = rates or deploy(self.cfg, wam, self.pool, flow, again=True)
            if not rates:  # there is no choice, but `best` needs the rate
                rates = choose_sampler(*where, seed=seed, samplers=(wam.sampler,))
            if 0 < done < last:  # the evaluations before and after the run are points already
                with bar("  evaluating", len(SAMPLERS) * self.cfg.eval.during) as advance:
                    point = glance(*where, seed=seed, on_done=advance)
        self.settled = done
        self.offer(rates[wam.sampler])
        return point | {"eval/choose_success": rates[wam.sampler]} | timer("eval")

    def offer(self, rate: float) -> None:
        """Keep the present model as `best` if none before had this success."""
        if rate <= self.best:
            return
        self.best = rate
        state = model_state(self.cfg.model, self.learner.wam)
        found = {"iteration": self.learner.iteration, "choose_success": rate}
        checkpoint.save_named(self.run, "best", state | found)


def log_arm(logger: Logger, run: Path, step: int, arm: dict, more: dict[str, float]) -> None:
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
    logger.log(step, curve_point(sampler, arm["successes"], arm["episodes"], rates) | more)


def write_curve(run: Path) -> None:
    """learning_curve.png, of what the run has logged."""
    curves, thin = report.run_curves(read_metrics(run), SAMPLERS)
    report.learning_curve(
        run / "learning_curve.png",
        curves,
        thin=thin,
        title=run.name,
        x_label="online episodes so far",
    )
