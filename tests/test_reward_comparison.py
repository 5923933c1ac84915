"""`wamrl compare-rewards`: every similarity on the same rollouts,
what is missing is named, and what it leaves behind.
"""

import csv
import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from tests.support import tiny
from tests.support.command_line import refused, wamrl
from wamrl.config import Config
from wamrl.models.saved import save_wam
from wamrl.reward_comparison import (
    COLUMNS,
    RewardComparisonConfig,
    available,
    flatten,
    judge,
    study,
)
from wamrl.rewards.base import Similarity, SimilarityConfig
from wamrl.rewards.pixels import PixelConfig
from wamrl.runtime.log import new_run


class Absolute(Similarity):
    def distance(self, a, b, *_):
        return (a - b).abs().mean((2, 3, 4, 5))


@dataclass(frozen=True, kw_only=True)
class AbsoluteConfig(SimilarityConfig):
    name = "absolute"
    unused: float = 1.0  # an option of its own on the command line

    def build(self):
        return Absolute()


@dataclass(frozen=True, kw_only=True)
class AbsentConfig(SimilarityConfig):
    name = "absent"

    def build(self):
        raise ValueError("the weights are not here:\ngive a folder")


def recipe() -> Config:
    rewards = RewardComparisonConfig(
        similarities=(PixelConfig(), AbsoluteConfig(), AbsentConfig()), states=12, group=2
    )
    return replace(tiny.CONFIG, rewards=rewards)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    run = new_run(tmp_path_factory.mktemp("base"), "base", tiny.CONFIG)
    save_wam(tiny.CONFIG.model, tiny.ENV.build().spec, tiny.lively(), run, "base")
    return run


@pytest.fixture(scope="module")
def run(base, tmp_path_factory):
    out = tmp_path_factory.mktemp("rewards")
    code, text, err = wamrl(
        "compare-rewards", "tests.test_reward_comparison:recipe", "--base", base, "--out", out
    )
    assert code == 0, text + err
    (folder,) = out.iterdir()
    return folder, text


def test_the_verb_scores_all_and_names_what_is_missing(run):
    folder, text = run
    assert {p.name for p in folder.iterdir()} - {".lock"} == {
        "run.json",
        "config.json",
        "rewards.md",
        "rewards.csv",
        "rewards.json",
        "rewards.png",
    }
    report = json.loads((folder / "rewards.json").read_text())
    keys = [(r["reward"], r["variant"]) for r in report["rewards"]]
    assert keys == [
        (a, b) for a in ("pixel", "absolute") for b in ("reconstruction", "gain", "copy")
    ]
    assert report["missing"] == {"absent": "the weights are not here: give a folder"}
    assert report["episodes"] == 24 and 0 < report["successes"] < 24
    for row in report["rewards"]:
        assert row["all_chunks_successes"] <= report["successes"]
        assert row["all_chunks_low"] <= row["all_chunks_value"] <= row["all_chunks_high"]
        assert row["early_chunks_successes"] + row["early_chunks_failures"] <= 24
    markdown = (folder / "rewards.md").read_text()
    assert (
        "absent" in markdown
        and markdown.count("| pixel ") == 3
        and all(c in markdown for c in COLUMNS)
    )
    assert (
        "not scored: absent: the weights are not here: give a folder" in text
        and "24 episodes" in text
    )
    with open(folder / "rewards.csv") as file:
        rows = list(csv.DictReader(file))
    assert [(r["reward"], r["variant"]) for r in rows] == keys
    for a, b in zip(rows, report["rewards"], strict=True):
        assert a["all_chunks_value"] == str(b["all_chunks_value"])
    assert (folder / "rewards.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_model_and_seed_give_the_same_table(run, base, tmp_path):
    code, text, err = wamrl(
        "compare-rewards", "tests.test_reward_comparison:recipe", "--base", base, "--out", tmp_path
    )
    assert code == 0, text + err
    (again,) = tmp_path.iterdir()
    assert (again / "rewards.json").read_text() == (run[0] / "rewards.json").read_text()


def test_bad_input_gets_one_sentence(base, tmp_path):
    name = "tests.test_reward_comparison:recipe"
    assert "--base" in refused("compare-rewards", name, code=2)
    assert "/nowhere" in refused("compare-rewards", name, "--base", "/nowhere", "--out", tmp_path)
    assert "states=0" in refused(
        *("compare-rewards", name, "--base", base, "--rewards.states", "0", "--out", tmp_path),
        code=2,
    )


def test_nothing_to_score_with_is_said_before_any_rollout():
    for similarities, words in (
        ((), "empty"),
        ((AbsentConfig(),), "absent: the weights are not here"),
    ):
        with pytest.raises(ValueError, match=f"no similarity to score with .*{words}"):
            cfg = RewardComparisonConfig(similarities=similarities)
            study(cfg, tiny.lively(), None, tiny.CONFIG.flow, seed=0, imagine_steps=1)
    with pytest.raises(ValueError, match="two named pixel"):
        available((PixelConfig(), PixelConfig()))


def test_a_reward_that_knows_the_outcome_is_perfect_and_episodes_without_frames_are_left_out():
    with tiny.CONFIG.build_pool() as pool:
        rollout = tiny.explore(tiny.lively(), pool, 24)
    won = rollout.success[rollout.decisions.episode].float()
    row, scores = judge("oracle", "gain", won, rollout)
    assert row.all_chunks.value == row.early_chunks.value == 1 and (
        row.mean_success,
        row.mean_failure,
    ) == (1, 0)
    assert np.isnan(scores).sum() == 24 - row.early_chunks.successes - row.early_chunks.failures
    blind = won.masked_fill(rollout.decisions.episode < 5, torch.nan)
    assert judge("oracle", "gain", blind, rollout)[0].all_chunks.failures < row.all_chunks.failures
    never = judge("none", "gain", torch.full_like(won, torch.nan), rollout)[0]
    assert flatten(never)["all_chunks_value"] is None and flatten(never)["mean_success"] is None
