"""What a run trains on and what it keeps: its own demonstrations,
other people's datasets, rollouts played again.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.support import tiny
from wamrl.data.demos import collect, load, save
from wamrl.runs.demonstrations import env_spec, has_data, keep_rollout, load_data, record
from wamrl.types import Episode


@pytest.fixture(scope="module")
def episodes() -> list[Episode]:
    return collect(replace(tiny.CONFIG.demos("demo"), episodes=12, n_workers=0))


def test_a_dataset_alone_holds_out_its_last_successes(episodes, tmp_path):
    save(episodes, env_spec(tiny.CONFIG), tmp_path / "some")
    assert has_data(tmp_path / "some") and not has_data(tmp_path)
    good = [e for e in episodes if e.success]
    held = min(tiny.CONFIG.data.heldout, len(good) // 5)
    data = load_data(tiny.CONFIG, tmp_path / "some")
    assert data.demos.episodes == len(good) - held and len(data.demos) == sum(
        len(e.actions) for e in good[:-held]
    )
    last = data.demos.at(torch.tensor([len(data.demos) - 1]))
    assert np.array_equal(last.frames[0, 0], good[-held - 1].frames[-2])
    assert np.array_equal(data.heldout.frames[0, 0], good[-held].frames[0])


def test_one_success_is_too_few(episodes, tmp_path):
    good = next(e for e in episodes if e.success)
    save([good, replace(good, success=False)], env_spec(tiny.CONFIG), tmp_path / "some")
    with pytest.raises(ValueError, match="holds 1 successful episodes: two are the least"):
        load_data(tiny.CONFIG, tmp_path / "some")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"proprio": np.zeros((9, 5), np.float32)},
            "its state dimensions are 5, the environment's 4",
        ),
        (
            dict.fromkeys(("actions", "executed"), np.zeros((8, 3), np.float32)),
            "action dimensions are 3",
        ),
        (
            {"frames": np.zeros((9, 2, 16, 16, 3), np.uint8)},
            "its cameras are 2, the environment's 1",
        ),
        ({"frames": np.zeros((9, 1, 20, 16, 3), np.uint8)}, "image size are"),
    ],
)
def test_what_does_not_fit_the_environment_is_named(episodes, tmp_path, change, sentence):
    e = episodes[0]
    e = replace(
        e,
        frames=e.frames[:9],
        proprio=e.proprio[:9],
        actions=e.actions[:8],
        executed=e.executed[:8],
    )
    e = replace(e, **change)
    spec = replace(
        env_spec(tiny.CONFIG),
        proprio_dim=e.proprio.shape[1],
        action_dim=e.actions.shape[1],
        views=("front", "side")[: e.frames.shape[1]],
        image_hw=e.frames.shape[2:4],
    )
    save([e, e], spec, tmp_path / "other")
    with pytest.raises(ValueError, match=sentence):
        load_data(tiny.CONFIG, tmp_path / "other")


def test_a_rollout_played_again_is_what_was_seen(tmp_path):
    wam = tiny.lively()
    with tiny.CONFIG.build_pool() as pool:
        rollout = tiny.explore(wam, pool, n=6)
    keep_rollout(tiny.CONFIG, rollout, tmp_path / "kept")
    kept = load(tmp_path / "kept", env_spec(tiny.CONFIG))
    assert [e.success for e in kept] == rollout.success.tolist()
    assert [len(e.actions) for e in kept] == rollout.length.tolist()
    for number, episode in enumerate(kept):
        chunks = rollout.decisions[rollout.decisions.episode == number]
        for chunk in range(len(chunks)):
            step = int(chunks.step[chunk])
            assert np.array_equal(episode.frames[step], chunks.obs.frames[chunk, -1])
            assert np.array_equal(episode.proprio[step], chunks.obs.proprio[chunk])
            for offset, frame, real in zip(
                rollout.frame_offsets, chunks.frames[chunk], chunks.verifiable[chunk], strict=True
            ):
                assert not real or np.array_equal(episode.frames[step + offset], frame)
    keep_rollout(tiny.CONFIG, rollout, tmp_path / "kept")  # a resumed run has it already


def test_a_run_folder_is_read_as_before(tmp_path):
    record(tiny.CONFIG, tmp_path)
    data = load_data(tiny.CONFIG, tmp_path)
    assert 0 < data.demos.episodes <= tiny.CONFIG.data.episodes and len(data.heldout) > 0
