"""What a video shows, decoded again."""

import json
from dataclasses import replace

import av
import numpy as np
import pytest

from tests.support import tiny
from wamrl.report import Film, side_by_side
from wamrl.report.video import error_map, playback_fps
from wamrl.runs.videos import film, played_again, write_videos

BAR = 28


def _decode(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        facts = json.loads(container.metadata["comment"])
        pictures = [f.to_ndarray(format="rgb24").astype(int) for f in container.decode(stream)]
        return pictures, float(stream.average_rate), facts


def _film(**changes) -> Film:
    imagined, executed = (np.zeros((2, 2, 64, 64, 3), np.uint8) for _ in range(2))
    imagined[..., 0] = 220
    executed[..., 2] = 220
    facts = {"imagined": imagined, "executed": executed, "steps": (2, 4), "length": 5}
    return Film(
        **facts | {"success": True, "instruction": "press it", "control_hz": 80.0} | changes
    )


def test_three_columns_at_every_control_step(tmp_path):
    every = np.full((6, 2, 64, 64, 3), 90, np.uint8)
    side_by_side(tmp_path / "v.mp4", _film(every=every), title="initial state 3")
    pictures, fps, facts = _decode(tmp_path / "v.mp4")
    assert len(pictures) == 6 and fps == 20  # four times slower than its world
    assert facts == {"instruction": "press it", "control_hz": 80.0}
    height, width, _ = pictures[0].shape
    assert height % 2 == width % 2 == 0 and width >= 3 * 256
    for picture in pictures:
        for row in (height // 4, 3 * height // 4):  # a row per view
            red, grey = picture[row, width // 6], picture[row, width // 2]
            assert red[0] > 180 and red[2] < 60 and abs(grey - 90).max() < 8
        for words in (picture[:BAR], picture[BAR : 2 * BAR, : width // 3], picture[-BAR:]):
            assert words.max() > 180
    column = [picture[height // 4, 5 * width // 6] for picture in pictures]
    assert column[1].max() < 60  # nothing has come true yet
    assert column[2].max() > 150  # red against blue, far apart
    assert [p.name for p in tmp_path.iterdir()] == ["v.mp4"]


@pytest.mark.parametrize(("success", "over"), [(True, 1), (False, 0)], ids=["success", "failure"])
def test_the_outcome_shows_in_the_last_picture_only(tmp_path, success: bool, over: int):
    every = np.full((6, 2, 64, 64, 3), 90, np.uint8)
    side_by_side(tmp_path / "v.mp4", _film(every=every, success=success))
    pictures, _, _ = _decode(tmp_path / "v.mp4")

    def colour(picture) -> int:
        bars = np.concatenate([picture[:BAR], picture[-BAR:]]).reshape(-1, 3)
        return int(abs(bars[:, 1] - bars[:, 0]).max())

    assert max(colour(p) for p in pictures[:-1]) < 40 and colour(pictures[-1]) > 60


def test_without_a_replay_the_frames_that_were_looked_at(tmp_path):
    side_by_side(tmp_path / "v.mp4", _film(control_hz=None))
    pictures, fps, _ = _decode(tmp_path / "v.mp4")
    assert len(pictures) == 2 and fps == 4


@pytest.mark.parametrize(
    ("hz", "fps"), [(80.0, 20), (20.0, 20), (24.0, 24), (50.0, 50 / 3), (10.0, 10), (None, 12)]
)
def test_playback_is_the_worlds_pace_or_a_whole_number_of_times_slower(hz, fps: float):
    assert float(playback_fps(hz)) == pytest.approx(fps, rel=1e-3)


def test_the_error_map_is_black_where_there_is_none():
    a = np.zeros((1, 2, 2, 3), np.uint8)
    b = a.copy()
    b[0, 1] = 255
    found = error_map(a, b).astype(int)
    assert found[0, 0].max() < 10 and found[0, 1].min() > 150


def test_film_complaints():
    frames = np.zeros((2, 1, 8, 8, 3), np.uint8)
    for changes in ({"executed": frames[:1]}, {"steps": (1,)}, {"executed": frames[0]}):
        with pytest.raises(ValueError, match="film"):
            _film(**{"imagined": frames, "executed": frames} | changes)


def test_an_episode_is_played_again_as_it_was(tmp_path):
    wam = tiny.lively()
    with tiny.build_pool() as pool:
        rollout = tiny.explore(wam, pool, n=4)
    env = tiny.ENV.build()
    shown = film(tiny.CONFIG, wam, rollout, 0, env)
    assert len(shown.every) == shown.length + 1
    for step, frame in zip(shown.steps, shown.executed, strict=True):
        assert np.array_equal(shown.every[step], frame)
    assert shown.instruction == env.spec.instruction
    write_videos(tiny.CONFIG, wam, rollout, tmp_path, most=2)
    videos = [_decode(path)[0] for path in tmp_path.glob("start*.mp4")]
    assert len(videos) == 2 and min(map(len, videos)) > 8
    chunks = rollout.decisions[rollout.decisions.episode == 0]
    stopped = replace(chunks, executed=chunks.executed.clamp(max=1))
    frames, states = played_again(env, rollout.starts[0], stopped)
    assert len(frames) == len(states) == len(chunks) + 1
    rollout.decisions.plan.actions.neg_()  # no longer what was executed
    other = film(tiny.CONFIG, wam, rollout, 0, env)
    assert other.every is None and other.state is None
