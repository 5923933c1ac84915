"""MetaWorld with a small model, made for two CPU cores."""

from __future__ import annotations

from dataclasses import replace

from wamrl.config import Config, DataConfig, TrainConfig
from wamrl.envs.metaworld.env import MetaWorldConfig
from wamrl.evaluate import EvalConfig
from wamrl.models.action_head import ActionHeadConfig
from wamrl.models.flow import FlowConfig
from wamrl.models.video_dit import VideoDiTConfig
from wamrl.models.wam import WAMConfig
from wamrl.recipes.rewards import ALL
from wamrl.reward_comparison import RewardComparisonConfig
from wamrl.rewards.reward import RewardConfig
from wamrl.rl.actor_update import ActorUpdateConfig
from wamrl.rl.initial_states import InitialStatesConfig
from wamrl.rl.world_update import WorldUpdateConfig
from wamrl.sft import SFTConfig

SUCCESS = RewardConfig(mode="success")

# Loud enough to find what the base does not do, quiet enough in the end that cloning does not widen
# the policy: at a constant 0.8 exploring success falls from iteration 10 on (LOG.md, 2026-11-27).
EXPLORE = FlowConfig(noise=0.8, noise_end=0.4)

# Small enough for some hundred runs on two cores: 1.2 M (world) and 0.7 M (actor) parameters.
PICO = WAMConfig(
    world=VideoDiTConfig(width=96, depth=4, taps=(2, 3, 4)),
    actor=ActionHeadConfig(width=96),
)


def online(iterations: int) -> TrainConfig:
    """The online loop of all MetaWorld and robosuite recipes: 128 episodes an iteration.

    PPO on sparse success, video SFT with latent KL, and cloning what was done in successful
    episodes, exploration noise included. On the short task cloning does most of it: the three
    together against cloning alone are undecided at three seeds, against PPO alone 19 points ahead
    (docs/results.md). One noisy step of each chunk in a minibatch costs a quarter of all four.
    The first iteration trains the value head only.
    """
    return TrainConfig(
        iterations=iterations,
        groups=32,
        initial_states=InitialStatesConfig(group=4),
        reward=SUCCESS,
        actor=ActorUpdateConfig(lr=2e-4, batch=256, transitions=1, target_kl=0.06),
        world=WorldUpdateConfig(
            actor=True, clone="executed", steps=40, actor_lr=5e-4, world_lr=1e-4
        ),
    )


def quickstart() -> Config:
    """Button-press: two demonstrations, then online improvement, in minutes on two cores."""
    return Config(
        name="quickstart",
        # the expert needs 60 to 73 control steps
        env=MetaWorldConfig(task="button-press", horizon=80),
        model=PICO,
        flow=EXPLORE,
        data=DataConfig(episodes=2, heldout=12),
        sft=SFTConfig(steps=500),  # more steps on these two give little more: `demos-only`
        train=online(iterations=30),
        rewards=RewardComparisonConfig(similarities=ALL),
        eval=EvalConfig(episodes=200, every=10, during=50, choose=50),
    )


def actor_only() -> Config:
    """Control: as quickstart, but only the actor's policy gradient on sparse success (piRL)."""
    return _variant("actor-only", world=replace(quickstart().train.world, world=False, actor=False))


def actor_clone() -> Config:
    """Control: as quickstart without the world model's half: policy gradient and cloning."""
    return _variant("actor-clone", world=replace(quickstart().train.world, world=False))


def joint() -> Config:
    """As quickstart without cloning: the paper's two halves, on sparse success, with our rates."""
    return _variant("joint", world=replace(quickstart().train.world, actor=False))


def world_only() -> Config:
    """Control: as quickstart, but only the video SFT of the world model, with latent KL."""
    train = quickstart().train
    return _variant("world-only", actor=_off(train.actor), world=replace(train.world, actor=False))


def clone_successes() -> Config:
    """Control: the actor only clones its own successes: no RL, no video SFT; else quickstart."""
    train = quickstart().train
    return _variant(
        "clone-successes", actor=_off(train.actor), world=replace(train.world, world=False)
    )


def demos_only() -> Config:
    """Control: only trained longer, on the demonstrations: no RL, no own data; else quickstart."""
    train = quickstart().train
    online = replace(train.world, demo_share=1.0)
    return _variant("demos-only", actor=_off(train.actor), world=online)


def paper() -> Config:
    """As the paper says: reconstruction reward, plain SDE, no cloning; else as quickstart."""
    online = replace(quickstart().train.world, actor=False)
    cfg = _variant("paper", reward=RewardConfig(mode="paper"), world=online)
    return replace(cfg, flow=replace(cfg.flow, sde="plain"))


def _variant(name: str, **train) -> Config:
    cfg = quickstart()
    return replace(cfg, name=name, train=replace(cfg.train, **train))


def _off(actor: ActorUpdateConfig) -> ActorUpdateConfig:
    return replace(actor, enabled=False)
