"""What a plan says is what a real run has: weights to the last one, memory to a few per cent."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.support import remembering
from tests.support.small_plan import small_plan
from wamrl import cli
from wamrl.models.check import probe
from wamrl.models.lora import LoRAConfig
from wamrl.recipes.wan import wan22_5b
from wamrl.runs.demonstrations import env_spec
from wamrl.runs.plan import JOINED, Planner
from wamrl.runs.savings import alternatives, sharded
from wamrl.sft import SFT

pytest.importorskip("diffusers", reason="needs pip install -e '.[diffusers]'")
torch.set_num_threads(1)
GIB = 2**30


@pytest.fixture(scope="module")
def env():
    return env_spec(small_plan())


@pytest.fixture(scope="module")
def needs(env):
    return Planner(small_plan(), env).needs(1)


def built(cfg, env):
    return cfg.model.build(
        views=len(env.views),
        image_hw=env.image_hw,
        action_dim=env.action_dim,
        proprio_dim=env.proprio_dim,
        bounds=env.bounds,
    )


def peak(run) -> int:
    """Most bytes that torch's allocator had given out at once since the beginning."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        run()
    now = 0
    most = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most


def test_parts_are_counted_to_the_last_weight(env, needs):
    wam = built(small_plan(), env)
    counted = {part.name: part.weights for part in needs.parts}
    for name, child in wam.world.named_children():
        assert counted[f"world: {name}"] == sum(p.numel() for p in child.parameters())
    assert counted["actor"] == sum(p.numel() for p in wam.actor.parameters())
    assert needs.disk["a model"] == sum(value.nbytes for value in wam.state_dict().values())


@pytest.mark.parametrize(
    ("compute", "recompute", "microbatch"),
    [
        ("float32", False, 0),
        ("float32", True, 2),
        ("bfloat16", False, 2),
        ("bfloat16", True, 0),
    ],
)
def test_fine_tuning_takes_what_was_said(env, compute, recompute, microbatch):
    """Two real steps, everything included, against the estimate: within 3 %."""
    cfg = small_plan()
    world = replace(cfg.model.world, recompute=recompute)
    cfg = replace(cfg, model=replace(cfg.model, world=world, compute=compute))
    cfg = replace(cfg, sft=replace(cfg.sft, microbatch=microbatch, batch=4))
    estimate = Planner(cfg, env)._sft(1)

    def train() -> None:
        wam = built(cfg, env)
        clip = probe(wam)[torch.zeros(4, dtype=torch.long)]
        state = SFT(wam, cfg.sft, seed=0)
        for _ in range(2):
            state.step(lambda batch, generator, rows: clip[rows])

    measured = peak(train)
    assert estimate.total == pytest.approx(measured, rel=0.03)
    assert estimate.held["activations"] > 0.2 * measured  # it is no sum of weights alone


def test_moments_and_copies_are_those_of_a_real_state(env, needs):
    cfg = small_plan()
    wam = built(cfg, env)
    clip = probe(wam)[torch.zeros(4, dtype=torch.long)]
    state = SFT(wam, cfg.sft, seed=0)
    state.step(lambda batch, generator, rows: clip[rows])
    moments = state.optimizer.state_dict()["state"].values()
    real = sum(v.nbytes for m in moments for k, v in m.items() if k != "step")
    said = needs.phases[0].held
    assert said["optimiser"] == real
    copies = [*state.average.parameters(), *state.average.buffers()]
    assert said["copies"] == sum(value.nbytes for value in copies)


def test_features_that_are_kept_follow_the_limit(env, needs):
    cfg = small_plan()
    acts = {phase.name: phase for phase in needs.phases}
    one = acts["score"].held["features"] / needs.decisions
    wam = built(cfg, env)
    obs = probe(wam).obs
    features = wam.features(wam.encode(obs), torch.arange(3))
    assert one == features.nbytes / 3
    assert acts["act"].held["features"] == JOINED * acts["score"].held["features"]
    none = replace(cfg, train=replace(cfg.train, cache_mb=0.001))
    assert Planner(none, env)._kept(1) == (1000, 0)


def test_old_log_probabilities_cost_a_pass_where_they_are_computed_again(env):
    cfg = small_plan()
    planner = Planner(cfg, env)

    def work(old_log_prob: str, **train: float) -> float:
        learner = replace(cfg.train.learner, old_log_prob=old_log_prob)
        train = replace(cfg.train, learner=learner, **train)
        phases = planner.like(replace(cfg, train=train)).needs(1).phases
        return next(phase.flops for phase in phases if phase.name == "actor")

    assert work("auto") == work("rollout") < work("recomputed")  # in float32 nothing drifts
    once = work("recomputed") - work("rollout")
    read_again = work("recomputed", cache_mb=0.0) - work("rollout", cache_mb=0.0)
    assert read_again > 2 * once  # the features, too: most of the work of a decision


@pytest.mark.parametrize("learn", [("world", "clone"), ("world",), ("clone",)], ids="+".join)
def test_steps_without_video_cost_less(env, learn):
    cfg = small_plan()
    planner = Planner(replace(cfg, train=replace(cfg.train, learn=learn)), env)

    def work(steps: int, video_every: int) -> float:
        train = planner.cfg.train
        world = replace(train.world, steps=steps, video_every=video_every)
        needs = planner.like(replace(planner.cfg, train=replace(train, world=world))).needs(1)
        return next(phase.flops for phase in needs.phases if phase.name == "world")

    whole = work(1, 1)
    without_video = work(2, 2) - whole
    assert work(8, 1) == pytest.approx(8 * whole)
    assert work(8, 4) == pytest.approx(2 * whole + 6 * without_video)
    if learn == ("world",):  # they are left out
        assert without_video == 0
    elif learn == ("clone",):  # no step has any
        assert without_video == pytest.approx(whole)
    else:
        assert 0 < without_video < whole / 2


def test_what_is_remembered_is_counted(env):
    """A clip has five histories of frames where four decisions are remembered."""
    cfg = small_plan()
    planner = Planner(cfg, env)
    remembers = planner.like(replace(cfg, model=replace(cfg.model, world=remembering.WORLD)))
    past = len(cfg.model.history_offsets)
    frames = past + len(cfg.model.frame_offsets)
    one, other = (p.needs(1).host["clips"] for p in (planner, remembers))
    assert other / one == pytest.approx((frames + 4 * past) / frames)


def test_ranks_share_what_is_sharded(env, needs):
    one = needs.phases[0].held
    two = Planner(sharded(small_plan()), env)._sft(2).held
    actor = next(part.weights for part in needs.parts if part.name == "actor")
    for row, extra in (("gradients", 4 * actor), ("optimiser", 8 * actor)):
        assert two[row] - extra == pytest.approx((one[row] - extra) / 2)
    assert two["gathered"] > 0 and "gathered" not in one
    plain = Planner(small_plan(), env)._tuning(2)
    assert plain["weights"] == one["weights"]


def of_5b(env, **world):
    """The spec of a camera of 256 pixels, and the recipe for it."""
    cfg = wan22_5b()
    spec = replace(env, image_hw=(256, 256))
    return Planner(
        replace(cfg, model=replace(cfg.model, world=replace(cfg.model.world, **world))), spec
    )


def test_five_billion_weights_do_not_learn_on_one_gpu_but_adapters_would_fit(env):
    planner = of_5b(env)
    assert sum(part.weights for part in planner.parts if "transformer" in part.name) == (
        4_999_787_712
    )
    assert not planner.fits(1, 80 * GIB)
    assert planner.least(1) > 90 * GIB
    adapters = of_5b(env, lora=LoRAConfig(rank=16))
    assert adapters.least(1) < 22 * GIB


def test_adapters_fit_where_all_weights_do_not(env):
    """Measured, at the width of the 5 B network and two of its blocks."""
    pytest.importorskip("peft", reason="needs pip install -e '.[lora]'")
    few = {"depth": 2, "taps": (1, 2)}
    limit = 6 * GIB
    assert not of_5b(env, **few).fits(1, limit)
    lora = of_5b(env, lora=LoRAConfig(rank=16), **few)
    assert lora._sft(1).total < limit


def test_what_would_save_memory_is_a_valid_run():
    found = alternatives(small_plan())
    assert any("--model.world.recompute" in option for option in found)
    assert any("--model.world.lora.rank" in option for option in found)
    for cfg in found.values():
        cfg.validate()
    assert list(found)[-1].count("--") > 2  # all of them together


def test_the_verb_prints_and_refuses(capsys):
    recipe = "tests.support.small_plan:small_plan"
    with pytest.raises(SystemExit) as stop:
        cli.main(["plan", recipe, "--tflops", "1", "--gpu-memory-gib", "0.001"])
    assert stop.value.code == 1
    out, said = capsys.readouterr()
    for word in ("world: transformer", "activations", "checkpoint", "estimate: TFLOP /"):
        assert word in out
    assert "small-plan cannot fit: its phase" in said
    assert said.count("\n") == 1
