"""MetaWorld with a small model, made for two CPU cores."""

from __future__ import annotations

from dataclasses import replace

from wamrl.config import Config, DataConfig, TrainConfig
from wamrl.envs.metaworld.env import MetaWorldConfig
from wamrl.evaluate import EvalConfig
from wamrl.models.action_head import ActionHeadConfig
from wamrl.models.flow import FlowConfig
from wamrl.models.video_dit import VideoDiTConfig
from wamrl.models.wam_config import WAMConfig
from wamrl.recipes.rewards import ALL
from wamrl.reward_comparison import RewardComparisonConfig
from wamrl.rewards.reward import RewardConfig
from wamrl.rl.grpo import GRPOConfig
from wamrl.rl.initial_states import InitialStatesConfig
from wamrl.rl.ppo import PPOConfig
from wamrl.rl.world_update import WorldUpdateConfig
from wamrl.sft import SFTConfig

SUCCESS = RewardConfig(mode="success")

# From 0.8 falling to 0.4, the same training ends 15 points lower (three seeds; LOG.md, 2026-11-27).
EXPLORE = FlowConfig(noise=0.5)

# Small enough for some hundred runs on two cores: 1.2 M (world) and 0.7 M (actor) parameters.
PICO = WAMConfig(
    world=VideoDiTConfig(width=96, depth=4, taps=(2, 3, 4)),
    actor=ActionHeadConfig(width=96),
)


def online(iterations: int) -> TrainConfig:
    """The online loop of all MetaWorld and robosuite recipes: 128 episodes an iteration.

    PPO on sparse success, video SFT with latent KL, and cloning what was done in successful
    episodes, exploration noise included. In the study, after 5,120 episodes of the quickstart's
    task, the three together end 13 points above PPO alone and no higher than cloning alone (three
    seeds each, docs/results.md). One noisy step of each chunk in a minibatch costs a quarter of
    all four.
    The first iteration trains the value head only.
    """
    return TrainConfig(
        iterations=iterations,
        groups=32,
        initial_states=InitialStatesConfig(group=4),
        reward=SUCCESS,
        learn=("policy", "world", "clone"),
        learner=PPOConfig(lr=2e-4, batch=256, transitions=1, target_kl=0.06),
        world=WorldUpdateConfig(clone="executed", steps=40, actor_lr=5e-4, world_lr=1e-4),
    )


def quickstart() -> Config:
    """Button-press: two demonstrations, then online improvement, in minutes on two cores."""
    train = online(iterations=30)
    # Chosen on seeds 3 and 4 (LOG.md, 2026-11-29): own clips of the last four iterations or so,
    # since older ones teach what the policy has outgrown; and video SFT in every fourth step, which
    # spares a third of the time.
    world = replace(train.world, capacity=1536, video_every=4)
    return Config(
        name="quickstart",
        # the expert needs 60 to 73 control steps
        env=MetaWorldConfig(task="button-press", horizon=80),
        model=PICO,
        # noise that the actions of a chunk share moves the hand to one side, where independent
        # noise averages out (LOG.md, 2026-11-29)
        flow=replace(EXPLORE, correlation=0.8),
        data=DataConfig(episodes=2, heldout=12),
        sft=SFTConfig(steps=500),  # more steps on these two give little more: `demos-only`
        # an interrupted run does at most four iterations, a minute, again
        train=replace(train, world=world, save_every=5),
        rewards=RewardComparisonConfig(similarities=ALL),
        eval=EvalConfig(episodes=200, every=10, during=50, choose=50),
    )


def actor_only() -> Config:
    """Control: as quickstart, but only the actor's policy gradient on sparse success (piRL)."""
    return _variant("actor-only", learn=("policy",))


def actor_clone() -> Config:
    """Control: as quickstart without the world model's half: policy gradient and cloning."""
    return _variant("actor-clone", learn=("policy", "clone"))


def joint() -> Config:
    """As quickstart without cloning: the paper's two halves, on sparse success, with our rates."""
    return _variant("joint", learn=("policy", "world"))


def world_only() -> Config:
    """Control: as quickstart, but only the video SFT of the world model, with latent KL."""
    return _variant("world-only", learn=("world",))


def clone_successes() -> Config:
    """Control: the actor only clones its own successes: no RL, no video SFT; else quickstart."""
    return _variant("clone-successes", learn=("clone",))


def demos_only() -> Config:
    """Control: only trained longer, on the demonstrations: no RL, no own data; else quickstart."""
    world = replace(quickstart().train.world, demo_share=1.0)
    return _variant("demos-only", learn=("world", "clone"), world=world)


def paper() -> Config:
    """As the paper says: reconstruction reward, plain SDE, no cloning; else as quickstart."""
    reward = RewardConfig(mode="paper")
    cfg = _variant("paper", reward=reward, learn=("policy", "world"))
    return replace(cfg, flow=replace(cfg.flow, sde="plain"))


def grpo() -> Config:
    """As quickstart, with group-relative advantages instead of a value head."""
    return _variant("grpo", learner=GRPOConfig(lr=2e-4, batch=256, transitions=1, target_kl=0.06))


def _variant(name: str, **train) -> Config:
    cfg = quickstart()
    return replace(cfg, name=name, train=replace(cfg.train, **train))
