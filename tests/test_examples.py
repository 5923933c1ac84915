"""The examples that the pages walk through: the same code, it keeps its contracts, and it runs."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from examples.own_model.unet import UNetConfig, unet
from examples.own_reward.edges import Edges, EdgesConfig, edges
from tests.support import tiny
from tests.support.command_line import SMALL, run_of
from wamrl.models.action_head import ActionHeadConfig
from wamrl.models.check import check_wam
from wamrl.models.wam_config import WAMConfig
from wamrl.rewards.check import check_reward

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("page", "file"),
    [
        ("own-model.md", "own_model/unet.py"),
        ("own-reward.md", "own_reward/edges.py"),
    ],
)
def test_the_code_on_the_page_is_that_of_the_file(page, file):
    walk, *_ = (ROOT / "docs" / page).read_text().split("\n## A model that remembers\n")
    blocks = re.findall(r"```python\n(.*?)```", walk, re.DOTALL)
    shown = [line for line in "".join(blocks).splitlines() if line]
    written = [line for line in (ROOT / "examples" / file).read_text().splitlines() if line]
    assert shown == written


@pytest.mark.parametrize(
    "file", ["own_model/unet.py", "own_memory/causal.py", "own_reward/edges.py"]
)
def test_an_example_uses_public_names_only(file):
    text = (ROOT / "examples" / file).read_text()
    assert not re.search(r"wamrl[\w.]*\._|import _", text)


def test_the_model_keeps_the_contract():
    cfg = unet()
    env = cfg.env.build().spec
    torch.manual_seed(0)
    check_wam(
        cfg.model.build(
            views=len(env.views),
            image_hw=env.image_hw,
            action_dim=env.action_dim,
            proprio_dim=env.proprio_dim,
        )
    )


def small(**world) -> WAMConfig:
    return WAMConfig(
        world=UNetConfig(width=16, **world),
        actor=ActionHeadConfig(width=16, heads=2),
        history_offsets=(-2, 0),
        frame_offsets=(4, 8),
        chunk=8,
    )


def test_the_model_takes_several_views_and_a_history_and_refuses_odd_sizes():
    size = {"views": 2, "action_dim": 3, "proprio_dim": 1}
    wam = small().build(image_hw=(24, 16), **size)
    torch.nn.init.normal_(wam.world.head.weight, std=0.05)  # else it copies, whatever it is given
    check_wam(wam)
    with pytest.raises(ValueError, match="sides that 4 divides"):
        small().build(image_hw=(30, 16), **size)
    with pytest.raises(ValueError, match="blocks >= 1"):
        small(blocks=0).build(image_hw=(24, 16), **size)


def test_the_model_learns():
    """The error of its imagination, over that of a copy, on what it was trained on."""
    model = replace(small(), history_offsets=(0,))
    torch.manual_seed(0)
    wam = model.build(views=1, image_hw=(16, 16), action_dim=2, proprio_dim=4)
    clip = tiny.demos().sample(16, torch.Generator().manual_seed(0))
    seeds = torch.arange(16)
    future = clip.future.float() / 255
    real = clip.future_mask

    def error() -> float:
        imagined = wam.imagine(clip.obs, seeds, 1)
        return ((imagined - future).square().mean((2, 3, 4, 5)) * real).sum().item()

    copied = error()
    optimizer = torch.optim.Adam(wam.world.parameters(), 3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        wam.video_loss(clip, wam.encode(clip.obs), seeds).mean().backward()
        optimizer.step()
    assert error() < 0.7 * copied


def test_the_similarity_keeps_the_contract_and_looks_at_edges():
    check_reward(EdgesConfig())
    assert edges().train.reward.similarity.build().__class__ is Edges
    a = torch.zeros(1, 1, 1, 8, 8, 3)
    lighter = a + 0.5  # no edges, so nothing differs
    square = a.clone()
    square[..., 2:4, 2:4, :] = 1.0
    aside = square.roll(3, 4)
    last = a[:, 0]
    assert Edges().distance(a, lighter, last).item() == 0
    assert Edges().distance(square, aside, last) > Edges().distance(square, square.roll(1, 4), last)


@pytest.mark.parametrize(
    "recipe",
    [
        "examples.own_model.unet:unet",
        "examples.own_memory.causal:causal",
        "examples.own_reward.edges:edges",
    ],
)
def test_the_recipe_runs(recipe, tmp_path):
    run = run_of(tmp_path, "quickstart", recipe, "--smoke", "--ranks", 1, *SMALL)
    summary = json.loads((run / "summary.json").read_text())
    assert summary["arms"].keys() == {"before", "after"}
