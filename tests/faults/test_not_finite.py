"""NaN and infinity, wherever they enter: one sentence says where, and nothing of them is saved."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.support import tiny
from wamrl.models.saved import load_state, load_wam, save_wam
from wamrl.online.state import TrainingState
from wamrl.pool.pool import Pool
from wamrl.rewards.base import Similarity
from wamrl.rewards.pixels import PixelConfig, PixelMSE
from wamrl.rewards.reward import RewardConfig
from wamrl.rl.ppo import PPO
from wamrl.runtime import checkpoint
from wamrl.runtime.log import Logger, new_run
from wamrl.sft import SFT, fine_tune
from wamrl.train import improve
from wamrl.types import Clip

SPEC = tiny.ENV.build().spec


@pytest.fixture(scope="module")
def pool():
    with tiny.CONFIG.build_pool() as pool:
        yield pool


class BrokenMSE(PixelMSE):
    """Infinite where nothing moves."""

    def distance(self, a: Tensor, b: Tensor, last: Tensor) -> Tensor:
        return super().distance(a, b, last) / 0.0


@dataclass(frozen=True, kw_only=True)
class BrokenConfig(PixelConfig):
    def build(self) -> Similarity:
        return BrokenMSE()


def spoil(module: nn.Module) -> None:
    """One number of a gradient of the module becomes NaN; the losses stay what they are."""
    weight = next(p for p in module.parameters() if p.requires_grad and p.dim() > 1)

    def one(gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        gradient.view(-1)[0] = torch.nan
        return gradient

    weight.register_hook(one)


def nan_actions(state: TrainingState) -> None:
    state.wam.actor.head.bias.data[0] = torch.nan


def infinite_baseline(state: TrainingState) -> None:
    """An advantage without end, from a critic without one."""
    state.learner.critic.head.register_forward_hook(lambda head, inputs, value: value * torch.inf)


ENTER = {
    "policy gradient": (lambda s: spoil(s.wam.actor), {"learn": ("policy",)}, "learner.lr"),
    "clone gradient": (lambda s: spoil(s.wam.actor), {"learn": ("clone",)}, "world.actor_lr"),
    "world gradient": (lambda s: spoil(s.wam.world), {"learn": ("world",)}, "world.world_lr"),
    "value gradient": (lambda s: spoil(s.learner.critic.head), {}, "learner.value_lr"),
    "value": (infinite_baseline, {}, "value head: the loss is not finite"),
    "reward": (
        lambda s: None,
        {"reward": RewardConfig(similarity=BrokenConfig())},
        r"reward: the similarity pixel is not finite at \d+ of \d+ chunks: try it with `wamrl",
    ),
    "actions": (nan_actions, {}, "actions contain NaN or infinity: the policy has diverged"),
}


@pytest.mark.parametrize("kind", ENTER)
def test_in_the_online_loop(kind, pool: Pool, tmp_path):
    """It comes after a checkpoint, which is all that there is afterwards."""
    enter, changes, words = ENTER[kind]
    cfg = tiny.train_config(iterations=2, **changes)
    cfg = replace(cfg, eval=replace(cfg.eval, every=0))
    run = new_run(tmp_path, "nan", cfg)
    state = TrainingState(cfg, tiny.lively(), tiny.demos(), SPEC.horizon)
    if isinstance(state.learner, PPO):
        state.learner.updates = 1  # its value head is warm
    saved = checkpoint.save_step(run, 0, state.state_dict(), state.buffer.own_state())
    before = content(run)
    enter(state)
    with Logger(run) as logger, pytest.raises((FloatingPointError, ValueError), match=words) as e:
        improve(state, pool, run, logger, before={"successes": 0, "episodes": 1})
    assert "\n" not in str(e.value)
    assert content(run) == before and checkpoint.latest(run) == saved
    if "gradient" in kind:  # it has spoilt no weight
        assert all(p.isfinite().all() for p in state.wam.parameters())


def content(run: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in (run / "checkpoints").rglob("*") if p.is_file()}


def test_in_demonstrations_or_their_gradients(tmp_path):
    run = new_run(tmp_path, "nan", tiny.CONFIG)
    cfg = replace(tiny.CONFIG.sft, steps=8, save_every=1)
    good = tiny.demos().sample

    def bad(batch: int, generator: torch.Generator, part: slice) -> Clip:
        clip = good(batch, generator, part)
        return replace(clip, actions=clip.actions * torch.nan)

    for sample, words in ((bad, "sft: step 2: the loss"), (good, "sft.lr: the gradient")):
        state = SFT(tiny.lively(), cfg, 0)
        for _ in range(2):
            state.step(good)
        if sample is good:
            spoil(state.wam.world)
        with Logger(run) as logger, pytest.raises(FloatingPointError, match=words):
            fine_tune(state, sample, run, logger)
        assert not (run / "checkpoints").exists()
        for model in (state.wam, state.average):
            assert all(p.isfinite().all() for p in model.parameters())


def test_in_a_model(tmp_path):
    """It is neither saved nor loaded."""
    wam = tiny.lively()
    folder = save_wam(tiny.MODEL, SPEC, wam, tmp_path, "base")
    wam.world.head.weight.data[1, 1] = -torch.inf
    with pytest.raises(FloatingPointError, match="cannot save the model: world.head.weight is not"):
        save_wam(tiny.MODEL, SPEC, wam, tmp_path, "base")
    assert all(weight.isfinite().all() for weight in load_state(folder)["wam"].values())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wamrl.models.saved._not_finite", lambda weights: "")
        save_wam(tiny.MODEL, SPEC, wam, tmp_path, "base")
    with pytest.raises(ValueError, match=r"does not fit the model \(world.head.weight is not fin"):
        load_wam(tiny.MODEL, SPEC, folder, seed=0, device="cpu")
