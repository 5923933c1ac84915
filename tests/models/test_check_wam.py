"""`check_wam` passes what ships and names the fault of what is broken."""

import types
from dataclasses import replace

import pytest
import torch

from tests.support import remembering, tiny
from wamrl.models.check import check_wam
from wamrl.models.wam_config import WAMConfig
from wamrl.recipes.point import point


@pytest.mark.parametrize("sigma", [1.0, 0.0])
@pytest.mark.parametrize("name", ["nano", "point", "tiny"])
def test_what_ships_passes(name, sigma):
    cfg, hw = {
        "nano": (WAMConfig(), (64, 64)),
        "point": (point().model, (32, 32)),
        "tiny": (tiny.MODEL, (16, 16)),
    }[name]
    cfg = replace(cfg, world=replace(cfg.world, feature_sigma=sigma))
    torch.manual_seed(0)
    check_wam(cfg.build(views=1, image_hw=hw, action_dim=2, proprio_dim=4))


def test_a_trained_head_and_several_views_pass():
    check_wam(tiny.lively())
    check_wam(
        replace(tiny.MODEL, history_offsets=(-4, 0)).build(
            views=2, image_hw=(16, 8), action_dim=3, proprio_dim=1
        )
    )


def nondeterministic_velocity(wam):
    plain = wam.actor.velocity
    wam.actor.velocity = lambda a, *args, **more: plain(a, *args, **more) + torch.randn_like(a)


def unseeded_noise(wam):
    plain = wam.world.noise
    wam.world.noise = lambda seeds: torch.randn_like(plain(seeds))


def features_without_taps(wam):
    plain = wam.world.features
    wam.world.features = lambda *args: plain(*args)[:, 0]


def frames_out_of_range(wam):
    plain = wam.world.imagine
    wam.world.imagine = lambda *args: plain(*args) + 0.5


def frames_missing(wam):
    plain = wam.world.imagine
    wam.world.imagine = lambda *args: plain(*args)[:, :1]


def frames_mixed(wam):
    plain = wam.world.imagine
    wam.world.imagine = lambda *args: (plain(*args) + plain(*args).mean(0, keepdim=True)) / 2


def frames_of_other_features(wam):
    plain = wam.world.imagine_from_features
    wam.world.imagine_from_features = lambda features, obs: plain(features, obs).flip(0)


def frames_after_the_last_past(wam):
    """Decodes with what was encoded last, instead of with the context that it is given."""
    encode = wam.world.encode
    imagine = wam.world.imagine
    contexts = []

    def encode_and_remember(obs):
        contexts.append(encode(obs))
        return contexts[-1]

    wam.world.encode = encode_and_remember
    wam.world.imagine = lambda context, *args: imagine(contexts[-1], *args)


def context_used_up(wam):
    """A use of the context changes it."""
    plain = wam.world.features

    def features(context, seeds):
        found = plain(context, seeds).clone()
        context.taps.mul_(0.5)
        return found

    wam.world.features = features


def rows_mixed(wam):
    plain = wam.world.features
    wam.world.features = lambda *args: plain(*args) + plain(*args).mean(0, keepdim=True)


def loss_averaged(wam):
    plain = wam.world.loss
    wam.world.loss = lambda *args: plain(*args).mean()


def loss_mixed(wam):
    plain = wam.world.loss
    wam.world.loss = lambda *args: plain(*args) + plain(*args).mean()


def loss_without_mask(wam):
    plain = wam.world.loss
    wam.world.loss = lambda clip, *args: (
        plain(replace(clip, future_mask=torch.ones_like(clip.future_mask)), *args)
        + clip.future.float().mean((1, 2, 3, 4, 5))
    )


def action_loss_without_mask(wam):
    plain = type(wam).action_loss
    wam.action_loss = types.MethodType(
        lambda self, clip, *args: plain(
            self, replace(clip, action_mask=torch.ones_like(clip.action_mask)), *args
        ),
        wam,
    )


def chunk_too_short(wam):
    wam.spec = replace(wam.spec, chunk=4)
    wam.actor.position.data = wam.actor.position.data[:, :4]
    plain = wam.act
    wam.act = lambda *args, **more: replace(p := plain(*args, **more), actions=p.actions[:, :2])


def partial_mask_ignored(wam):
    """A sample counts whole where any of its frames is real."""
    plain = wam.world.loss
    wam.world.loss = lambda clip, *args: (
        plain(replace(clip, future_mask=torch.ones_like(clip.future_mask)), *args)
        * clip.future_mask.any(1)
    )


def actor_in_bfloat16(wam):
    plain = wam.actor.velocity

    def velocity(*args, **more):
        with torch.autocast("cpu", torch.bfloat16):
            return plain(*args, **more).float()

    wam.actor.velocity = velocity


def actor_returns_bfloat16(wam):
    plain = wam.actor.velocity
    wam.actor.velocity = lambda *args, **more: plain(*args, **more).bfloat16()


def features_drift_with_the_batch(wam):
    """By less than anyone sees in the features, and enough to move a log-probability."""
    plain = wam.world.features
    direction = torch.arange(wam.world.feature_dim).sin()

    def features(*args):
        found = plain(*args)
        return found + 4e-4 * len(found) * direction

    wam.world.features = features
    wam.world.imagine_from_features = lambda features, obs: None


def weights_in_both_halves(wam):
    wam.actor.eyes = wam.world.blocks


def policy_trains_the_world(wam):
    plain = wam.actor.velocity
    borrowed = wam.world.head.bias
    wam.actor.velocity = lambda *args, **more: plain(*args, **more) + borrowed.mean()


def actor_that_cannot_learn(wam):
    plain = wam.actor.velocity
    wam.actor.velocity = lambda *args, **more: plain(*args, **more).detach()


def features_without_gradient(wam):
    plain = wam.world.features
    wam.world.features = lambda *args: plain(*args).detach()


def world_loss_trains_the_actor(wam):
    plain = wam.world.loss
    borrowed = wam.actor.head.bias
    wam.world.loss = lambda *args: plain(*args) + 0 * borrowed.mean()


def copy_reads_other_features(wam):
    """What the features are scaled by is kept outside of the weights, and no copy has it."""

    class Scale(list):
        def __deepcopy__(self, memo):
            return Scale([1.0])

    kind = type(wam.world)
    plain = kind.features
    wam.world.scale = Scale([2.0])
    changed = {"features": lambda self, *args: plain(self, *args) * self.scale[0]}
    changed["imagine_from_features"] = lambda self, features, obs: None
    wam.world.__class__ = type("Scaled", (kind,), changed)


def copy_shares_weights(wam):
    plain = wam.world.head
    kind = type("Shared", (type(plain),), {"__deepcopy__": lambda self, memo: self})
    plain.__class__ = kind


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        (nondeterministic_velocity, "sampling and scoring disagree"),
        (unseeded_noise, "imagine differs between two calls"),
        (features_without_taps, "features are"),
        (frames_out_of_range, "leave \\[0, 1\\]"),
        (frames_missing, "imagined frames are"),
        (frames_mixed, "imagine: a row depends on the other rows"),
        (frames_of_other_features, "imagine_from_features gives other frames"),
        (frames_after_the_last_past, "imagine changes once another context"),
        (context_used_up, "features changes once another context"),
        (rows_mixed, "features: a row depends on the other rows"),
        (loss_averaged, "one value per sample"),
        (loss_mixed, "loss: a row depends on the other rows"),
        (loss_without_mask, "use future_mask"),
        (action_loss_without_mask, "use action_mask"),
        (chunk_too_short, "action chunks are"),
        (partial_mask_ignored, "use future_mask frame by frame"),
        (actor_in_bfloat16, "more coarsely than float32"),
        (actor_returns_bfloat16, "actors compute in float32"),
        (features_drift_with_the_batch, "computed again in other batches the log-probability"),
        (weights_in_both_halves, "belongs to the world model and to the actor"),
        (policy_trains_the_world, "the policy gradient reaches weights of the world model"),
        (actor_that_cannot_learn, "the policy gradient does not reach the actor"),
        (features_without_gradient, "the latent KL does not reach the world model"),
        (world_loss_trains_the_actor, "the world loss reaches weights of the actor"),
        (copy_reads_other_features, "the latent KL would not begin at 0"),
        (copy_shares_weights, "a copy of the model shares .*head"),
    ],
)
def test_a_broken_model_is_named(break_it, sentence):
    wam = tiny.lively()
    break_it(wam)
    with pytest.raises(ValueError, match=sentence):
        check_wam(wam)


def begins_at_random(wam):
    plain = wam.world.begin

    def begin(batch):
        state = plain(batch)
        return replace(state, keys=torch.randn_like(state.keys))

    wam.world.begin = begin


def begins_with_one_row(wam):
    plain = wam.world.begin
    wam.world.begin = lambda batch: plain(1)


def observes_in_place(wam):
    plain = wam.world.observe

    def observe(state, *seen):
        after = plain(state, *seen)
        state.keys.copy_(after.keys)
        return replace(after, keys=state.keys)

    wam.world.observe = observe


def encodes_in_place(wam):
    plain = wam.world.encode

    def encode(obs, state):
        found = plain(obs, state)
        state.values.mul_(0.5)
        return found

    wam.world.encode = encode


def observes_rows_mixed(wam):
    plain = wam.world.observe

    def observe(*seen):
        after = plain(*seen)
        return replace(after, values=after.values + after.values.mean(0, keepdim=True))

    wam.world.observe = observe


def recalls_what_was_not_there(wam):
    """Places that are empty count as decisions."""
    plain = wam.world.recall
    wam.world.recall = lambda past, text: plain(
        replace(past, executed=past.executed.clamp(min=1)), text
    )


def recalls_without_what_was_done(wam):
    plain = wam.world.recall
    wam.world.recall = lambda past, text: plain(replace(past, actions=0 * past.actions), text)


def recalls_a_little_else(wam):
    """By less than anyone sees in the features, and enough to move a log-probability."""
    plain = wam.world.recall

    def recall(*past):
        state = plain(*past)
        return replace(state, values=state.values * (1 + 3e-4))

    wam.world.recall = recall


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        (begins_at_random, "begin: episodes begin with different states"),
        (begins_with_one_row, "must give a Batch of tensors with 3 rows"),
        (observes_in_place, "observe or encode changes the state"),
        (encodes_in_place, "observe or encode changes the state"),
        (observes_rows_mixed, "observe: the state of a row depends on the other rows"),
        (recalls_what_was_not_there, "recall gives another state"),
        (recalls_without_what_was_done, "recall gives another state"),
        (recalls_a_little_else, "recall gives another state .*the log-probability drifts by"),
    ],
)
def test_a_broken_memory_is_named(break_it, sentence):
    wam = tiny.lively(model=remembering.MODEL)
    check_wam(wam)
    break_it(wam)
    with pytest.raises(ValueError, match=sentence):
        check_wam(wam)


def test_a_model_in_bfloat16_passes():
    """Its features are coarse; the actor and its log-probabilities are not."""
    torch.manual_seed(0)
    for model in (tiny.MODEL, remembering.MODEL):
        cfg = replace(model, compute="bfloat16", feature_dtype="bfloat16")
        check_wam(cfg.build(views=1, image_hw=(16, 16), action_dim=2, proprio_dim=4))
