"""Studies: which arms, on which tasks, for which claims. `wamrl study NAME`.

A study of one's own: a function that returns a `StudyConfig`,
mostly `dataclasses.replace` of one of these.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from wamrl.config import Config, DataConfig
from wamrl.envs.metaworld.env import MetaWorldConfig
from wamrl.envs.point import PointConfig
from wamrl.evaluate import EvalConfig
from wamrl.models.flow import FlowConfig
from wamrl.pool.pool import PoolConfig
from wamrl.recipes.metaworld import EXPLORE, PICO, online
from wamrl.recipes.point import point as point_run
from wamrl.recipes.rewards import ALL
from wamrl.recipes.robosuite import lift
from wamrl.reward_comparison import RewardComparisonConfig
from wamrl.rewards.base import SimilarityConfig
from wamrl.rewards.optical_flow import OpticalFlowConfig
from wamrl.sft import SFTConfig
from wamrl.study import Arm, StudyConfig, StudyTask
from wamrl.study.claims import KINDS, LONG, Claim

SHORT = ("short",)


def actor_success(cfg: Config) -> Config:
    """PPO on sparse success; the world model rests."""
    return _arm(cfg, "success", "policy")


def actor_recon(cfg: Config) -> Config:
    """PPO on the paper's reconstruction reward; the world model rests."""
    return _arm(cfg, "paper", "policy")


def video_sft(cfg: Config) -> Config:
    """Video SFT on own successes, with the latent KL; the actor rests."""
    return _arm(cfg, "success", "world")


def wamrl(cfg: Config) -> Config:
    """The whole method: PPO on success, video SFT, cloning of own successes."""
    return _arm(cfg, "success", "policy", "world", "clone")


def joint(cfg: Config) -> Config:
    """The whole method without cloning."""
    return _arm(cfg, "success", "policy", "world")


def actor_clone(cfg: Config) -> Config:
    """The actor alone: PPO on success and cloning of own successes."""
    return _arm(cfg, "success", "policy", "clone")


def wamrl_no_kl(cfg: Config) -> Config:
    """The whole method without the latent KL."""
    return _world(wamrl(cfg), kl=0.0)


def wamrl_paper(cfg: Config) -> Config:
    """As the paper says: reconstruction reward, plain SDE, no cloning."""
    cfg = _arm(cfg, "paper", "policy", "world")
    return replace(cfg, flow=replace(cfg.flow, sde="plain"))


def bc_success(cfg: Config) -> Config:
    """Cloning of own successes alone."""
    return _arm(cfg, "success", "clone")


def demos_only(cfg: Config) -> Config:
    """Control: only trained longer, on the demonstrations."""
    return _world(_arm(cfg, "success", "world", "clone"), demo_share=1.0)


def _arm(cfg: Config, reward: str, *learn: str) -> Config:
    """What learns, and from which reward; everything else as in the task's config."""
    train = cfg.train
    return replace(
        cfg, train=replace(train, reward=replace(train.reward, mode=reward), learn=learn)
    )


def _world(cfg: Config, **changes) -> Config:
    return replace(cfg, train=replace(cfg.train, world=replace(cfg.train.world, **changes)))


def _scored_by(cfg: Config, change, similarity: SimilarityConfig) -> Config:
    cfg = change(cfg)
    return replace(
        cfg, train=replace(cfg.train, reward=replace(cfg.train.reward, similarity=similarity))
    )


ARMS = (
    Arm(
        name="actor_success",
        tests="actor-only RL: PPO on sparse success (piRL)",
        change=actor_success,
    ),
    Arm(
        name="actor_recon",
        tests="actor-only RL: PPO on the paper's reconstruction reward",
        change=actor_recon,
    ),
    Arm(
        name="video_sft",
        tests="the world model alone: video SFT on successes, with KL",
        change=video_sft,
    ),
    Arm(
        name="bc_success",
        tests="no RL, no video: the actor clones its own successes",
        change=bc_success,
    ),
    Arm(
        name="demos_only",
        tests="no online data: as many SFT steps on the demonstrations",
        change=demos_only,
    ),
    Arm(
        name="wamrl_paper",
        tests="the paper's joint method: reconstruction, plain SDE",
        change=wamrl_paper,
    ),
    Arm(
        name="joint", tests="PPO on sparse success and video SFT with KL, no cloning", change=joint
    ),
    Arm(
        name="actor_clone",
        tests="ours without the world model: PPO and cloning",
        change=actor_clone,
    ),
    Arm(name="wamrl", tests="ours: PPO, video SFT with KL, cloning of successes", change=wamrl),
    Arm(name="wamrl_no_kl", tests="ours without the KL", change=wamrl_no_kl),
)
# What the claims about long tasks need.
LONG_ARMS = (
    "actor_success",
    "joint",
    "wamrl",
    "actor_clone",
    "actor_recon",
    "wamrl_paper",
    "demos_only",
)

CLAIMS = (
    *(
        Claim(
            number=1,
            text="actor-only RL helps the short task",
            arm=arm,
            against="base",
            kinds=SHORT,
        )
        for arm in ("actor_success", "actor_recon")
    ),
    *(
        Claim(
            number=2,
            text="actor-only RL does not help the long tasks",
            arm=arm,
            against="base",
            kinds=LONG,
            expects="no gain",
        )
        for arm in ("actor_success", "actor_recon")
    ),
    *(
        claim
        for arm in ("wamrl_paper", "joint", "wamrl")
        for claim in (
            Claim(
                number=3,
                text="joint optimisation helps the short task",
                arm=arm,
                against="base",
                kinds=SHORT,
            ),
            Claim(
                number=4,
                text="joint optimisation helps the long tasks",
                arm=arm,
                against="base",
                kinds=LONG,
            ),
            Claim(
                number=5,
                text="joint beats actor-only on long tasks",
                arm=arm,
                against="actor_success",
                kinds=LONG,
            ),
        )
    ),
    Claim(number=6, text="the KL helps", arm="wamrl", against="wamrl_no_kl"),
    Claim(
        number=8,
        text="online data beat as many SFT steps on the demonstrations",
        arm="wamrl",
        against="demos_only",
    ),
    Claim(
        number=9,
        text="RL and video SFT add to cloning own successes",
        arm="wamrl",
        against="bc_success",
    ),
    Claim(number=10, text="video SFT adds to RL and cloning", arm="wamrl", against="actor_clone"),
)


def reward_arms(rewards: dict[str, SimilarityConfig]) -> tuple[Arm, ...]:
    """The reconstruction reward alone, by another similarity than pixels."""
    return tuple(
        Arm(
            name=f"actor_recon_{name}",
            tests=f"actor_recon with {name} in place of pixels",
            change=partial(_scored_by, change=actor_recon, similarity=similarity),
        )
        for name, similarity in rewards.items()
    )


def reward_claims(rewards: dict[str, SimilarityConfig]) -> tuple[Claim, ...]:
    """The paper's seventh: pixels are the best reward; one sentence per other reward."""
    return tuple(
        Claim(
            number=7,
            text=f"pixels are a better reward than {name}",
            arm="actor_recon",
            against=f"actor_recon_{name}",
            kinds=KINDS,
        )
        for name in rewards
    )


def _study(
    name: str, tasks: tuple[StudyTask, ...], rewards: dict[str, SimilarityConfig]
) -> StudyConfig:
    """Of all arms and claims those that these tasks can run and decide."""

    def testable(claim: Claim) -> bool:
        of_kind = [task for task in tasks if task.kind in claim.kinds]
        return any(task.runs(claim.arm) and task.runs(claim.against) for task in of_kind)

    arms = ARMS + reward_arms(rewards)
    claims = CLAIMS + reward_claims(rewards)
    return StudyConfig(
        name=name,
        tasks=tasks,
        arms=tuple(arm for arm in arms if any(task.runs(arm.name) for task in tasks)),
        claims=tuple(sorted(filter(testable, claims), key=lambda claim: claim.number)),
    )


def press_once() -> Config:
    """The study's short task: press the button; two demonstrations."""
    env = MetaWorldConfig(task="button-press", horizon=80)
    return _task("press-once", env, demos=2, sft=500)


def hammer() -> Config:
    """The study's multi-phase task: grasp the hammer, drive the nail in; six demonstrations."""
    return _task("hammer", MetaWorldConfig(task="hammer", horizon=150), demos=6, sft=600)


def press_thrice() -> Config:
    """The study's staged task: press three buttons, one after another; four demonstrations."""
    flow = FlowConfig(noise=0.4, noise_end=0.2)
    return _task("press-thrice", _presses(3), demos=4, sft=600, flow=flow)


def _presses(count: int) -> MetaWorldConfig:
    return MetaWorldConfig(task="button-press", stages=count, horizon=80 * count)


def metaworld() -> StudyConfig:
    """The paper's claims on MetaWorld: a short, a multi-phase and a staged task, three seeds.

    The models of the staged task, trained on three presses, are evaluated on one, two and four too.
    Optical flow in place of pixels runs on the short task only, where a cell costs least.
    """
    tasks = (
        StudyTask(name="press-once", kind="short", config=press_once()),
        StudyTask(name="hammer", kind="multi-phase", config=hammer(), arms=LONG_ARMS),
        StudyTask(
            name="press-thrice",
            kind="staged",
            config=press_thrice(),
            arms=LONG_ARMS,
            lengths=tuple((k, _presses(k)) for k in (1, 2, 4)),
        ),
    )
    return _study("metaworld", tasks, {"flow": OpticalFlowConfig()})


def robosuite() -> StudyConfig:
    """Another simulator: robosuite's lift from a weak base, actor-only and ours."""
    base = lift()
    config = replace(
        base,
        data=replace(base.data, episodes=20),
        sft=SFTConfig(steps=400),  # 30 of 100 at an earlier commit: room both ways
        eval=EvalConfig(episodes=200, every=10, during=50, choose=50),
        pool=PoolConfig(n_workers=1),
    )
    tasks = (StudyTask(name="lift", kind="short", config=config, arms=("actor_success", "wamrl")),)
    return _study("robosuite", tasks, {})


def _task(
    name: str, env: MetaWorldConfig, *, demos: int, sft: int, flow: FlowConfig = EXPLORE
) -> Config:
    """What the base learns from, and one budget and one set of rates for all arms.

    5,120 episodes an arm. Noise 0.5 in all steps, quiet enough to be cloned. The longer a task, the
    less noise it bears: at 1.0 the exploring policy of press-thrice starts at 0.36 where the ODE
    has 0.85, hence 0.4 to 0.2 there (LOG.md, 2026-11-27). One simulator process, since a cell has
    one core.
    """
    return Config(
        name=name,
        env=env,
        model=PICO,
        flow=flow,
        data=DataConfig(episodes=demos, heldout=12),
        sft=SFTConfig(steps=sft),
        train=online(iterations=40),
        rewards=RewardComparisonConfig(similarities=ALL),
        eval=EvalConfig(episodes=200, every=10, during=50, choose=50),
        pool=PoolConfig(n_workers=1),
    )


def point() -> StudyConfig:
    """The same arms on the point mass, one and three goals: minutes, to see a whole study."""
    run = replace(point_run(), sft=replace(point_run().sft, steps=100))
    staged = replace(run, env=PointConfig(stages=3))
    tasks = (
        StudyTask(name="point-1", kind="short", config=_sized(run, evaluated=50)),
        StudyTask(name="point-3", kind="staged", config=_sized(staged, evaluated=50)),
    )
    return _study("point", tasks, {})


def _sized(cfg: Config, *, evaluated: int) -> Config:
    """A cell has one core: one simulator process, which works while the model waits."""
    return replace(cfg, eval=EvalConfig(episodes=evaluated), pool=replace(cfg.pool, n_workers=1))
