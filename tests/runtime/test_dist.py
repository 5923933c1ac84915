"""Two ranks are one rank with the work shared out:
the same weights, the same files, and nobody waits for ever.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.support import ranks, tiny
from tests.support.command_line import refused
from wamrl.models.saved import load_state
from wamrl.runtime import checkpoint, dist

ROOT = Path(__file__).parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> tuple[Path, Path]:
    """The results of one rank and of two."""
    one, two = (tmp_path_factory.mktemp(name) for name in ("one", "two"))
    command = [*TORCHRUN, "-m", "tests.support.ranks", str(two)]
    other = subprocess.Popen(
        command, cwd=ROOT, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    ranks.everything(one)
    said = other.communicate(timeout=240)[0]
    assert other.returncode == 0, said[-3000:]
    return one, two


@pytest.mark.parametrize(
    "name", ["sft", "lone", *(f"{run}/step{i}" for run in ranks.RUNS for i in (1, 2)), "resumed"]
)
def test_two_ranks_learn_what_one_learns(both, name):
    one, two = (checkpoint.load(out / name) for out in both)
    assert tiny.distance(one, two) < 1e-6


def test_the_weights_have_moved_far_more_than_that(both):
    for name in ranks.RUNS:
        first, second = (checkpoint.load(both[1] / name / f"step{i}")["wam"] for i in (1, 2))
        assert max((first[k] - second[k]).abs().max().item() for k in first) > 2e-5, name


def test_metrics_are_those_of_all_ranks(both):
    """But what is timed or kept in memory."""
    for name in ranks.RUNS:
        one, two = (checkpoint.load(out / name / "step2")["metrics"] for out in both)
        shared = {k for k in one if not k.startswith("time/")} - {"rollout/feature_mb"}
        assert len(shared) > 15 and one["buffer/clips"] > 0
        for k in shared:
            assert one[k] == pytest.approx(two[k], rel=1e-4, abs=1e-5, nan_ok=True), (name, k)


def test_an_evaluation_is_that_of_all_ranks(both):
    one, two = (checkpoint.load(out / "measured") for out in both)
    assert one["starts"].tolist() == two["starts"].tolist() == list(range(7))
    assert one["success"].tolist() == two["success"].tolist()
    for name in ("heldout", "executed"):
        assert one[name] == pytest.approx(two[name], rel=1e-4) and len(one[name]) == 2


@pytest.mark.parametrize("where", [".", "sharded"])
def test_an_evaluation_during_training_is_that_of_all_ranks(both, where):
    """Its metrics, the sampler that it chooses and the weights of `best`."""
    one, two = both[0], both[1] / where
    alone, shared = (checkpoint.load(folder / "watched") for folder in (one, two))
    assert alone["metrics"].pop("time/eval") > 0 and shared["metrics"].pop("time/eval") > 0
    assert alone == shared and alone["metrics"]["eval/episodes"] == 7
    alone, shared = (load_state(folder / "checkpoints" / "best") for folder in (one, two))
    runs = [state.pop("run") for state in (alone, shared)]  # which say whether weights are split
    assert [run["train"]["world"]["shard"] for run in runs] == [False, where == "sharded"]
    assert tiny.difference(alone, shared) is None and alone["iteration"] == 1


def test_a_late_rank_goes_the_way_of_the_first(both):
    assert checkpoint.load(both[1] / "late")["recorded"] == 2


@pytest.mark.parametrize("where", [".", "sharded"])
def test_two_ranks_resume_bitwise(both, where):
    folder = both[1] / where
    straight, resumed = (checkpoint.load(folder / name) for name in ("ppo/step2", "resumed"))
    del straight["metrics"]
    assert tiny.difference(straight, resumed) is None
    parts = [list(checkpoint.load_parts(folder / name)) for name in ("ppo/step2", "resumed")]
    assert len(parts[0]) == 2 and tiny.difference(*({"parts": p} for p in parts)) is None
    assert all(len(p["places"]) for p in parts[0]), "each rank has clips of its own"


def test_what_two_ranks_saved_goes_on_in_one(both, tmp_path):
    with tiny.CONFIG.build_pool() as pool:
        ranks.resume(ranks.RUNS["ppo"], pool, both[1] / "ppo" / "step1", tmp_path / "alone")
    # Sums in another order: the value head's epochs carry that into the second iteration.
    assert (
        tiny.distance(checkpoint.load(tmp_path / "alone"), checkpoint.load(both[0] / "resumed"))
        < 2e-6
    )
    assert len(list(checkpoint.load_parts(tmp_path / "alone"))) == 1


@pytest.mark.parametrize("name", ["sft", "lone", "ppo/step1", "ppo/step2", "resumed"])
def test_a_sharded_world_model_learns_the_same(both, name):
    """Its checkpoint is whole again when it is read;
    in two ranks and in one it goes on as if nothing had been.
    """
    one, two = checkpoint.load(both[0] / name), checkpoint.load(both[1] / "sharded" / name)
    assert tiny.distance(one, two) < 1e-6
    shards = sorted((both[1] / "sharded" / name).glob("shards-*.safetensors"))
    assert len(shards) == 2 and all(s.stat().st_size > 1000 for s in shards)
    if name == "ppo/step1":
        alone = ranks.begun(ranks.RUNS["ppo"], seed=5)
        alone.load_state_dict(two, checkpoint.load_parts(both[1] / "sharded" / name))
        assert tiny.distance(alone.state_dict(), one) < 1e-6


def test_a_rank_without_any_success_keeps_nobody_waiting(both):
    for name in ("ppo", "grpo"):
        folder = both[1] / "lopsided" / name / "step2"
        first, second = checkpoint.load_parts(folder)
        assert (
            len(second["places"])
            == 0
            < len(first["places"])
            == checkpoint.load(folder)["metrics"]["buffer/clips"]
        )


def test_a_dead_rank_ends_the_run(tmp_path):
    command, begin = (
        [*TORCHRUN, "-m", "tests.support.ranks", str(tmp_path / "out"), "killed"],
        time.monotonic(),
    )
    done = subprocess.run(command, cwd=ROOT, env=ENV, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0 and time.monotonic() - begin < 90
    assert (
        not (tmp_path / "out" / "step1").exists()
        and str(-signal.SIGKILL) in done.stdout + done.stderr
    )
    assert "another rank has ended" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"RANK": None}, "WORLD_SIZE=2 and no RANK"),
        ({"MASTER_ADDR": None, "MASTER_PORT": None}, "no MASTER_ADDR, MASTER_PORT"),
        ({"RANK": "2"}, "WORLD_SIZE=2 and RANK=2"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE=two and RANK=1"),
        ({"WORLD_SIZE": "-1"}, "WORLD_SIZE=-1"),
    ],
)
def test_half_a_place_among_ranks_is_one_sentence(second_of_two, monkeypatch, change, words):
    assert dist.place_from_environment() == {"rank": 1, "world_size": 2}
    for name, value in change.items():
        monkeypatch.delenv(name) if value is None else monkeypatch.setenv(name, value)
    sentence = refused("train", "point", "--smoke", "--base", "/nowhere", code=2)
    assert words in sentence and "torchrun" in sentence


def test_other_verbs_refuse_several_ranks(second_of_two, tmp_path):
    sentence = refused("demos", "point", "--out", tmp_path, code=2)
    assert "demos runs on one rank: several serve" in sentence


def test_one_rank_is_the_identity():
    x = torch.arange(3)
    assert (
        dist.all_sum(x) is x
        and dist.all_gather(x) is x
        and dist.offset_and_count(7) == (0, 7)
        and dist.rank_slice(7) == slice(0, 7)
    )
    assert (
        dist.broadcast_text("a/b") == "a/b"
        and dist.gather_texts(["x", "", "y z"]) == ["x", "", "y z"]
        and dist.gather_texts([]) == []
    )
