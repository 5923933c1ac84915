"""What a recording for rerun holds, read again by rerun itself; and what is said without it."""

from dataclasses import replace

import numpy as np
import pytest

from tests.support import tiny
from tests.support.command_line import wamrl
from wamrl.report import write_recording
from wamrl.runs.videos import film, signals, write_videos


@pytest.fixture(scope="module")
def played():
    """A model, its rollout, and its first episode as a film of a world of 20 steps a second."""
    wam = tiny.lively()
    with tiny.build_pool() as pool:
        rollout = tiny.explore(wam, pool, n=2)
    env = tiny.ENV.build()
    return wam, rollout, replace(film(tiny.CONFIG, wam, rollout, 0, env), control_hz=20.0)


def test_action_state_and_reward_are_those_of_the_episode(played):
    wam, rollout, shown = played
    found = signals(tiny.CONFIG, wam, rollout, 0, shown)
    chunks = rollout.decisions[rollout.decisions.episode == 0]
    assert found["action"].values.shape == (shown.length, 2)
    assert np.abs(found["action"].values).max() <= 1  # clipped, as executed
    at_decisions = found["state"].values[chunks.step.numpy()]
    assert np.allclose(at_decisions, chunks.obs.proprio.numpy(), atol=1e-6)
    assert len(found["state"].values) == shown.length + 1
    ends = found["reward/success"].steps
    assert ends[-1] == shown.length and len(ends) == len(chunks)
    assert bool(found["reward/success"].values[-1, 0]) == shown.success
    ours, copied, gain = (
        found[f"reward/{name}"].values for name in ("reconstruction", "copy", "gain")
    )
    assert np.allclose(gain, ours - copied) and (ours <= 0).all()
    other = signals(tiny.CONFIG, wam, rollout, 0, replace(shown, every=None, state=None))
    assert np.array_equal(other["state"].steps, chunks.step.numpy())


def test_the_file_holds_pictures_and_numbers_on_the_simulated_time_line(played, tmp_path):
    reading = pytest.importorskip("rerun.chunk", reason="needs pip install -e '.[rerun]'")
    wam, rollout, shown = played
    found = signals(tiny.CONFIG, wam, rollout, 0, shown)
    write_recording(tmp_path / "e.rrd", shown, found, ("top",), title="initial state 3")
    assert [path.name for path in tmp_path.iterdir()] == ["e.rrd"]
    chunks = list(reading.RrdReader(str(tmp_path / "e.rrd")).store().stream())
    tables = {c.entity_path: c.to_record_batch().to_pydict() for c in chunks if not c.is_static}
    rows = {"executed": shown.length + 1, "imagined": len(shown.steps), "error": len(shown.steps)}
    for kind, expected in rows.items():
        assert len(tables[f"/{kind}/top"]["control_step"]) == expected
    png = bytes(tables["/executed/top"]["EncodedImage:blob"][5][0])
    assert np.array_equal(_decoded(png), shown.every[5, 0])
    for name, signal in found.items():
        table = tables[f"/{name}"]
        assert np.allclose(table["Scalars:scalars"], signal.values, equal_nan=True)
        assert table["control_step"] == signal.steps.tolist()
        seconds = [time.total_seconds() for time in table["simulated_time"]]
        assert np.allclose(seconds, signal.steps / 20)
    (about,) = (c.to_record_batch().to_pydict() for c in chunks if c.entity_path == "/about")
    words = about["TextDocument:text"][0][0]
    for fact in ("initial state 3", shown.instruction, "20 control steps a second", "own units"):
        assert fact in words


def _decoded(png: bytes) -> np.ndarray:
    import io

    from PIL import Image

    return np.array(Image.open(io.BytesIO(png)))


def test_each_video_has_its_recording_if_asked(played, tmp_path):
    pytest.importorskip("rerun", reason="needs pip install -e '.[rerun]'")
    wam, rollout, _ = played
    write_videos(tiny.CONFIG, wam, rollout, tmp_path / "with", recordings=True)
    write_videos(tiny.CONFIG, wam, rollout, tmp_path / "without")
    videos = sorted(path.stem for path in (tmp_path / "with").glob("*.mp4"))
    assert videos and videos == sorted(path.stem for path in (tmp_path / "with").glob("*.rrd"))
    assert not list((tmp_path / "without").glob("*.rrd"))


def test_without_the_package_one_sentence_and_nothing_done(point_run, tmp_path, monkeypatch):
    monkeypatch.setattr("wamrl.report.rerun_file.find_spec", lambda name: None)
    code, _, err = wamrl("eval", "--base", point_run, "--rerun", "--out", tmp_path / "runs")
    assert code == 1 and "pip install -e '.[rerun]'" in err and err.count("\n") == 1
    assert not (tmp_path / "runs").exists()
