"""LIBERO with a small model: recipes to start from,
never trained, and untested on the official assets.

Composite reward, noise 0.3 in all denoising steps, no cloning. See docs/libero.md.
"""

from __future__ import annotations

from dataclasses import replace

from wamrl.config import Config, DataConfig, TrainConfig
from wamrl.envs.base import EnvConfig
from wamrl.envs.libero.assets import INIT_STATES, SUITES
from wamrl.envs.libero.env import LiberoConfig
from wamrl.envs.libero.suite import LiberoSuiteConfig
from wamrl.evaluate import EvalConfig
from wamrl.models.flow import FlowConfig
from wamrl.models.video_dit import VideoDiTConfig
from wamrl.models.wam_config import WAMConfig
from wamrl.pool.pool import PoolConfig
from wamrl.rl.initial_states import InitialStatesConfig
from wamrl.sft import SFTConfig


def libero_object() -> Config:
    """LIBERO-Object (short), --env.task 0..9: needs its own environment (scripts/libero.sh)."""
    return _libero("libero-object", LiberoConfig(suite="object", image_size=128))


def libero_10() -> Config:
    """LIBERO-10 (long), --env.task 0..9: needs its own environment (scripts/libero.sh)."""
    return _libero("libero-10", LiberoConfig(suite="10", image_size=128))


def libero_suite_object() -> Config:
    """LIBERO-Object whole: ten tasks, one model, 50 fixed states of each; scripts/libero.sh."""
    return _suite("object")


def libero_suite_spatial() -> Config:
    """LIBERO-Spatial whole: ten tasks, one model, 50 fixed states of each; scripts/libero.sh."""
    return _suite("spatial")


def libero_suite_goal() -> Config:
    """LIBERO-Goal whole: ten tasks, one model, 50 fixed states of each; scripts/libero.sh."""
    return _suite("goal")


def libero_suite_10() -> Config:
    """LIBERO-10 whole: ten long tasks, one model, 50 fixed states of each; scripts/libero.sh."""
    return _suite("10")


def libero_suite_90() -> Config:
    """LIBERO-90 whole: ninety tasks, one model, 50 fixed states of each; scripts/libero.sh."""
    return _suite("90")


def _suite(suite: str) -> Config:
    """The published protocol: demonstrations of every task, evaluation from all its states."""
    numbers = tuple(range(SUITES[suite]))
    cfg = _libero(
        f"libero-suite-{suite}", LiberoSuiteConfig(suite=suite, tasks=numbers, image_size=128)
    )
    tasks = len(numbers)
    return replace(
        cfg,
        data=replace(cfg.data, episodes=50 * tasks, heldout=2 * tasks),
        sft=SFTConfig(steps=3000 * tasks),
        train=replace(cfg.train, iterations=10 * tasks),
        eval=EvalConfig(episodes=INIT_STATES * tasks),
    )


def _libero(name: str, env: EnvConfig) -> Config:
    return Config(
        name=name,
        env=env,
        model=WAMConfig(
            world=VideoDiTConfig(width=256, depth=8, taps=(2, 5, 8)),
            frame_offsets=(5, 10),
            chunk=10,
        ),
        flow=FlowConfig(noise=0.3),
        data=DataConfig(episodes=50, heldout=10, noise=0.2),
        sft=SFTConfig(steps=5000),
        train=TrainConfig(iterations=10, groups=16, initial_states=InitialStatesConfig(group=4)),
        eval=EvalConfig(episodes=50),  # the 50 fixed initial states of the task
        pool=PoolConfig(n_envs=4, n_workers=2, timeout_s=300.0),  # up to 2 GB per environment
    )
