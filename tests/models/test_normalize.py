"""One normalisation for training, acting and scoring:
exact where nothing is to be done, an inverse where there is.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.support import tiny
from wamrl.models.flow import FlowConfig
from wamrl.models.normalize import NormalizeConfig
from wamrl.models.saved import load_state, save_wam
from wamrl.sft import joint_loss

LOW, HIGH = [0.0, -1.0, 0.0], [512.0, 1.0, 0.04]
STATES = 2


def data(seed: int = 0, rows: int = 4000):
    """States and chunks in three very different units;
    a quarter of the actions are masked, and absurd.
    """
    g = torch.Generator().manual_seed(seed)
    states = torch.randn(rows, STATES, generator=g) * torch.tensor([100.0, 1e-6]) + torch.tensor(
        [250.0, 3.0]
    )
    actions = torch.rand(rows, 4, 3, generator=g) * torch.tensor([512.0, 2, 0.04]) - torch.tensor(
        [0.0, 1, 0]
    )
    mask = torch.rand(rows, 4, generator=g) < 0.75
    return states, torch.where(mask[..., None], actions, torch.tensor(1e9)), mask, states


def test_bounds_of_one_change_nothing_bitwise():
    one = NormalizeConfig().build([-1.0] * 3, [1.0] * 3, STATES)
    actions = torch.rand(5, 4, 3) * 2 - 1
    assert torch.equal(one.actions(actions, torch.rand(5, STATES)), actions)
    assert torch.equal(one.raw_actions(actions, torch.rand(5, STATES)), actions)


@pytest.mark.parametrize("method", ["bounds", "mean_std", "min_max", "quantiles"])
@pytest.mark.parametrize("delta", [(), ((0, 0),)])
def test_the_way_back_is_the_inverse(method, delta):
    if delta and method == "bounds":
        pytest.skip("refused, see below")
    states, actions, mask, present = data()
    norm = NormalizeConfig(actions=method, delta=delta).build(LOW, HIGH, STATES)
    norm.fit(states, actions, mask, present)
    raw = torch.where(mask[..., None], actions, torch.tensor(0.01))
    again = norm.raw_actions(norm.actions(raw, present), present)
    assert ((again - raw).abs() / torch.tensor([512.0, 2, 0.04])).max() < 1e-5


def test_statistics_are_numpys_over_unmasked_actions():
    states, actions, mask, present = data()
    rows = actions[mask].numpy().astype(np.float64)
    low, high = np.quantile(rows, [0.01, 0.99], axis=0)
    want = {
        "mean_std": (rows.mean(0), rows.std(0)),
        "quantiles": ((low + high) / 2, (high - low) / 2),
        "min_max": ((rows.max(0) + rows.min(0)) / 2, (rows.max(0) - rows.min(0)) / 2),
    }
    for method, (shift, scale) in want.items():
        norm = NormalizeConfig(actions=method).build(LOW, HIGH, STATES)
        norm.fit(states, actions, mask, present)
        assert norm.action_shift.numpy() == pytest.approx(shift, rel=1e-4)
        assert norm.action_scale.numpy() == pytest.approx(scale, rel=1e-4)


@pytest.mark.parametrize("rare", [0, 3])
def test_sparse_and_constant_dimensions_are_bounded_under_quantiles(rare):
    """A gripper that closes in three of 4000 rows, or never; and one outlier among many values."""
    states, actions, mask, present = data()
    mask = torch.ones_like(mask)
    actions = torch.zeros_like(actions)
    actions[:rare, 0, 1] = 1.0
    actions[..., 2] = torch.randn(actions.shape[:2], generator=torch.Generator().manual_seed(0))
    actions[0, 0, 2] = 1000.0
    norm = NormalizeConfig(actions="quantiles", states="quantiles").build(LOW, HIGH, STATES)
    norm.fit(states, actions, mask, present)
    seen = norm.actions(actions, present)
    assert seen.abs().max() <= 5 + 1e-4
    again = norm.raw_actions(seen, present)
    assert torch.allclose(again, actions, atol=1e-3)


def test_kept_dimensions_go_by_their_bounds():
    norm = NormalizeConfig(actions="quantiles", keep=(2,)).build(LOW, HIGH, STATES)
    norm.fit(*data())
    ends = norm.actions(torch.tensor([[[0.0, 0, 0.0], [0.0, 0, 0.04]]]), torch.zeros(1, STATES))[
        0, :, 2
    ]
    assert ends.tolist() == pytest.approx([-1, 1])


def test_a_relative_action_does_not_depend_on_where_the_robot_stands():
    norm = NormalizeConfig(actions="mean_std", delta=((0, 0),)).build(LOW, HIGH, STATES)
    norm.fit(*data())
    near, far = torch.tensor([[10.0, 0]]), torch.tensor([[300.0, 0]])
    chunk = torch.tensor([[[5.0, 0.1, 0.02]] * 4])
    moved = chunk + torch.tensor([290.0, 0, 0])
    assert torch.allclose(norm.actions(chunk, near), norm.actions(moved, far), atol=1e-5)
    assert not torch.allclose(norm.actions(chunk, near), norm.actions(chunk, far))


def test_states_that_hardly_move_stay_finite_and_outliers_are_clamped():
    norm = NormalizeConfig().build(LOW, HIGH, STATES)
    norm.fit(*data())
    seen = norm.state(torch.tensor([[250.0, 3.0], [1e9, -1e9]]))
    assert seen.isfinite().all() and seen.abs().max() == 5 and seen[0].abs().max() < 0.1


@pytest.mark.parametrize(
    ("config", "low", "sentence"),
    [
        (NormalizeConfig(states="bounds"), LOW, "states have no bounds"),
        (NormalizeConfig(delta=((0, 0),)), LOW, "with delta choose"),
        (NormalizeConfig(actions="min_max", delta=((0, 0),), keep=(0,)), LOW, "not in keep"),
        (NormalizeConfig(actions="min_max", delta=((0, 7),)), LOW, "name dimensions"),
        (NormalizeConfig(actions="min_max", keep=(3,)), LOW, "name dimensions"),
        (NormalizeConfig(), [float("-inf"), -1, 0], "finite"),
        (NormalizeConfig(), [600.0, -1, 0], "below its high"),
    ],
)
def test_impossible_settings_are_refused(config, low, sentence):
    with pytest.raises(ValueError, match=sentence):
        config.build(low, HIGH, STATES)


def scaled():
    """The tiny model for an environment whose actions go from 0 to 512,
    and clips in these units.
    """
    wam = replace(tiny.MODEL, normalize=NormalizeConfig(actions="quantiles")).build(
        views=1, image_hw=(16, 16), action_dim=2, proprio_dim=4, bounds=([0.0, 0.0], [512.0, 512.0])
    )
    wam.load_state_dict(tiny.lively().state_dict())
    states, actions, mask, present = tiny.demos().statistics()
    wam.normalize.fit(states, 256 * (actions + 1), mask, present)
    return wam


def test_units_change_neither_the_loss_nor_the_log_probability():
    """Only the normalisation knows the units:
    what is learned and scored is the same, what is executed is rescaled.
    """
    plain = replace(tiny.MODEL, normalize=NormalizeConfig(actions="quantiles")).build(
        views=1, image_hw=(16, 16), action_dim=2, proprio_dim=4
    )
    plain.load_state_dict(tiny.lively().state_dict())
    plain.normalize.fit(*tiny.demos().statistics())
    other, clip = scaled(), tiny.demos().at(torch.arange(0, 60, 5))
    stretched = replace(clip, actions=256 * (clip.actions + 1))
    noise = torch.arange(3 * len(clip)).view(3, -1)
    losses = [
        joint_loss(w, c, noise, len(clip), 1.0) for w, c in ((plain, clip), (other, stretched))
    ]
    assert torch.allclose(*losses, rtol=1e-4)
    flow, seeds = FlowConfig(steps=3, noise=0.5, noisy="all"), torch.arange(len(clip))
    one, two = (
        w.act(
            clip.obs,
            seeds,
            flow,
            [torch.Generator().manual_seed(i) for i in range(len(clip))],
            sampler="explore",
        )
        for w in (plain, other)
    )
    assert torch.allclose(256 * (one.actions + 1), two.actions, rtol=1e-3, atol=0.05)
    assert torch.allclose(one.chain_log_prob, two.chain_log_prob, atol=1e-3)
    assert (other.log_prob(two, flow) - two.chain_log_prob).abs().max() < 1e-4


def test_it_is_saved_with_the_model(tmp_path):
    wam = scaled()
    folder = save_wam(tiny.MODEL, tiny.ENV.build().spec, wam, tmp_path, "base")
    again = load_state(folder)["wam"]
    fresh = tiny.fresh(seed=1)
    fresh.load_state_dict(again)
    x, state = torch.rand(3, 8, 2), torch.rand(3, 4)
    assert torch.equal(fresh.normalize.raw_actions(x, state), wam.normalize.raw_actions(x, state))
    assert torch.equal(fresh.normalize.state(state), wam.normalize.state(state))
