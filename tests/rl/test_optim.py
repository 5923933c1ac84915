"""The optimiser is the library's, to the last bit, without what its class brings along."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

from wamrl.rl.optim import RankedAdamW

OPTIONS = {"betas": (0.9, 0.95), "eps": 1e-7, "weight_decay": 0.1}
STEP = """
import sys, torch
from wamrl.rl.optim import RankedAdamW
layer = torch.nn.Linear(3, 3)
optimizer = RankedAdamW(layer, grad_norm=1.0, option="lr")
optimizer.backward(layer(torch.ones(3)).sum())
optimizer.step(0.1)
sys.exit("torch._dynamo" in sys.modules)
"""


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2), nn.Linear(2, 2))


def learn(module: nn.Module, step: int) -> None:
    """Gradients of all but the last layer, which is not in the loss."""
    module.zero_grad()
    x = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
    module[1](module[0](x)).square().mean().backward()


def moved(module: nn.Module, optimizer: RankedAdamW, steps: range) -> list[torch.Tensor]:
    for step in steps:
        learn(module, step)
        optimizer.step(0.1 / (1 + step))
    return [p.detach().clone() for p in module.parameters()]


def by_the_library(steps: int) -> tuple[list[torch.Tensor], dict]:
    """Its class with the same gradients and rates; also its state."""
    module = network()
    adam = torch.optim.AdamW(module.parameters(), fused=True, **OPTIONS)
    for step in range(steps):
        learn(module, step)
        adam.param_groups[0]["lr"] = 0.1 / (1 + step)
        adam.step()
    return [p.detach().clone() for p in module.parameters()], adam.state_dict()


def ranked(module: nn.Module) -> RankedAdamW:
    return RankedAdamW(module, grad_norm=float("inf"), option="lr", **OPTIONS)


def test_it_moves_weights_as_the_library_does():
    module = network()
    ours = moved(module, ranked(module), range(7))
    assert all(map(torch.equal, ours, by_the_library(7)[0]))


@pytest.mark.parametrize("saved_by", ["us", "the library"])
def test_it_goes_on_from_a_saved_state(saved_by):
    """Also from one that `torch.optim.AdamW` has written: checkpoints of earlier versions."""
    module = network()
    optimizer = ranked(module)
    moved(module, optimizer, range(4))
    state = optimizer.state_dict() if saved_by == "us" else by_the_library(4)[1]
    assert [*state["state"]] == [0, 1, 2, 3]  # the last layer has not been moved
    other = ranked(module)
    other.load_state_dict(copy.deepcopy(state))
    ours = moved(module, other, range(4, 7))
    assert all(map(torch.equal, ours, by_the_library(7)[0]))


def test_a_gradient_that_is_not_finite_moves_nothing():
    module = network()
    learn(module, 0)
    module[0].bias.grad[0] = float("nan")
    optimizer = RankedAdamW(module, grad_norm=1.0, option="sft.lr")
    before = [p.detach().clone() for p in module.parameters()]
    with pytest.raises(FloatingPointError, match="sft.lr: the gradient is not finite; lower it"):
        optimizer.step(0.1)
    assert all(map(torch.equal, before, module.parameters())) and not optimizer.moments


def test_a_process_that_trains_does_not_import_the_compiler():
    subprocess.run([sys.executable, "-c", STEP], check=True, timeout=120)
