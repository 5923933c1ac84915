"""MetaWorld with the `nano` model, made for two CPU cores."""

from __future__ import annotations

from dataclasses import replace

from wamrl.config import Config, DataConfig, TrainConfig
from wamrl.envs.metaworld import MetaWorldConfig
from wamrl.evaluate import EvalConfig
from wamrl.models.flow import FlowConfig
from wamrl.recipes.rewards import ALL
from wamrl.reward_study import RewardStudyConfig
from wamrl.rewards.reward import RewardConfig
from wamrl.rl.online_sft import OnlineSFTConfig
from wamrl.rl.starts import StartsConfig
from wamrl.rl.update import ActorUpdateConfig
from wamrl.sft import SFTConfig

SUCCESS = RewardConfig(mode="success")


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
        rewards=RewardStudyConfig(similarities=ALL),
        eval=EvalConfig(episodes=200),
    )


def actor_only() -> Config:
    """Control: as quickstart, but only the actor's policy gradient on sparse success (piRL)."""
    train = quickstart().train
    return _variant("actor-only", reward=SUCCESS, online=replace(train.online, world=False, actor=False))


def world_only() -> Config:
    """Control: as quickstart, but only the video SFT of the world model, with latent KL."""
    train = quickstart().train
    return _variant("world-only", reward=SUCCESS, actor=_off(train.actor), online=replace(train.online, actor=False))


def clone_successes() -> Config:
    """Control: as quickstart, but the actor only clones its own successes; no policy gradient, no video SFT."""
    train = quickstart().train
    online = replace(train.online, world=False, actor=True)
    return _variant("clone-successes", reward=SUCCESS, actor=_off(train.actor), online=online)


def demos_only() -> Config:
    """Control: as quickstart without policy gradient, trained on the demonstrations: what longer training gives."""
    train = quickstart().train
    online = replace(train.online, actor=True, demo_share=1.0)
    return _variant("demos-only", reward=SUCCESS, actor=_off(train.actor), online=online)


def paper() -> Config:
    """As the paper where it says how: reconstruction reward only, plain SDE, no co-training; else as quickstart."""
    online = replace(quickstart().train.online, actor=False)
    cfg = _variant("paper", reward=RewardConfig(mode="paper"), online=online)
    return replace(cfg, flow=replace(cfg.flow, sde="plain"))


def _variant(name: str, **train) -> Config:
    cfg = quickstart()
    return replace(cfg, name=name, train=replace(cfg.train, **train))


def _off(actor: ActorUpdateConfig) -> ActorUpdateConfig:
    return replace(actor, enabled=False)
