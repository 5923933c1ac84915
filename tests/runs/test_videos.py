"""What is only to be looked at never ends a run."""

from dataclasses import replace

import pytest

from tests.support import tiny
from tests.support.odd_gym import slide
from wamrl.evaluate import EvalConfig, measure
from wamrl.runs.phases import fresh_model
from wamrl.runs.videos import write_comparison, write_videos

CFG = replace(tiny.CONFIG, env=slide("wins_at_once"), eval=EvalConfig(episodes=4, choose=4))


def test_episodes_shorter_than_the_first_frame_end_nothing(tmp_path, capsys):
    wam = fresh_model(CFG)
    wam.sampler = "ode"
    with CFG.build_pool() as pool:
        options = {"seed": 0, "heldout": None, "title": "model"}
        result, rollout = measure(wam, pool, CFG.eval, CFG.flow, **options)
        assert result.length.tolist() == [1] * 4 and result.success.all()
        write_videos(CFG, wam, rollout, tmp_path / "videos")
        assert write_comparison(CFG, wam, wam, pool, [0, 1], tmp_path / "compare") is None
    assert not list(tmp_path.rglob("*.mp4")) and "note" not in capsys.readouterr().out


def test_a_video_that_cannot_be_written_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("wamrl.runs.videos.film", lambda *_: 1 / 0)
    wam = tiny.fresh()
    with tiny.CONFIG.build_pool() as pool:
        rollout = tiny.explore(wam, pool, n=2)
    assert write_videos(tiny.CONFIG, wam, rollout, tmp_path) is None
    said = " ".join(capsys.readouterr().out.split())
    assert "note: no videos of episodes (division by zero); the run goes on" in said


def test_who_interrupts_is_heard(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("wamrl.runs.videos.film", interrupt)
    wam = tiny.fresh()
    with tiny.CONFIG.build_pool() as pool:
        rollout = tiny.explore(wam, pool, n=2)
    with pytest.raises(KeyboardInterrupt):
        write_videos(tiny.CONFIG, wam, rollout, tmp_path)
