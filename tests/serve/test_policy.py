"""A policy acts as `evaluate` does, whatever its observations are called; bad ones are refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support import remembering, tiny
from tests.support.saved_runs import saved_run
from wamrl.envs.base import EnvSpec
from wamrl.evaluate import EvalConfig, evaluate
from wamrl.models.saved import save_wam
from wamrl.runs.demonstrations import env_spec
from wamrl.serve.observation import ObservationReader
from wamrl.serve.policy import Policy
from wamrl.serve.saved import Saved, open_saved, read_config
from wamrl.types import InitialState, Past

SPEC = EnvSpec(
    name="two cameras",
    instruction="go",
    views=("front", "wrist"),
    image_hw=(8, 8),
    action_dim=2,
    proprio_dim=3,
    horizon=10,
)
FRONT = np.full((8, 8, 3), 10, np.uint8)
WRIST = np.full((16, 16, 3), 200, np.uint8)
STATE = np.arange(3.0)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    # looks back, by more than a frame drawn per chunk would tell
    return open_saved(saved_run(root, model__history_offsets=(-3, 0), flow__deploy="explore"))


@pytest.fixture(scope="module")
def remembers():
    """Of an episode's five decisions the last two."""
    model = replace(remembering.SHORT, history_offsets=(-3, 0))
    cfg = replace(tiny.CONFIG, model=model)
    wam = tiny.lively(model=model).eval()
    spec = env_spec(cfg)
    return Saved(path=Path("nowhere"), config=cfg, spec=spec, wam=wam, sampler="explore")


def seen(env) -> dict:
    return {"observation.images.top": env.render()[0], "observation.state": env.proprio()}


def test_a_model_of_several_tasks_must_be_told_which(tmp_path):
    spec = replace(SPEC, instruction="go; stop", instructions=("go", "stop"))
    seen = {"front": FRONT, "wrist": WRIST, "state": STATE}
    with pytest.raises(ValueError, match="made for 2 tasks: say which by task, one of: go; stop"):
        ObservationReader(spec).read(seen)
    assert ObservationReader(spec).read(seen | {"task": "stop"})[2] == "stop"


@pytest.mark.parametrize(("kind", "index"), [("saved", 0), ("saved", 3), ("remembers", 3)])
def test_it_plays_an_episode_as_evaluate_does(kind, index, request):
    """With exploration noise, so that a number drawn in another order shows."""
    saved = request.getfixturevalue(kind)
    cfg = saved.config
    flow = cfg.flow.at(1.0)
    with cfg.build_pool() as pool:
        options = {"seed": cfg.seed, "sampler": saved.sampler}
        played = evaluate(saved.wam, pool, EvalConfig(episodes=4), flow, **options)
    rows = played.decisions.episode == index
    expected = played.decisions.plan.actions[rows].clamp(-1, 1).numpy()
    policy = Policy(saved)
    policy.reset(index)
    env = cfg.env.build()
    env.reset(InitialState(split="eval", index=index).seed)
    actions = []
    while True:
        actions.append(policy.select_action(seen(env)))
        result = env.step(actions[-1])
        if result.terminated or result.truncated:
            break
    assert len(actions) == int(played.length[index]) > cfg.model.chunk
    found = np.concatenate([*actions, np.zeros((-len(actions) % 8, 2), np.float32)], axis=None)
    difference = (
        np.abs(found.reshape(-1, 8, 2) - expected) * played.decisions.mask[rows][..., None].numpy()
    )
    assert difference.max() < 1e-4  # rounding: another batch


def test_history_is_kept_by_the_clock_of_control_steps(saved):
    env = saved.config.env.build()
    env.reset(0)
    first = seen(env)
    policy = Policy(saved)
    chunk = policy.act(first)
    assert chunk.shape == (8, 2) and chunk.dtype == np.float32
    for action in chunk:
        env.step(action)
    after = seen(env)

    def second(before: dict, executed: int | None = None, between: dict | None = None):
        policy.reset(0)
        policy.act(before)
        if between is not None:
            policy._observe(between["observation.images.top"][None], 4)
        return policy.act(after, executed)

    moved = second(first)  # 8 steps later: three back, the latest is `first`
    assert np.array_equal(second(first, executed=8), moved)
    assert np.array_equal(second(first, executed=0), moved)  # nothing is older
    assert not np.array_equal(second(after), moved)
    assert np.array_equal(second(after, 4, between=first), moved)  # the latest three back
    assert np.array_equal(second(first, 2, between=after), moved)  # two back is not three


def test_what_is_remembered_goes_by_what_was_executed(remembers):
    """Looking ahead changes nothing; a chunk of which nothing was executed is not remembered."""
    env = remembers.config.env.build()
    env.reset(0)
    first = seen(env)
    policy = Policy(remembers)

    def second(executed: int | None, ahead: bool = False) -> Past:
        policy.reset(0)
        policy.act(first)
        if ahead:
            policy.imagine(first)
        policy.act(first, executed)
        return policy._last[0].past

    whole = second(None)
    assert whole.executed.tolist() == [[0, 8]]
    assert torch.equal(second(None, ahead=True).actions, whole.actions)
    assert second(3).executed.tolist() == [[0, 3]]
    assert torch.equal(second(3).actions[:, 1, :3], whole.actions[:, 1, :3])
    assert not second(3).actions[:, 1, 3:].any()
    assert second(0).executed.tolist() == [[0, 0]]
    policy.reset(0)
    policy.act(first)
    imagined = policy.imagine(first)
    policy.act(first)
    assert np.array_equal(policy.imagine(), imagined)  # of the decision that came then
    policy.act(first)
    policy.act(first)
    assert policy._last[0].past.executed.tolist() == [[8, 8]]
    policy.reset(0)
    policy.act(first)
    assert not policy._last[0].past.executed.any()


def test_the_bounds_are_those_of_the_environment(tmp_path):
    saved = open_saved(saved_run(tmp_path))
    narrow = replace(
        saved, spec=replace(saved.spec, action_low=(-0.1, -0.1), action_high=(0.05, 0.05))
    )
    env = saved.config.env.build()
    env.reset(0)
    wide, clipped = Policy(saved).act(seen(env)), Policy(narrow).act(seen(env))
    assert np.abs(wide).max() > 0.1
    assert np.array_equal(clipped, np.clip(wide, -0.1, 0.05))


def test_imagining_is_what_acting_would_read_and_changes_nothing(saved):
    env = saved.config.env.build()
    env.reset(0)
    obs = seen(env)
    policy = Policy(saved)
    with pytest.raises(ValueError, match="nothing was decided"):
        policy.imagine()
    before = policy.imagine(obs)
    assert before.shape == (2, 1, 32, 32, 3) and before.dtype == np.uint8
    chunk = policy.act(obs)
    assert np.array_equal(policy.imagine(), before)
    policy.reset(0)
    assert np.array_equal(policy.act(obs), chunk)
    with pytest.raises(ValueError, match="steps=0"):
        policy.imagine(steps=0)


NAMES = {
    "lerobot": {
        "observation.images.front": FRONT,
        "observation.images.wrist": WRIST,
        "observation.state": STATE,
    },
    "gymnasium": {"pixels": {"front": FRONT, "wrist": WRIST}, "agent_pos": STATE},
    "openpi": {
        "observation/front_image": FRONT,
        "observation/wrist_image": WRIST,
        "observation/state": STATE,
        "prompt": "go",
    },
    "nested": {
        "observation": {"images": {"front": FRONT, "wrist": WRIST}, "state": STATE},
        "task": ["go"],
    },
    "plain": {"front": FRONT, "wrist": WRIST, "state": STATE.tolist(), "reward": 1.0},
    "torch": {
        "observation.images.front": torch.from_numpy(FRONT).permute(2, 0, 1)[None] / 255,
        "observation.images.wrist": torch.from_numpy(WRIST).permute(2, 0, 1)[None] / 255,
        "observation.state": torch.from_numpy(STATE)[None],
    },
}


@pytest.mark.parametrize("kind", NAMES)
def test_observations_are_read_by_any_of_the_usual_names(kind):
    frames, state, text = ObservationReader(SPEC).read(NAMES[kind])
    assert frames.shape == (2, 8, 8, 3) and frames.dtype == np.uint8
    assert (frames[0] == 10).all() and (frames[1] == 200).all()
    assert state.dtype == np.float32 and state.tolist() == [0, 1, 2] and text == "go"


def test_one_camera_needs_no_name_and_a_state_may_have_parts():
    spec = replace(SPEC, views=("top",))
    for key in ("pixels", "observation.image", "image"):
        frames, _, _ = ObservationReader(spec).read({key: FRONT, "agent_pos": STATE})
        assert (frames == 10).all()
    reader = ObservationReader(spec, ("arm/angles", "gripper"))
    obs = {"pixels": FRONT, "arm": {"angles": [1.0, 2.0]}, "gripper": [3.0], "prompt": "stop"}
    _, state, text = reader.read(obs)
    assert state.tolist() == [1, 2, 3] and text == "stop"


GOOD = NAMES["lerobot"]
BAD = {
    "no image of camera 'wrist'": {k: v for k, v in GOOD.items() if "wrist" not in k},
    "no state: give observation.state, 3 numbers": {
        k: v for k, v in GOOD.items() if "state" not in k
    },
    "state has 4 numbers": GOOD | {"observation.state": np.zeros(4)},
    "not finite": GOOD | {"observation.state": np.array([0, np.nan, 0])},
    "must hold numbers": GOOD | {"observation.state": "abc"},
    "twice": GOOD | {"observation/state": STATE},
    "'wrist' and 'images.wrist': leave one out": GOOD | {"wrist": WRIST},
    r"one picture \(H, W, 3\)": GOOD
    | {"observation.images.front": np.zeros((2, 8, 8, 3), np.uint8)},
    "uint8 or floats": GOOD | {"observation.images.front": FRONT.astype(np.int64)},
    r"must lie in \[0, 1\]": GOOD | {"observation.images.front": FRONT.astype(np.float32)},
    "one text": GOOD | {"task": 3},
    "keys of an observation are texts": GOOD | {3: 4},
    "nested more than": {"a": {"b": {"c": {"d": {"e": 1}}}}},
    "dict of arrays, not list": [1],
}


@pytest.mark.parametrize("sentence", BAD)
def test_a_bad_observation_is_one_sentence(sentence):
    with pytest.raises(ValueError, match=sentence):
        ObservationReader(SPEC).read(BAD[sentence])


def test_a_refused_observation_leaves_the_episode_as_it_was(saved):
    env = saved.config.env.build()
    env.reset(0)
    policy = Policy(saved)
    expected = policy.act(seen(env))
    policy.reset(0)
    for bad in ({}, seen(env) | {"observation.state": [1.0]}):
        with pytest.raises(ValueError, match="the (observation|state) has"):
            policy.act(bad)
    assert np.array_equal(policy.act(seen(env)), expected)
    with pytest.raises(ValueError, match="executed=-1"):
        policy.act(seen(env), executed=-1)


def test_the_sampler_is_the_deployed_one(tmp_path, capsys):
    run = saved_run(tmp_path)
    assert open_saved(run).sampler == "ode"
    assert open_saved(run, sampler="zero").sampler == "zero"
    with pytest.raises(ValueError, match="sampler='best' is not possible"):
        open_saved(run, sampler="best")
    saved = open_saved(run)
    deployed = replace(saved.config, flow=replace(saved.config.flow, deploy="explore"))
    assert open_saved(run, deployed).sampler == "explore"
    saved.wam.sampler = None
    save_wam(saved.config.model, saved.spec, saved.wam, run, "final")
    assert open_saved(run).sampler == "zero"
    assert "no evaluation has chosen this model's sampler yet" in capsys.readouterr().out


def test_a_checkpoint_in_a_run_will_do_and_the_config_comes_back_whole(tmp_path):
    run = saved_run(tmp_path, train__learner__target_kl=0.125)
    config = read_config(run)
    assert config.train.learner.target_kl == 0.125
    assert open_saved(run / "checkpoints" / "final").config == config


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda c: c["env"].update({"class": "os:system"}),
            "config.env is a os:system",
        ),
        (
            lambda c: c["env"].update({"class": "evil_module:EvilConfig"}),
            "import evil_module first, if you trust it",
        ),
        (lambda c: c["flow"].update({"speed": 3}), "has speed, which this wamrl does not know"),
        (lambda c: c.update({"class": "wamrl.sft:SFTConfig"}), "which is not loaded"),
    ],
)
def test_a_config_that_is_no_config_is_refused_and_nothing_is_imported(tmp_path, change, sentence):
    run = saved_run(tmp_path)
    content = json.loads((run / "config.json").read_text())
    change(content)
    (run / "config.json").write_text(json.dumps(content))
    (tmp_path / "evil_module.py").write_text("raise SystemExit('executed')")
    with pytest.raises(ValueError, match=f"{sentence}.*give its recipe"):
        read_config(run)


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is not in a run folder"):
        open_saved(tmp_path)


def test_a_model_folder_that_was_copied_away_is_all_that_is_needed(tmp_path, monkeypatch):
    """It acts as in its run, at the deployed noise, and no simulator is built."""
    run = saved_run(tmp_path / "runs", flow__noise=0.5, flow__noise_end=0.25)
    away = tmp_path / "away" / "model"
    shutil.copytree(run / "checkpoints" / "final", away)
    here = open_saved(run)
    monkeypatch.setattr("wamrl.serve.saved.env_spec", None)
    there = open_saved(away)
    assert there.config == here.config and there.spec == here.spec
    assert there.flow == here.flow and there.flow.noise == 0.25 and there.sampler == "ode"
    assert not tiny.changed(there.wam, tiny.snapshot(here.wam))
    about = json.loads((away / "config.json").read_text())
    del about["run"]  # as folders of before
    (away / "config.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match="does not say how its run was made: give its recipe"):
        read_config(away)
