"""The smallest runs that still exercise everything:
an easy point environment and models of 0.2 million weights.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import torch
from torch import Tensor, nn

from tests.support.easy import EasyConfig
from wamrl.config import Config, DataConfig, TrainConfig
from wamrl.data.clips import ClipDataset
from wamrl.data.demos import DemoConfig, collect
from wamrl.data.recording import InMemory
from wamrl.envs.base import EnvConfig
from wamrl.evaluate import EvalConfig
from wamrl.models.action_head import ActionHead, ActionHeadConfig
from wamrl.models.flow import FlowConfig
from wamrl.models.video_dit import VideoDiTConfig
from wamrl.models.wam import WAM
from wamrl.models.wam_config import WAMConfig
from wamrl.pool.pool import Pool, PoolConfig
from wamrl.rl.initial_states import InitialStatesConfig
from wamrl.rl.ppo import PPOConfig
from wamrl.rl.world_update import WorldUpdateConfig
from wamrl.rollout.collect import collect as roll_out
from wamrl.rollout.types import Rollout
from wamrl.sft import SFTConfig
from wamrl.types import InitialState

torch.set_num_threads(1)  # bitwise comparisons, and a machine that others use
ENV = EasyConfig()
MODEL = WAMConfig(
    world=VideoDiTConfig(width=32, depth=2, heads=2, patch=8, taps=(1, 2)),
    actor=ActionHeadConfig(width=32, heads=2),
    frame_offsets=(4, 8),
    chunk=8,
)
CONFIG = Config(
    name="tiny",
    env=ENV,
    model=MODEL,
    flow=FlowConfig(steps=3, noise=0.5),
    data=DataConfig(episodes=6, heldout=2),
    sft=SFTConfig(steps=6, batch=8, warmup=2),
    train=TrainConfig(
        iterations=3,
        groups=4,
        initial_states=InitialStatesConfig(group=2),
        learn=("policy", "world", "clone"),
        learner=PPOConfig(epochs=2, batch=16, value_warmup=0),
        world=WorldUpdateConfig(steps=2, batch=8),
    ),
    eval=EvalConfig(episodes=4, choose=4, during=4),
    pool=PoolConfig(n_envs=8, n_workers=1),
    threads=1,
)


def build_pool(*, env: EnvConfig = ENV, **changes) -> Pool:
    """The pool of `CONFIG` in an environment, with fields of its configuration replaced."""
    return replace(CONFIG, env=env, pool=replace(CONFIG.pool, **changes)).build_pool()


def train_config(cfg: Config = CONFIG, **changes) -> Config:
    """`cfg` with fields of its `train` replaced."""
    return replace(cfg, train=replace(cfg.train, **changes))


def fresh(seed: int = 0, model: WAMConfig = MODEL) -> WAM:
    """A model that has learned nothing."""
    torch.manual_seed(seed)
    return model.build(views=1, image_hw=(16, 16), action_dim=2, proprio_dim=4)


@cache
def recorded() -> InMemory:
    return InMemory(collect(DemoConfig(env=ENV, episodes=12, n_workers=0)))


@cache
def demos(past: int = 0) -> ClipDataset:
    """past: decisions that a clip comes with."""
    return ClipDataset(
        recorded(),
        MODEL.history_offsets,
        MODEL.frame_offsets,
        MODEL.chunk,
        past=past,
        only_success=True,
    )


def lively(seed: int = 0, model: WAMConfig = MODEL) -> WAM:
    """As `fresh`, but what starts at zero is random:
    features, imaginations and noise levels matter.
    """
    wam, g = fresh(seed, model), torch.Generator().manual_seed(seed)
    if isinstance(wam.actor, ActionHead):
        modulations = (block.modulation for block in wam.actor.blocks)
        layers = [wam.world.head, wam.actor.head, *modulations]
    else:
        linear = [m for m in wam.modules() if isinstance(m, nn.Linear)]
        layers = [layer for layer in linear if not layer.weight.any()]
    for layer in layers:
        layer.weight.data.normal_(0, 0.05, generator=g)
    wam.normalize.fit(*demos().statistics())
    return wam


def starts(n: int, split: str = "train") -> list[InitialState]:
    return [InitialState(split=split, index=i) for i in range(n)]


def explore(wam: WAM, pool: Pool, n: int = 16, seed: int = 0) -> Rollout:
    return roll_out(wam, pool, starts(n), CONFIG.flow, seed=seed, sampler="explore")


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in module.state_dict().items() if isinstance(v, Tensor)}


def changed(module: nn.Module, before: dict[str, Tensor]) -> set[str]:
    """Names of parameters and buffers that are not bitwise what they were."""
    return {
        k for k, v in module.state_dict().items() if k in before and not torch.equal(v, before[k])
    }


def difference(a, b, where: str = "") -> str | None:
    """The first place where two trees of states are not bitwise equal, or None."""
    if isinstance(a, dict):
        if not isinstance(b, dict) or a.keys() != b.keys():
            return f"{where}: keys {sorted(map(str, a.keys() ^ b.keys()))}"
        return next((d for k in a if (d := difference(a[k], b[k], f"{where}.{k}"))), None)
    if isinstance(a, list | tuple):
        if len(a) != len(b):
            return f"{where}: length {len(a)} and {len(b)}"
        pairs = enumerate(zip(a, b, strict=True))
        return next((d for i, (x, y) in pairs if (d := difference(x, y, f"{where}[{i}]"))), None)
    if isinstance(a, Tensor):
        same = a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
        return None if same else where
    return None if type(a) is type(b) and a == b else f"{where}: {a!r} and {b!r}"


def tensors(state, where: str = "") -> dict[str, Tensor]:
    if isinstance(state, Tensor):
        return {where: state}
    items = (
        state.items()
        if isinstance(state, dict)
        else enumerate(state)
        if isinstance(state, list | tuple)
        else ()
    )
    return {k: v for key, value in items for k, v in tensors(value, f"{where}.{key}").items()}


def distance(a: dict, b: dict) -> float:
    """The largest absolute difference of all tensors."""
    a, b = (tensors({k: v for k, v in x.items() if k != "metrics"}) for x in (a, b))
    assert a.keys() == b.keys() and len(a) > 50
    for name, x in a.items():
        assert x.shape == b[name].shape, name
    return max(
        (x.double() - b[name].double()).abs().max().item() for name, x in a.items() if x.numel()
    )
