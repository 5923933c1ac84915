"""Studies of seconds: two easy tasks, two arms beside the base, two seeds."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tests.support import tiny
from tests.support.easy import EasyConfig
from wamrl.config import Config
from wamrl.diagnostics import DiagnosticsConfig
from wamrl.recipes.studies import ARMS, actor_success
from wamrl.rewards.pixels import PixelConfig
from wamrl.study import Arm, StudyConfig, StudyTask
from wamrl.study.claims import Claim

# drawing the diagnostics takes as long as everything else that an arm does here
TRAIN = replace(tiny.CONFIG.train, iterations=2, diagnostics=DiagnosticsConfig(enabled=False))


def study() -> StudyConfig:
    run = replace(tiny.CONFIG, train=TRAIN, eval=replace(tiny.CONFIG.eval, every=1))
    near, far = (replace(run, env=EasyConfig(radius=r)) for r in (0.6, 0.5))
    lengths = ((2, EasyConfig(radius=0.6, stages=2)),)
    return StudyConfig(
        name="tiny",
        seeds=(0, 1),
        jobs=2,
        tasks=(
            StudyTask(name="near", kind="short", config=near, lengths=lengths),
            StudyTask(name="far", kind="staged", config=far),
        ),
        arms=tuple(a for a in ARMS if a.name in ("actor_success", "wamrl")),
        claims=(Claim(number=3, text="joint helps", arm="wamrl", against="base"),),
    )


@dataclass(frozen=True, kw_only=True)
class BrokenConfig(PixelConfig):
    def build(self):
        raise RuntimeError("this arm is broken on purpose")


def crash(cfg: Config) -> Config:
    reward = replace(cfg.train.reward, mode="paper", similarity=BrokenConfig())
    return replace(actor_success(cfg), train=replace(cfg.train, reward=reward))


def broken() -> StudyConfig:
    """The first task and seed of `study`, with an arm that raises before one that does not."""
    whole = study()
    arms = (Arm(name="crash", tests="an error", change=crash), whole.arms[0])
    return replace(whole, tasks=whole.tasks[:1], seeds=(0,), arms=arms, claims=())
