"""MetaWorld with the `nano` model, made for two CPU cores."""

from __future__ import annotations

from dataclasses import replace

from wamrl.config import Config, DataConfig, TrainConfig
from wamrl.envs.metaworld import MetaWorldConfig
from wamrl.evaluate import EvalConfig
from wamrl.models.flow import FlowConfig
from wamrl.rewards.reward import RewardConfig
from wamrl.rl.online_sft import OnlineSFTConfig
from wamrl.rl.starts import StartsConfig
from wamrl.rl.update import ActorUpdateConfig
from wamrl.sft import SFTConfig


def quickstart() -> Config:
    """Button-press: six demonstrations, then online improvement, in minutes on two cores."""
    return Config(
        name="quickstart",
        env=MetaWorldConfig(task="button-press", horizon=80),  # the expert needs 60 to 73 control steps
        flow=FlowConfig(noise=0.6),
        data=DataConfig(episodes=6, heldout=12),
        sft=SFTConfig(steps=220),
        train=TrainConfig(
            iterations=4,
            groups=64,
            starts=StartsConfig(group=4),
            actor=ActorUpdateConfig(lr=5e-5, target_kl=0.1),
            online=OnlineSFTConfig(shared=True, steps=40, actor_lr=5e-4, world_lr=3e-4),
        ),
        eval=EvalConfig(episodes=200),
    )


def actor_only() -> Config:
    """Control: as quickstart, but only the actor's policy gradient on sparse success (piRL)."""
    cfg = quickstart()
    return replace(
        cfg, name="actor-only",
        train=replace(
            cfg.train, reward=RewardConfig(mode="success"), online=OnlineSFTConfig(world=False, actor=False),
        ),
    )  # fmt: skip


def world_only() -> Config:
    """Control: as quickstart, but only the video SFT of the world model, with latent KL."""
    cfg = quickstart()
    return replace(
        cfg, name="world-only",
        train=replace(
            cfg.train, actor=replace(cfg.train.actor, enabled=False), reward=RewardConfig(mode="success"),
            online=replace(cfg.train.online, actor=False),
        ),
    )  # fmt: skip


def clone_successes() -> Config:
    """Control: as quickstart, but the actor only clones its own successes; no policy gradient, no video SFT."""
    cfg = quickstart()
    return replace(
        cfg, name="clone-successes",
        train=replace(
            cfg.train, actor=replace(cfg.train.actor, enabled=False), reward=RewardConfig(mode="success"),
            online=replace(cfg.train.online, world=False),
        ),
    )  # fmt: skip


def demos_only() -> Config:
    """Control: as quickstart without policy gradient, trained on the demonstrations: what longer training gives."""
    cfg = quickstart()
    return replace(
        cfg, name="demos-only",
        train=replace(
            cfg.train, actor=replace(cfg.train.actor, enabled=False), reward=RewardConfig(mode="success"),
            online=replace(cfg.train.online, demo_share=1.0),
        ),
    )  # fmt: skip


def paper() -> Config:
    """As the paper where it says how: reconstruction reward only, plain SDE, no co-training; else as quickstart."""
    cfg = quickstart()
    return replace(
        cfg, name="paper", flow=replace(cfg.flow, sde="plain"),
        train=replace(cfg.train, reward=RewardConfig(mode="paper"), online=replace(cfg.train.online, actor=False)),
    )  # fmt: skip
