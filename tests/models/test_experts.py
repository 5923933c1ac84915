"""The action experts: what they read, what they train, and that a command line can choose them."""

from dataclasses import replace

import pytest
import torch

from tests.support import tiny
from wamrl import cli
from wamrl.config import Config
from wamrl.models.check import check_wam, probe
from wamrl.models.experts import BridgeConfig, PrefixConfig, heads_of
from wamrl.recipes.actors import ACTORS, with_actor
from wamrl.recipes.point import point
from wamrl.runtime.log import resolved
from wamrl.runtime.restore import restored

CONFIGS = {"bridge": BridgeConfig(head_width=8), "prefix": PrefixConfig(head_width=8)}


def expert(name, **world):
    """Behind the tiny world model of width 32; what starts at zero is random."""
    model = replace(tiny.MODEL, actor=CONFIGS[name])
    model = replace(model, world=replace(model.world, **world))
    wam = tiny.fresh(model=model)
    for weight in wam.actor.parameters():
        weight.data.add_(0.05 * torch.randn_like(weight))
    return wam


def read(wam, features, seed=0):
    """The velocity at one action chunk, (B, N, A)."""
    g = torch.Generator().manual_seed(seed)
    a = torch.randn(len(features), wam.spec.chunk, wam.spec.action_dim, generator=g)
    state = torch.zeros(len(features), wam.spec.proprio_dim)
    return wam.actor.velocity(a, a.new_full((len(a),), 0.5), wam.actor.condition(features, state))


@pytest.mark.parametrize("sigma", [1.0, 0.5])
@pytest.mark.parametrize("name", CONFIGS)
def test_it_keeps_the_contract(name, sigma):
    check_wam(expert(name, feature_sigma=sigma))


@pytest.mark.parametrize("name", CONFIGS)
def test_width_is_a_fraction_and_there_is_a_block_per_tap(name):
    actor = expert(name).actor
    assert actor.width == 16
    assert len(actor.blocks) == 2
    assert heads_of(0.01, 16, 64) == 1


@pytest.mark.parametrize("name", CONFIGS)
def test_a_condition_serves_several_rows(name):
    """Each row of the condition serves `repeat` rows of actions, in their order."""
    wam = expert(name)
    features = torch.randn(2, 2, 14, 32)
    a = torch.randn(6, wam.spec.chunk, 2)
    sigma = torch.rand(6)
    state = torch.randn(2, 4)
    together = wam.actor.velocity(a, sigma, wam.actor.condition(features, state), repeat=3)
    for row in range(6):
        one = slice(row // 3, row // 3 + 1)
        condition = wam.actor.condition(features[one], state[one])
        alone = wam.actor.velocity(a[row : row + 1], sigma[row : row + 1], condition)
        assert torch.allclose(alone[0], together[row], atol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_weight_of_it_learns(name):
    """By the loss of actions; and the world model's features get a gradient."""
    wam = expert(name)
    clip = probe(wam)
    features = wam.features(wam.encode(clip.obs), torch.arange(3)).detach().requires_grad_()
    wam.action_loss(clip, features, torch.arange(3)).sum().backward()
    silent = [n for n, p in wam.actor.named_parameters() if p.grad is None or not p.grad.any()]
    assert not silent
    assert features.grad.any()


def test_the_prefix_is_the_present_frame():
    """Of [instruction, state, present, two imagined frames], 4 patches a frame."""
    wam = expert("prefix")
    features = wam.features(wam.encode(probe(wam).obs), torch.arange(3)).detach()
    assert features.shape == (3, 2, 2 + 4 + 8, 32)
    features.requires_grad_()
    read(wam, features).square().sum().backward()
    read_by = features.grad.abs().sum((0, 1, 3)) > 0
    assert read_by.tolist() == [False] * 2 + [True] * 4 + [False] * 8


def test_a_closed_gate_lets_nothing_in_and_opens():
    wam = expert("bridge")
    wam.actor.gates.data.zero_()
    one, other = torch.randn(2, 3, 2, 14, 32)
    assert torch.equal(read(wam, one), read(wam, other))
    read(wam, one).square().sum().backward()
    assert wam.actor.gates.grad.all()
    wam.actor.gates.data.fill_(1.0)
    assert not torch.allclose(read(wam, one), read(wam, other))


@pytest.mark.parametrize("name", ACTORS)
def test_the_command_line_chooses_it(name):
    """Into any recipe, with its own fields as options, in either way of writing it."""
    more = ["--model.actor.head-width", "8"] if name in CONFIGS else ["--model.actor.width", "8"]
    for words in (["--model.actor", name, *more], [*more, f"--model.actor={name}"]):
        asked = cli.chosen("sft", ["point", *words, "--seed", "3"])
        assert type(asked.config.model.actor) is ACTORS[name]
        assert 8 in vars(asked.config.model.actor).values()
        assert asked.config.seed == 3


@pytest.mark.parametrize("name", ACTORS)
def test_a_run_knows_its_actor(name):
    """What `run.json` and a model folder say is the same configuration when it is read back."""
    cfg = with_actor(point(), name)
    assert restored(Config, resolved(cfg), "config") == cfg


def test_a_recipe_keeps_the_actor_that_it_has():
    assert with_actor(point(), "head") == point()


@pytest.mark.parametrize("words", [["--model.actor", "brigde"], ["--model.actor"]])
def test_an_unknown_actor_is_named(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["sft", "point", *words])
    assert stopped.value.code == 2
    assert "choose head, bridge, prefix" in capsys.readouterr().err
