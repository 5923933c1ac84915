"""What `tests/runtime/test_dist.py` runs: alone in its own process,
and in two ranks as `torchrun ... -m tests.support.ranks OUT`.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import torch

from tests.support import tiny
from wamrl.config import Config
from wamrl.evaluate import measure
from wamrl.online.look import look
from wamrl.online.state import TrainingState
from wamrl.pool.pool import Pool
from wamrl.rewards.reward import RewardConfig
from wamrl.rl.grpo import GRPOConfig
from wamrl.rollout.collect import collect
from wamrl.runs import folder
from wamrl.runtime import checkpoint, dist
from wamrl.sft import SFT, SFTConfig
from wamrl.train import iterate

# Adam divides by the gradient's size: where that is rounding noise, its step is the learning rate
# times noise, and single weights differ by up to 4e-6. PPO's usual eps leaves such weights alone.
PPO = replace(tiny.CONFIG.train.learner, lr=2e-5, value_lr=1e-4, eps=1e-5)
GRPO = GRPOConfig(epochs=PPO.epochs, batch=PPO.batch, lr=PPO.lr, eps=PPO.eps)
WORLD = replace(tiny.CONFIG.train.world, world_lr=2e-5, actor_lr=2e-5)
RUNS = {
    "ppo": tiny.train_config(
        groups=10, learner=replace(PPO, transitions=1), world=replace(WORLD, microbatch=3)
    ),
    "grpo": tiny.train_config(
        learner=GRPO,
        world=WORLD,
        reward=RewardConfig(mode="success"),
        groups=5,
    ),
    "paper": tiny.train_config(
        learn=("policy", "world"),
        learner=PPO,
        world=replace(WORLD, capacity=12),
        ema=0.5,
        reward=RewardConfig(mode="paper", scorer="ema"),
    ),
}


def begun(cfg: Config, seed: int = 0) -> TrainingState:
    return TrainingState(cfg, tiny.lively(seed, cfg.model), tiny.demos(), 40)


def run(cfg: Config, pool: Pool, out: Path, iterations: int = 2) -> None:
    """Iterate, and save after each iteration."""
    one = begun(cfg)
    for i in range(1, iterations + 1):
        metrics, _ = iterate(one, pool)
        checkpoint.save(
            out / f"step{i}", one.state_dict() | {"metrics": metrics}, one.buffer.own_state()
        )


def sft(out: Path, shard: bool = False) -> None:
    """Four steps; sharded, after two of them everything goes through a checkpoint."""
    cfg = SFTConfig(steps=4, batch=7, microbatch=3, warmup=2, lr=1e-4, shard=shard)
    state = SFT(tiny.lively(), cfg, seed=1)
    for i in range(4):
        if shard and i == 2:
            checkpoint.save(out / "half", state.state_dict())
            state = SFT(tiny.lively(seed=4), cfg, seed=5)
            state.load_state_dict(checkpoint.load(out / "half"))
        state.step(tiny.demos().sample)
    checkpoint.save(out / "sft", state.state_dict())


def lone(out: Path, shard: bool) -> None:
    """A batch of one clip: one of two ranks has none. Sharded, activations are recomputed too."""
    model = replace(tiny.MODEL, world=replace(tiny.MODEL.world, recompute=shard))
    state = SFT(
        tiny.lively(model=model),
        SFTConfig(steps=2, batch=1, warmup=2, lr=1e-4, shard=shard),
        seed=1,
    )
    for _ in range(2):
        state.step(tiny.demos().sample)
    checkpoint.save(out / "lone", state.state_dict())


def late(out: Path) -> None:
    """The second rank looks for demonstrations when the first has recorded them already."""
    calls, before = (
        [],
        {name: getattr(folder, name) for name in ("has_data", "record", "load_data")},
    )
    folder.has_data = lambda place: dist.rank() == 1
    folder.record = lambda cfg, run: calls.append(run)
    folder.load_data = lambda cfg, place, keys=None: None
    options = folder.Options(config=tiny.CONFIG, verb="quickstart", resume=out)
    if folder.given_data(options) is None:
        folder.recorded_data(options, out)
    for name, function in before.items():
        setattr(folder, name, function)
    checkpoint.save(out / "late", {"recorded": int(dist.all_sum(torch.tensor(len(calls))))})


def measured(pool: Pool, out: Path) -> None:
    """What an evaluation says of all episodes."""
    cfg, clips = (
        replace(tiny.CONFIG, eval=replace(tiny.CONFIG.eval, episodes=7)),
        tiny.demos().at(torch.arange(70)),
    )
    wam = tiny.lively()
    wam.sampler = "ode"
    options = {"seed": cfg.seed, "heldout": clips, "title": "tiny"}
    arm, _ = measure(wam, pool, cfg.eval, cfg.flow, **options)
    state = {"heldout": arm.heldout, "executed": arm.executed}
    checkpoint.save(out / "measured", state | {"starts": arm.starts, "success": arm.success})


def watched(pool: Pool, out: Path, shard: bool) -> None:
    """An evaluation in the middle of a run, and the checkpoint `best` that it leaves."""
    cfg = tiny.train_config(RUNS["ppo"], world=replace(RUNS["ppo"].train.world, shard=shard))
    cfg = replace(cfg, eval=replace(cfg.eval, every=1, during=7, choose=5))
    one = begun(cfg)
    one.iteration = 1
    metrics = look(one, pool, out)
    checkpoint.save(out / "watched", {"metrics": metrics, "sampler": one.wam.sampler})


def sharded(pool: Pool, out: Path) -> None:
    """As `sft` and `run`, with the world model's weights split over the ranks."""
    sft(out, shard=True)
    lone(out, shard=True)
    cfg = tiny.train_config(RUNS["ppo"], world=replace(RUNS["ppo"].train.world, shard=True))
    run(cfg, pool, out / "ppo")
    resume(cfg, pool, out / "ppo" / "step1", out / "resumed")
    watched(pool, out, shard=True)


def resume(cfg: Config, pool: Pool, step: Path, out: Path) -> None:
    """One more iteration from a checkpoint."""
    other = begun(cfg, seed=5)
    other.load_state_dict(checkpoint.load(step), checkpoint.load_parts(step))
    iterate(other, pool)
    checkpoint.save(out, other.state_dict(), other.buffer.own_state())


def lopsided(pool: Pool, out: Path) -> None:
    """The second rank never succeeds: it has no clip, and under GRPO no chunk to learn from."""

    def one_sided(*args, **kwargs):
        rollout = collect(*args, **kwargs)
        if dist.rank() == 1:
            rollout.success.zero_()
            rollout.decisions.success.zero_()
        return rollout

    module = sys.modules[iterate.__module__]
    module.collect = one_sided
    for name in ("ppo", "grpo"):
        run(RUNS[name], pool, out / name)
    module.collect = collect


def killed(pool: Pool, out: Path) -> None:
    """The second rank dies in its first rollout."""
    if dist.rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    run(RUNS["ppo"], pool, out)


def everything(out: Path) -> None:
    tiny.demos()
    with tiny.CONFIG.build_pool() as pool:
        sft(out)
        lone(out, shard=False)
        measured(pool, out)
        watched(pool, out, shard=False)
        for name, cfg in RUNS.items():
            run(cfg, pool, out / name)
        resume(RUNS["ppo"], pool, out / "ppo" / "step1", out / "resumed")
        if dist.world() > 1:
            late(out)
            lopsided(pool, out / "lopsided")
            sharded(pool, out / "sharded")


if __name__ == "__main__":
    with dist.ranks():
        torch.set_num_threads(1)
        if sys.argv[2:] == ["killed"]:
            with tiny.CONFIG.build_pool() as slots:
                killed(slots, Path(sys.argv[1]))
        else:
            everything(Path(sys.argv[1]))
