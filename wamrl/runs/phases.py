"""What the verbs do with a run folder: record, fine-tune, evaluate, improve online, report.

runs/NAME-TIME/  config.json  metrics.jsonl  tensorboard/  summary.json  learning_curve.png
                 diagnostics.png  videos/ before, after; compare: a state lost before, won after
                 demos/ heldout/          demonstrations (unless taken from another run)
                 checkpoints/             sft-resume, base, step-*, best, final
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wamrl import report
from wamrl.config import Config
from wamrl.deploy import Watch, deploy, log_arm
from wamrl.diagnostics import alarm_line
from wamrl.evaluate import copy_ratio, evaluate, rollout_clip
from wamrl.models import saved
from wamrl.models.flow import SAMPLERS, FlowConfig, Sampler
from wamrl.models.wam import WAM
from wamrl.pool.pool import Pool
from wamrl.rollout import Rollout, everywhere
from wamrl.runs.demonstrations import Data, env_spec, keep_rollout
from wamrl.runtime import checkpoint, dist, sharding
from wamrl.runtime.log import Logger, bar, console, read_metrics, summary_line
from wamrl.sft import SFT
from wamrl.train import Learner
from wamrl.types import Clip


def build_wam(cfg: Config) -> WAM:
    """A fresh model for the config's environment, initialised from the seed."""
    return saved.build_wam(cfg.model, env_spec(cfg), seed=cfg.seed, device=device())


def load_wam(cfg: Config, path: Path) -> WAM:
    """The model of a checkpoint or run folder, for the config's environment; see `saved`."""
    return saved.load_wam(cfg.model, env_spec(cfg), path, seed=cfg.seed, device=device())


def device() -> str:
    """Of this rank (see `dist.ranks`)."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def fine_tune(cfg: Config, data: Data, run: Path, logger: Logger) -> WAM:
    """SFT to the end,
    from the last `sft-resume` checkpoint of the run if there is one; saves `base`.
    """
    wam = build_wam(cfg)
    wam.normalize.fit(*data.demos.statistics())
    state = SFT(wam, cfg.sft, cfg.seed)
    if (run / "checkpoints" / "sft-resume").is_dir():
        state.load_state_dict(checkpoint.load(run / "checkpoints" / "sft-resume"))
    with bar("fine-tuning on demonstrations", cfg.sft.steps) as advance:
        advance(state.done)
        while state.done < cfg.sft.steps:
            metrics = state.step(data.demos.sample)
            advance(1)
            if state.done % cfg.sft.log_every == 0 or state.done == cfg.sft.steps:
                logger.log(state.done - cfg.sft.steps, metrics)
            if state.done % cfg.sft.save_every == 0:
                checkpoint.save_named(run, "sft-resume", state.state_dict())
    wam = build_wam(cfg)
    wam.load_state_dict(sharding.whole(state.average.state_dict()))
    ratios = ratio_metrics(wam, data, cfg)
    logger.log(0, ratios, summary_line("world model on held-out demonstrations:", ratios))
    saved.save_wam(cfg.model, wam, run, "base")
    return wam


def ratio_metrics(wam: WAM, data: Data, cfg: Config) -> dict[str, float]:
    ratio = heldout_ratio(wam, data.heldout, cfg.eval.imagine_steps)
    return {
        f"heldout/copy_ratio/{o}": r for o, r in zip(wam.spec.frame_offsets, ratio, strict=True)
    }


def heldout_ratio(wam: WAM, heldout: Clip, steps: int) -> list[float]:
    """`copy_ratio` of clips that every rank has: each measures its share."""
    return copy_ratio(wam, heldout[dist.rank_slice(len(heldout))], steps).tolist()


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One evaluated model: success on the evaluation states,
    and the world model's error over copying per offset.
    """

    task: str  # the environment's name
    goals: int  # sub-goals that make a success
    starts: Tensor  # int64 (E,) index of the initial state in the split `eval`
    success: Tensor  # bool (E,)
    length: Tensor  # int64 (E,) control steps
    stages: Tensor  # int64 (E,)
    heldout: dict[int, float]  # on held-out demonstrations
    executed: dict[int, float]  # on the evaluated episodes
    attempts: Tensor  # int64 (E,) see wamrl/envs/attempts.py
    retries: Tensor  # int64 (E,)
    sampler: str  # whose episodes these are: the deployed one
    rates: dict[str, float]  # success of every sampler on the evaluation states

    @classmethod
    def load(cls, state: dict) -> Arm:
        """From a checkpoint; older ones counted no attempts and had one sampler."""
        none = torch.zeros_like(state["stages"])
        old = {"attempts": none, "retries": none, "sampler": "ode", "rates": {}}
        return cls(**(old | state))

    def summary(self, cfg: Config) -> dict:
        """For summary.json, see docs/metrics.md."""
        out = report.arm(
            task=self.task,
            stages=self.goals,
            seed=cfg.seed,
            success=self.success.numpy(),
            length=self.length.numpy(),
            error_over_copy=self.heldout,
        )
        return (
            out
            | {
                "error_over_copy_executed": {str(k): v for k, v in self.executed.items()},
                "mean_stages": self.stages.float().mean().item(),
                "starts": self.starts.tolist(),
                "success": self.success.int().tolist(),
                "sampler": self.sampler,
                "rates": self.rates,
            }
            | report.recovery(self.success.numpy(), self.attempts.numpy(), self.retries.numpy())
        )


def measure(
    cfg: Config,
    wam: WAM,
    pool: Pool,
    heldout: Clip | None,
    title: str,
    flow: FlowConfig,
) -> tuple[Arm, Rollout]:
    """Closed-loop evaluation of all ranks under every sampler, the copy ratios on held-out
    demonstrations and on the executed episodes, and this rank's episodes;
    both of the deployed sampler."""
    assert wam.sampler is not None, "call `deploy` first"
    whole = None
    rates = {}
    with bar(f"evaluating {title}", len(SAMPLERS) * cfg.eval.episodes) as advance:
        for sampler in SAMPLERS:
            options = {"seed": cfg.seed, "sampler": sampler, "on_done": advance}
            found = evaluate(wam, pool, cfg.eval, flow, **options)
            everyone, _ = everywhere(found)
            rates[sampler] = everyone.success.float().mean().item()
            if sampler == wam.sampler:
                rollout = found
                whole = everyone
    steps = cfg.eval.imagine_steps
    offsets = wam.spec.frame_offsets
    held = heldout_ratio(wam, heldout, steps) if heldout is not None else [math.nan] * len(offsets)
    real = copy_ratio(wam, rollout_clip(rollout), steps).tolist()
    wins = int(whole.success.sum())
    n = len(whole.success)
    low, high = report.wilson(wins, n)
    again = whole.retries > 0
    others = ", ".join(f"{name} {rate:.1%}" for name, rate in rates.items())
    console.print(
        f"{title}, sampler {wam.sampler!r}: {wins}/{n} = {wins / n:.1%}, "
        f"95 % interval {low:.1%} to {high:.1%} (of all: {others}); "
        f"{int(again.sum())} tried again after a failed attempt, {int(whole.success[again].sum())} "
        "of them succeeded",
        markup=False,
    )
    arm = Arm(
        task=pool.spec.name,
        goals=pool.spec.stages,
        starts=torch.tensor([s.index for s in whole.starts]),
        success=whole.success,
        length=whole.length,
        stages=whole.stages,
        sampler=wam.sampler,
        rates=rates,
        heldout=dict(zip(offsets, held, strict=True)),
        executed=dict(zip(offsets, real, strict=True)),
        attempts=whole.attempts,
        retries=whole.retries,
    )
    return arm, rollout


def improve(
    cfg: Config,
    learner: Learner,
    pool: Pool,
    run: Path,
    logger: Logger,
    before: dict,
    *,
    rates: dict[Sampler, float] | None = None,
    keep: bool = False,
) -> None:
    """The online loop with its log and checkpoints, from wherever the learner stands.

    before: the base's arm of the summary, the first point of the curve.
    rates: what `deploy` has just returned for the base, if it was called.
    keep: write the rollouts too.
    """

    def keep_it(rollout: Rollout) -> None:
        if keep:
            part = f"-rank{dist.rank()}" if dist.world() > 1 else ""
            keep_rollout(
                cfg, rollout, run / "rollouts" / f"iteration-{learner.iteration:04d}{part}"
            )

    episodes = cfg.train.groups * cfg.train.initial_states.group
    # how many that makes depends on their length: shown as if all lasted to the horizon
    if cfg.train.env_steps:
        episodes = cfg.train.env_steps // (cfg.train.iterations * learner.horizon)
    watch = Watch(cfg, learner, pool, run)
    if learner.iteration == 0:
        log_arm(logger, run, 0, before, watch(rates))
    with bar("improving online", cfg.train.iterations) as advance:
        advance(learner.iteration)
        while learner.iteration < cfg.train.iterations:
            with bar("  episodes", episodes) as tell:
                metrics = learner.iterate(pool, tell, keep_it)
            require_finite(learner.wam)
            metrics |= watch()
            line = {k: metrics[k] for k in CONSOLE if k in metrics}
            logger.log(
                learner.iteration, metrics, summary_line(f"iteration {learner.iteration}:", line)
            )
            if alarm := alarm_line(metrics):
                console.print(alarm, style="bold red", markup=False)
            advance(1)
            if (
                learner.iteration % cfg.train.save_every == 0
                or learner.iteration == cfg.train.iterations
            ):
                checkpoint.save_step(
                    run, learner.iteration, learner.state_dict(), learner.buffer.own_state(), keep=2
                )
                if dist.is_main():
                    draw_diagnostics(run, learner)
    if watch.settled != learner.iteration:
        with sharding.unsharded(learner.wam.world):
            deploy(cfg, learner.wam, pool, cfg.flow.at(1.0), again=True)
    saved.save_wam(cfg.model, learner.wam, run, "final")


def draw_diagnostics(run: Path, learner: Learner) -> None:
    """diagnostics.png: the diagnosed iterations so far; nothing if there are none."""
    rows = [r for r in read_metrics(run) if r.get("diag/mean/reconstruction") is not None]
    seen = learner.diagnostics
    if rows:
        scores = {name: score.numpy() for name, score in seen.scores.items()}
        title = f"{learner.cfg.name}, seed {learner.cfg.seed}"
        report.diagnostics_figure(
            run / "diagnostics.png", rows, scores, seen.success.numpy(), title=title
        )


def require_finite(wam: WAM) -> None:
    """Nothing that is not a number is ever saved."""
    if not sharding.finite(wam.parameters()):
        raise FloatingPointError(
            "a weight is not finite any more: start from the base with lower learning rates"
        )


CONSOLE = (
    "rollout/success",
    "rollout/success_fresh",
    "rollout/undecided",
    "rollout/length",
    "actor/kl",
    "actor/clip_fraction",
    "actor/explained_variance",
    "diag/auc/reconstruction",
    "cotrain/action_loss",
    "world/video_loss",
    "time/rollout",
    "time/score",
    "time/actor",
    "time/online",
    "eval/success",
    "eval/success_low",
    "eval/success_high",
    "eval/choose_success",
    "time/eval",
)


def compare(before: Arm, after: Arm) -> report.Paired:
    """Paired difference on the initial states that neither arm lost with a worker."""
    common = sorted(set(before.starts.tolist()) & set(after.starts.tolist()))

    def rows(arm: Arm) -> np.ndarray:
        won = dict(zip(arm.starts.tolist(), arm.success.tolist(), strict=True))
        return np.array([won[i] for i in common])

    return report.paired_difference(rows(before), rows(after))


def gained(before: Arm, after: Arm) -> list[int]:
    """The evaluation states that were lost before and won after, in their order."""
    old = dict(zip(before.starts.tolist(), before.success.tolist(), strict=True))
    new = dict(zip(after.starts.tolist(), after.success.tolist(), strict=True))
    return [i for i in sorted(old.keys() & new.keys()) if new[i] and not old[i]]
