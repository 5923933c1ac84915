"""The online loop: resume is bitwise, the halves switch off,
the latent KL starts at zero, nothing crashes at 0 %.
"""

import copy
import math
from dataclasses import replace

import pytest
import torch

from tests.support import remembering, tiny
from wamrl.config import Config, TrainConfig
from wamrl.diagnostics import DiagnosticsConfig
from wamrl.models.experts import BridgeConfig, PrefixConfig
from wamrl.models.flow import ode_sample, time_grid
from wamrl.models.joint import JointActorConfig, JointConfig
from wamrl.online.state import TrainingState
from wamrl.pool.pool import Pool
from wamrl.rewards.reward import RewardConfig
from wamrl.rl.grpo import GRPOConfig
from wamrl.rl.initial_states import InitialStatesConfig
from wamrl.rl.optim import RankedAdamW
from wamrl.rl.world_update import WorldUpdateConfig
from wamrl.rollout.samples import rare_success_weight, success_clips
from wamrl.runtime import checkpoint
from wamrl.train import iterate

HORIZON = 40
PPO = tiny.CONFIG.train.learner
GRPO = GRPOConfig(epochs=PPO.epochs, batch=PPO.batch)
WORLD = tiny.CONFIG.train.world
JOINT = ("policy", "world")
LATE = replace(tiny.MODEL, world=replace(tiny.MODEL.world, feature_sigma=0.5))
ONE_TRANSFORMER = replace(
    tiny.MODEL,
    world=JointConfig(width=32, depth=2, heads=2, patch=8),
    actor=JointActorConfig(hidden=32),
)


def begun(cfg: Config = tiny.CONFIG, seed: int = 0) -> TrainingState:
    demos = tiny.demos(cfg.model.world.past)
    return TrainingState(cfg, tiny.lively(seed, cfg.model), demos, HORIZON)


def iterated(state: TrainingState, pool: Pool) -> dict[str, float]:
    """The metrics of one iteration."""
    return iterate(state, pool)[0]


@pytest.fixture(scope="module")
def pool():
    with tiny.CONFIG.build_pool() as pool:
        yield pool


VARIANTS = {
    "ppo-composite": tiny.CONFIG,
    "warm-up": tiny.train_config(learner=replace(PPO, value_warmup=2)),
    "grpo-success": tiny.train_config(learner=GRPO, reward=RewardConfig(mode="success"), groups=6),
    "paper-ema": tiny.train_config(
        reward=RewardConfig(mode="paper", scorer="ema"),
        learn=JOINT,
        ema=0.5,
    ),
    "world-only": tiny.train_config(learn=("world",)),
    "all-noisy, denoised features, small buffer": replace(
        tiny.train_config(world=replace(WORLD, capacity=10), reward=RewardConfig(scorer="frozen")),
        model=LATE,
        flow=replace(tiny.CONFIG.flow, noisy="all", shift=2.0),
    ),
    "bridge": replace(tiny.CONFIG, model=replace(tiny.MODEL, actor=BridgeConfig())),
    "prefix": replace(tiny.CONFIG, model=replace(tiny.MODEL, actor=PrefixConfig())),
    "remembers, features again, ema": replace(
        tiny.train_config(cache_mb=0.0, reward=RewardConfig(mode="paper", scorer="ema")),
        model=remembering.MODEL,
    ),
    "joint, whose policy trains the trunk": replace(
        tiny.train_config(learner=replace(PPO, shared=True)), model=ONE_TRANSFORMER
    ),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_resumed_run_is_bitwise_the_uninterrupted_one(name, pool, tmp_path):
    cfg = VARIANTS[name]
    straight = begun(cfg)
    for _ in range(2):
        iterated(straight, pool)
    checkpoint.save(tmp_path / "step", straight.state_dict(), straight.buffer.own_state())
    whole = [iterated(straight, pool) for _ in range(2)]
    torch.randn(7)  # the global generator is nobody's state
    resumed = begun(cfg, seed=5)
    assert tiny.difference(resumed.state_dict(), straight.state_dict())
    resumed.load_state_dict(
        checkpoint.load(tmp_path / "step"), checkpoint.load_parts(tmp_path / "step")
    )
    again = [iterated(resumed, pool) for _ in range(2)]
    assert tiny.difference(straight.state_dict(), resumed.state_dict()) is None
    assert tiny.difference(straight.buffer.own_state(), resumed.buffer.own_state()) is None
    for a, b in zip(whole, again, strict=True):
        # repr, because an undefined AUC is NaN, and NaN does not equal itself
        assert {k: repr(v) for k, v in a.items() if not k.startswith("time/")} == {
            k: repr(v) for k, v in b.items() if not k.startswith("time/")
        }
    assert straight.iteration == 4 and len(straight.buffer) > 0


@pytest.mark.parametrize("mode", ["success", "composite"])
def test_diagnostics_do_not_change_the_training(mode, pool):
    """Weights, optimisers,
    statistics and random streams are bitwise the same with and without them.
    """
    states = []
    for enabled in (True, False):
        run = begun(
            tiny.train_config(
                reward=RewardConfig(mode=mode),
                diagnostics=DiagnosticsConfig(enabled=enabled, chunks=9),
            )
        )
        torch.manual_seed(0)
        metrics = [iterated(run, pool) for _ in range(2)]
        assert any(k.startswith("diag/") for k in metrics[0]) == enabled
        states.append(
            {k: v for k, v in run.state_dict().items() if k != "diagnostics"}
            | {"torch": torch.rand(3)}
        )
    assert tiny.difference(*states) is None


def test_the_saved_state_is_complete():
    """Every piece of the issue's list is in it:
    weights, optimisers, RNG, clip buffer, EMA, normalisers.
    """
    state = begun().state_dict()
    assert {
        "wam",
        "frozen",
        "average",
        "initial_states",
        "reward",
        "learner",
        "world",
        "buffer",
        "generator",
        "sampler",
        "best",
    } <= state.keys()
    assert {"policy", "critic", "updates"} == state["learner"].keys()
    assert {"head", "optimizer"} == state["learner"]["critic"].keys()
    assert {"optimizer", "rate", "steps"} == state["learner"]["policy"].keys()
    assert {"world_optimizer", "actor_optimizer"} <= state["world"].keys()
    assert {"norm.count", "norm.mean", "norm.m2"} == state["reward"].keys()
    assert {"normalize.state_shift", "normalize.action_scale"} <= state["wam"].keys()
    assert {"kl", "kl_weight", "calibrated"} <= state["world"].keys()
    assert {"var", "var_old"} == state["world"]["kl"].keys()


def test_the_first_ratio_is_one_in_the_real_loop(pool):
    run = begun()
    for _ in range(3):
        metrics = iterated(run, pool)
        assert metrics["actor/first_log_ratio"] < 1e-4 and metrics["actor/grad_norm"] > 0


def test_an_actor_that_changes_between_rollout_and_update_is_noticed(pool):
    run = begun()
    plain = run.score

    def meddle(rollout, metrics):
        run.wam.actor.head.bias.data += 1e-2
        return plain(rollout, metrics)

    run.score = meddle
    with pytest.raises(RuntimeError, match="before the first update"):
        iterated(run, pool)


def test_the_latent_kl_is_zero_at_the_start_and_grows(pool):
    run = begun(tiny.train_config(learn=JOINT, world=replace(WORLD, steps=1, world_lr=1e-3)))
    taps = run.wam.spec.taps
    metrics = [iterated(run, pool) for _ in range(3)]
    seen = [m for m in metrics if "world/video_loss" in m]
    assert len(seen) >= 2
    assert (
        all(seen[0][f"world/kl_mean/{tap}"] == 0 for tap in taps)
        and seen[0]["world/kl_variance"] == 0
    )
    assert all(m["world/kl_gradient_share"] > 0 for m in seen), "measured where there is drift"
    assert (
        all(seen[1][f"world/kl_mean/{tap}"] > 0 for tap in taps)
        and seen[1]["world/kl_variance"] > 0
    )


@pytest.mark.parametrize("learn", [("world", "clone"), ("world",)], ids="+".join)
def test_the_world_model_may_learn_in_every_third_step(learn):
    """Of 7 steps in the first, fourth and seventh, cloning in all."""
    world = replace(WORLD, steps=7, video_every=3)
    run = begun(tiny.train_config(learn=learn, world=world))
    (metrics,) = held(run)
    assert taken(run.world.world_optimizer) == 3
    assert run.world.world_optimizer.rate == pytest.approx(world.world_lr / 7)
    assert taken(run.world.actor_optimizer) == (7 if "clone" in learn else 0)
    every = begun(tiny.train_config(learn=learn, world=replace(world, video_every=1)))
    (usual,) = held(every)
    assert metrics.keys() == usual.keys()
    # a mean over the steps that have it
    assert metrics["world/video_loss"] == pytest.approx(usual["world/video_loss"], rel=0.5)


def taken(optimizer: RankedAdamW) -> int:
    """The steps of an optimiser so far."""
    return max((int(m["step"]) for m in optimizer.moments.values()), default=0)


def test_a_trunk_that_cloning_trains_learns_in_every_step():
    with pytest.raises(ValueError, match="shared=True every step trains .* leave video_every at 1"):
        replace(WORLD, shared=True, video_every=2).validate()


def test_the_leash_holds(pool):
    """The same steps with a strong KL end nearer to the pretrained features."""
    drift = {}
    for strength in (0.0, 100.0):
        run = begun(
            tiny.train_config(
                learn=JOINT, world=replace(WORLD, steps=15, world_lr=1e-3, kl=strength)
            )
        )
        sample = run.demos.sample
        run.world.update(run.wam, sample, sample, torch.Generator().manual_seed(0))
        clip = sample(64, torch.Generator().manual_seed(1))
        z, old = (
            w.features(w.encode(clip.obs), torch.arange(64)).detach() for w in (run.wam, run.frozen)
        )
        drift[strength] = run.world.kl(z, old)[0].mean().item()
    assert 0 < drift[100.0] < 0.5 * drift[0.0]


def held(run: TrainingState, updates: int = 1, seed: int = 0) -> list[dict[str, float]]:
    """The metrics of some updates on demonstrations."""
    generator = torch.Generator().manual_seed(seed)
    sample = run.demos.sample
    return [run.world.update(run.wam, sample, sample, generator) for _ in range(updates)]


def test_the_share_of_the_kl_in_the_gradient_is_logged():
    """Against the two gradients by hand, on the batch and the noise of the update's last step."""
    world = replace(WORLD, steps=1, world_lr=1e-3, demo_share=1.0, microbatch=3)
    world = replace(world, kl=3.0, kl_share=None)
    run = begun(tiny.train_config(learn=JOINT, world=world))
    metrics = held(run)[0]
    g = torch.Generator().manual_seed(0)
    clip = run.demos.sample(world.batch, g)
    of_video, of_features, _ = torch.randint(2**62, (3, world.batch), generator=g)
    context = run.wam.encode(clip.obs)
    video = run.wam.video_loss(clip, context, of_video).mean()
    old = run.frozen.features(run.frozen.encode(clip.obs), of_features)
    kl = run.world.kl(run.wam.features(context, of_features), old).mean()
    weights = list(run.wam.world.parameters())
    options = {"retain_graph": True, "materialize_grads": True}
    push, pull = (
        torch.cat([g.flatten() for g in torch.autograd.grad(loss, weights, **options)]).norm()
        for loss in (video, kl)
    )
    expected = 3 * pull / (push + 3 * pull)
    assert 0.001 < expected < 0.999
    assert metrics["world/kl_gradient_share"] == pytest.approx(expected.item(), rel=1e-3)


def test_measuring_the_share_leaves_the_training_alone():
    """With lambda next to nothing, weights and random streams are those of a run without the KL."""
    ends = []
    for strength in (0.0, 1e-30):
        run = begun(tiny.train_config(world=replace(WORLD, kl=strength, kl_share=None)))
        assert all((m["world/kl_gradient_share"] > 0) == (strength > 0) for m in held(run, 2))
        ends.append(tiny.snapshot(run.wam) | {"next": torch.rand(3, generator=run.generator)})
    assert tiny.difference(*ends) is None


@pytest.mark.parametrize(("wanted", "reduction"), [(0.1, "mean"), (0.4, "mean"), (0.1, "sum")])
def test_the_kl_gets_the_share_that_was_asked_for(wanted, reduction):
    """On other clips than lambda was set on, whatever it was before; then it stays."""
    for strength in (1e-2, 10.0):
        world = replace(WORLD, steps=8, batch=64, kl=strength, kl_share=wanted)
        world = replace(world, kl_reduction=reduction)
        run = begun(tiny.train_config(learn=JOINT, world=world))
        first = held(run)[0]
        assert first["world/kl_weight"] == strength
        run.world.cfg = replace(run.world.cfg, world_lr=1e-12, steps=1)
        again = [held(run, seed=seed)[0] for seed in range(1, 6)]
        assert len({m["world/kl_weight"] for m in again}) == 1 != strength
        shares = sorted(m["world/kl_gradient_share"] for m in again)
        assert wanted / 1.5 < shares[2] < wanted * 1.5, shares


def test_without_a_wanted_share_lambda_stays():
    run = begun(tiny.train_config(world=replace(WORLD, kl=0.7, kl_share=None)))
    assert [m["world/kl_weight"] for m in held(run, 2)] == [0.7, 0.7]
    off = begun(tiny.train_config(world=replace(WORLD, kl=0.0)))
    assert {m["world/kl_weight"] for m in held(off, 2)} == {0.0}


def test_the_sum_is_the_mean_times_the_channels():
    """The same training, bitwise: the paper's sum over d needs a lambda that is D times smaller."""
    ends = []
    for strength, reduction in ((32.0, "mean"), (1.0, "sum")):
        world = replace(WORLD, steps=3, kl=strength, kl_reduction=reduction, kl_share=None)
        run = begun(tiny.train_config(world=world))
        assert run.wam.world.feature_dim == 32
        share = held(run, 2)[1]["world/kl_gradient_share"]
        ends.append(tiny.snapshot(run.wam) | {"share": torch.tensor(share)})
    assert ends[0]["share"] > 0
    assert tiny.difference(*ends) is None


def test_a_world_model_update_leaves_the_actors_ratio(pool):
    run = begun(tiny.train_config(learn=JOINT))
    rollout = tiny.explore(run.wam, pool, 12)
    with torch.no_grad():
        before = run.wam.log_prob(rollout.decisions.plan, tiny.CONFIG.flow)
        weights = tiny.snapshot(run.wam.world)
        run.buffer.append(success_clips(rollout, rare_success_weight(rollout)))
    run.world.update(run.wam, run.buffer.sample, run.demos.sample, run.generator)
    with torch.no_grad():
        assert torch.equal(run.wam.log_prob(rollout.decisions.plan, tiny.CONFIG.flow), before)
    assert tiny.changed(run.wam.world, weights)


@pytest.mark.parametrize(
    "learn", [("policy",), ("world",), ("clone",), ("policy", "world", "clone")], ids="+".join
)
def test_the_halves_switch_off_separately(learn, pool):
    run = begun(tiny.train_config(learn=learn))
    world, head, frozen = (tiny.snapshot(m) for m in (run.wam.world, run.wam.actor, run.frozen))
    metrics = [iterated(run, pool) for _ in range(2)]
    assert sum(m["rollout/success"] for m in metrics) > 0
    assert bool(tiny.changed(run.wam.world, world)) == ("world" in learn)
    assert bool(tiny.changed(run.wam.actor, head)) == ("policy" in learn or "clone" in learn)
    assert not tiny.changed(run.frozen, frozen)
    keys = set().union(*metrics)
    assert any(k.startswith("actor/") for k in keys) == ("policy" in learn)
    assert ("world/video_loss" in keys) == ("world" in learn)
    assert ("cotrain/action_loss" in keys) == ("clone" in learn)


def test_value_warm_up_leaves_the_actor(pool):
    run = begun(tiny.train_config(learn=("policy",), learner=replace(PPO, value_warmup=1)))
    before = tiny.snapshot(run.wam)
    iterated(run, pool)
    assert not tiny.changed(run.wam, before)
    iterated(run, pool)
    assert tiny.changed(run.wam, before)


@pytest.mark.parametrize("learner", [PPO, GRPO], ids=["ppo", "grpo"])
def test_without_any_success_training_goes_on(learner):
    cfg = replace(
        tiny.train_config(learner=learner),
        env=replace(tiny.ENV, radius=0.01, horizon=16),
    )
    with cfg.build_pool() as pool:
        run = TrainingState(cfg, tiny.lively(), tiny.demos(), 16)
        metrics = [iterated(run, pool) for _ in range(2)]
    assert all(m["rollout/success"] == 0 and m["buffer/clips"] == 0 for m in metrics)
    assert not any("world/video_loss" in m for m in metrics)
    assert any(k.startswith("actor/") for k in metrics[0]) == (learner is PPO)
    undefined = ("diag/auc", "diag/mean_success")  # NaN, as nothing has succeeded
    assert all(
        math.isfinite(v) for m in metrics for k, v in m.items() if not k.startswith(undefined)
    )


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoints(pool, tmp_path):
    run = begun()
    iterated(run, pool)
    path = checkpoint.save_step(tmp_path, 1, run.state_dict(), run.buffer.own_state())
    run.world.cfg = replace(WORLD, world_lr=1e30)
    with pytest.raises(
        FloatingPointError, match="world update: the loss is not finite; lower world.world_lr"
    ):
        for _ in range(3):
            run.world.update(run.wam, run.demos.sample, run.demos.sample, run.generator)
    assert checkpoint.latest(tmp_path) == path
    again = begun(seed=1)
    again.load_state_dict(checkpoint.load(path), checkpoint.load_parts(path))
    assert iterated(again, pool)["actor/first_log_ratio"] < 1e-4


def test_a_policy_of_nan_is_refused_in_words(pool):
    run = begun()
    run.wam.actor.head.bias.data.fill_(torch.nan)
    with pytest.raises(ValueError, match="the policy has diverged"):
        iterated(run, pool)


def test_co_training_reaches_the_world_model_only_if_shared():
    moved = {}
    for shared, clones in ((False, False), (False, True), (True, True)):
        learn = (*JOINT, "clone") if clones else JOINT
        run = begun(tiny.train_config(learn=learn, world=replace(WORLD, shared=shared, steps=1)))
        run.world.update(
            run.wam, run.demos.sample, run.demos.sample, torch.Generator().manual_seed(0)
        )
        moved[shared, clones] = tiny.snapshot(run.wam.world)
    assert tiny.difference(moved[False, False], moved[False, True]) is None
    assert tiny.difference(moved[False, True], moved[True, True])


def test_no_demonstration_is_mixed_in_if_none_is_wanted():
    run = begun(tiny.train_config(world=replace(WORLD, demo_share=0.0)))
    asked = []

    def sample(n, generator, part):
        asked.append(n)
        return run.demos.sample(n, generator, part)

    def never(n, generator, part):
        assert n == 0, "demonstrations were asked for"
        return run.demos.sample(n, generator, part)

    run.world.update(run.wam, sample, never, run.generator)
    assert asked == [8, 8]


@pytest.mark.parametrize("noisy", ["one", "all_but_last"])
def test_co_training_clones_what_the_acting_policy_does_without_noise(noisy, pool):
    """Of the actor before its update, although clips are kept after it; without the exploration."""
    cfg = tiny.train_config(learner=replace(PPO, lr=1e-2))
    cfg = replace(cfg, flow=replace(cfg.flow, noisy=noisy, noise=1.0))
    kept = {}
    for clone in ("noise_free", "executed"):
        run = begun(tiny.train_config(cfg, world=replace(WORLD, clone=clone)))
        acted = copy.deepcopy(run.wam)
        _, rollout = iterate(run, pool)
        won = rollout.decisions[rollout.success[rollout.decisions.episode]]
        kept[clone] = run.buffer.own_state()["data"]["actions"]
        assert 0 < len(won) == len(kept[clone])
    singles = [won[torch.tensor([i])] for i in range(len(won))]
    expected = torch.stack([ode_by_hand(acted, single, cfg.flow) for single in singles])
    assert torch.allclose(kept["noise_free"], expected, atol=1e-4)
    assert torch.equal(kept["executed"], won.plan.actions)
    assert (kept["executed"] - kept["noise_free"]).abs().mean() > 0.02


@torch.no_grad()
def ode_by_hand(wam, chunk, flow):
    """One chunk (N, A): the ODE from where the noise came in, as far as which there was none."""
    features = wam.features(wam.encode(chunk.obs), chunk.plan.seed)
    condition = wam.actor.condition(features, chunk.plan.proprio)
    grid = time_grid(flow.steps, flow.shift)[int(chunk.plan.chain_step[0, 0]) :]
    x = chunk.plan.chain_x[:, 0]
    x = ode_sample(lambda a, s: wam.actor.velocity(a, s, condition), x, grid)
    return wam.normalize.raw_actions(x, chunk.obs.proprio)[0]


def test_noise_free_chunks_do_not_need_the_cache(pool):
    run = begun()
    rollout = tiny.explore(run.wam, pool, 12)
    lean = replace(
        rollout, decisions=replace(rollout.decisions, plan=rollout.decisions.plan.drop_features())
    )
    kept, again = (r.noise_free(run.wam, tiny.CONFIG.flow, batch=5) for r in (rollout, lean))
    assert len(kept) and torch.allclose(kept, again, atol=1e-4)
    failed = replace(rollout, success=torch.zeros(12, dtype=torch.bool))
    none = failed.noise_free(run.wam, tiny.CONFIG.flow)
    assert none.shape == (0, *kept.shape[1:])


def test_own_clips_weigh_as_much_as_demonstrations():
    """However often their initial states are solved; and their share of the loss is logged."""
    states, shares = [], []
    for weight in (0.1, 1.0):
        world = replace(WORLD, demo_share=0.5, steps=4, batch=64)
        run = begun(tiny.train_config(learn=("clone",), world=world))

        def own(n, generator, part, weight=weight, sample=run.demos.sample):
            clip = sample(n, generator, part)
            return replace(clip, weight=torch.full((len(clip),), weight))

        generator = torch.Generator().manual_seed(0)
        metrics = run.world.update(run.wam, own, run.demos.sample, generator)
        states.append(tiny.snapshot(run.wam.actor))
        shares.append(metrics["cotrain/own_share"])
    assert all((states[0][k] - v).abs().max() < 1e-5 for k, v in states[1].items())
    assert shares == pytest.approx([0.5, 0.5], abs=0.1)  # the same kind of clips on both sides


@pytest.mark.parametrize("demo_share", [0.0, 1.0])
def test_the_own_share_is_all_or_nothing_where_there_is_one_kind(demo_share):
    run = begun(tiny.train_config(world=replace(WORLD, demo_share=demo_share)))
    metrics = run.world.update(run.wam, run.demos.sample, run.demos.sample, run.generator)
    assert metrics["cotrain/own_share"] == pytest.approx(1 - demo_share)


def test_co_training_is_off_unless_named():
    assert TrainConfig().learn == JOINT and WorldUpdateConfig().clone == "executed"


def test_rare_successes_weigh_most(pool):
    rollout = tiny.explore(tiny.lively(), pool, 4)
    rollout = replace(rollout, starts=[rollout.starts[0]] * 3 + [rollout.starts[3]])
    rollout = replace(rollout, success=torch.tensor([True, False, False, True]))
    assert torch.allclose(rare_success_weight(rollout), torch.tensor([1.1 - 1 / 3] * 3 + [0.1]))


def test_the_copy_ratio_is_one_for_a_model_that_copies(pool):
    run = TrainingState(tiny.CONFIG, tiny.fresh(), tiny.demos(), HORIZON)
    metrics = iterated(run, pool)
    assert metrics["world/copy_ratio/4"] == pytest.approx(1, abs=1e-3)
    assert metrics["world/copy_ratio/8"] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("cfg", "sentence"),
    [
        (replace(tiny.CONFIG, flow=replace(tiny.CONFIG.flow, noise=0.0)), "silently zero"),
        (tiny.train_config(iterations=0), "train.iterations=0 .* >= 1"),
        (
            tiny.train_config(
                learner=GRPOConfig(),
                initial_states=InitialStatesConfig(group=1),
            ),
            "group >= 2",
        ),
        (tiny.train_config(world=WorldUpdateConfig(demo_share=1.1)), "train.world.demo_share=1.1"),
        (tiny.train_config(world=WorldUpdateConfig(kl_share=1.0)), "train.world.kl_share=1.0"),
    ],
)
def test_impossible_settings_are_refused(cfg, sentence):
    with pytest.raises(ValueError, match=sentence):
        begun(cfg)


BUDGET = tiny.train_config(
    env_steps=3 * 260, initial_states=InitialStatesConfig(group=2, revisit=0.5, capacity=50)
)


@pytest.mark.parametrize("radius", [0.01, 0.55, 9.0], ids=["never solved", "sometimes", "at once"])
def test_the_whole_run_takes_its_budget_of_steps_whoever_plays(radius):
    cfg = replace(BUDGET, env=replace(tiny.ENV, radius=radius, horizon=20))
    cfg = tiny.train_config(cfg, learn=("clone",))
    with cfg.build_pool() as pool:
        run = TrainingState(cfg, tiny.lively(), tiny.demos(), 20)
        total = 0
        for k in range(1, 4):
            metrics = iterated(run, pool)
            total += metrics["rollout/steps"]
            assert metrics["rollout/steps_total"] == total == run.steps_used
            # what one iteration leaves, the next ones take
            assert 260 * k - 2 * 20 < total <= 260 * k
            assert metrics["rollout/episodes"] % 2 == 0
    fresh = run.initial_states.fresh
    tries = run.initial_states.tries
    assert (tries[:fresh] > 0).all() and not tries[fresh:].any(), "a start was skipped"


def test_under_a_budget_a_resumed_run_is_bitwise_the_uninterrupted_one(pool, tmp_path):
    for algorithm, learner in {"ppo": PPO, "grpo": GRPO}.items():
        reward = RewardConfig(mode="success")
        cfg = tiny.train_config(BUDGET, learner=learner, reward=reward)
        straight = begun(cfg)
        iterated(straight, pool)
        checkpoint.save(tmp_path / algorithm, straight.state_dict(), straight.buffer.own_state())
        for _ in range(2):
            iterated(straight, pool)
        resumed = begun(cfg, seed=5)
        resumed.load_state_dict(
            checkpoint.load(tmp_path / algorithm), checkpoint.load_parts(tmp_path / algorithm)
        )
        assert 0 < resumed.steps_used < straight.steps_used
        for _ in range(2):
            iterated(resumed, pool)
        assert tiny.difference(straight.state_dict(), resumed.state_dict()) is None


def test_a_budget_that_is_too_small_is_refused_before_the_work():
    with pytest.raises(ValueError, match="give 240 or more, or fewer iterations"):
        begun(tiny.train_config(env_steps=239))
    begun(tiny.train_config(env_steps=240))
    with pytest.raises(ValueError, match="env_steps=5 cannot pay for 3 iterations"):
        tiny.train_config(env_steps=5).validate()
