"""World models that remember: the state is what the definition says, it is used, and it is learned.

The example `examples/own_memory/causal.py` stands for all of them.
"""

from dataclasses import replace

import pytest
import torch

from tests.support import remembering, tiny
from wamrl.models.base import EpisodicWorldModel
from wamrl.models.check import check_wam, probe
from wamrl.models.wam import WAM

SEEDS = torch.arange(3)


@pytest.fixture(scope="module")
def wam() -> WAM:
    return tiny.lively(model=remembering.MODEL).eval()


@pytest.mark.parametrize("sigma", [1.0, 0.5])
def test_it_keeps_the_contract(sigma):
    world = replace(remembering.WORLD, past=3)
    cfg = replace(tiny.MODEL, world=world, history_offsets=(-4, 0))
    torch.manual_seed(0)
    wam = cfg.build(views=2, image_hw=(16, 8), action_dim=3, proprio_dim=1)
    wam.world.spec = replace(wam.world.spec, feature_sigma=sigma)
    torch.nn.init.normal_(wam.world.head.weight, std=0.05)
    check_wam(wam)


@torch.no_grad()
def test_the_cache_is_one_pass_over_the_whole_past(wam):
    """Keys and values that were kept decision by decision, those of one pass over all decisions,
    and those that the default makes: the same features.
    """
    obs = probe(wam).obs
    state = wam.world.begin(3)
    for place in range(wam.spec.past):
        state = wam.observe(state, obs.past.place(place), obs.text)
    assert state.count.tolist() == [0, 2, 4]
    kept = wam.features(wam.encode(obs, state), SEEDS)
    one_pass = wam.features(wam.encode(obs), SEEDS)
    assert torch.allclose(kept, one_pass, atol=1e-5)
    folded = EpisodicWorldModel.recall(wam.world, wam._normalized(obs.past), obs.text)
    assert torch.allclose(wam.features(wam.encode(obs, folded), SEEDS), one_pass, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", ["frames", "actions", "proprio"])
def test_what_is_remembered_matters(wam, name):
    """Of the decisions that there were: row 0 had none, and row 1 only the last two."""
    obs = probe(wam).obs
    value = getattr(obs.past, name).clone()
    value[:, 0] = 1 - value[:, 0]  # seen in row 2 alone
    other = replace(obs, past=replace(obs.past, **{name: value}))
    a, b = (wam.features(wam.encode(x), SEEDS) for x in (obs, other))
    moved = (a - b).abs().amax((1, 2, 3))
    assert moved[:2].tolist() == [0, 0] and moved[2] > 1e-3


def test_it_learns_what_only_the_past_tells():
    """The future shows the colour of the first decision's frame, and the present shows nothing."""
    torch.manual_seed(0)
    wam = tiny.fresh(model=replace(remembering.MODEL, world=replace(remembering.WORLD, past=2)))
    clip = probe(wam)[torch.tensor([2]).repeat(8)]
    dark = torch.arange(8) % 2 == 0
    colour = torch.where(dark, 40, 200).to(torch.uint8).view(-1, 1, 1, 1, 1, 1)
    frames = clip.past.frames.clone()
    frames[:, 0] = colour
    clip = replace(
        clip,
        frames=torch.full_like(clip.frames, 120),
        future=torch.ones_like(clip.future) * colour,
        past=replace(clip.past, frames=frames),
    )
    seeds = torch.arange(8)

    def error(clip) -> float:
        imagined = wam.imagine(clip.obs, seeds, 1)
        return (imagined - clip.future / 255).square().mean().item()

    copied = error(clip)
    optimizer = torch.optim.Adam(wam.world.parameters(), 3e-3)
    for step in range(50):
        optimizer.zero_grad()
        wam.video_loss(clip, wam.encode(clip.obs), seeds + 8 * step).mean().backward()
        optimizer.step()
    assert error(clip) < 0.1 * copied
    forgotten = clip.past.emptied(2)
    assert error(replace(clip, past=forgotten)) > copied


def test_what_does_not_fit_is_refused(wam):
    obs = probe(wam).obs
    with pytest.raises(ValueError, match="this world model remembers: .* `past`"):
        wam.encode(replace(obs, past=None))
    for model in (remembering.MODEL, tiny.MODEL):
        world = tiny.fresh(model=model).world
        world.spec = replace(world.spec, past=2 if model is tiny.MODEL else 0)
        with pytest.raises(ValueError, match="an EpisodicWorldModel remembers 1 decision or more"):
            WAM(world, wam.actor)
    with pytest.raises(ValueError, match="past=-1 must be a number of decisions"):
        replace(wam.spec, past=-1).validate()
