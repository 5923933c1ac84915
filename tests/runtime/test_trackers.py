"""What trackers are given is what they hold, without a network, with the real packages."""

import importlib.util
import json
import sqlite3
import sys

import pytest

from tests.support.command_line import POINT, refused
from tests.support.run_folders import write_run, write_video
from wamrl.report import learning_curve
from wamrl.report.curves import Point
from wamrl.runtime.log import Logger, read_metrics
from wamrl.runtime.trackers import TRACKERS, Tracker, check_trackers, publish


def needs(name: str):
    missing = importlib.util.find_spec(name) is None
    return pytest.mark.skipif(missing, reason=f"{name} is not installed: pip install {name}")


@pytest.fixture
def run(tmp_path):
    path = write_run(tmp_path / "point-1")
    (path / "metrics.jsonl").unlink()
    points = [Point(x=0, successes=1, episodes=4), Point(x=8, successes=3, episodes=4)]
    learning_curve(path / "learning_curve.png", {"evaluated": points})
    write_video(path / "videos" / "after" / "start0001-failure.mp4")
    return path


def play(run, name: str) -> None:
    """A run as it goes: demonstrations, the online loop, pictures at the end."""
    with Logger(run, trackers=(name,)) as logger:
        logger.log(-3, {"sft/video_loss": 0.5, "sft/lr": float("nan")})
    with Logger(run, resume_step=0, trackers=(name,)) as logger:
        logger.log(1, {"eval/success": 0.25})
    publish(run, (name,), 1)


def test_every_tracker_gets_finite_numbers_and_files(run, monkeypatch):
    seen = []

    class Recording(Tracker):
        def __init__(self, run, config, resume_step):
            seen.append(("config", config["name"], resume_step))

        def log(self, step, numbers):
            seen.append((step, numbers))

        def file(self, step, name, path):
            seen.append((step, name, path.suffix))

        def close(self):
            seen.append("closed")

    monkeypatch.setitem(TRACKERS, "recording", Recording)
    play(run, "recording")
    assert seen[:3] == [("config", "point", None), (-3, {"sft/video_loss": 0.5}), "closed"]
    assert seen[3:6] == [("config", "point", 0), (1, {"eval/success": 0.25}), "closed"]
    assert seen[7:9] == [
        (1, "learning_curve", ".png"),
        (1, "videos/after/start0001-failure", ".mp4"),
    ]
    assert [row["step"] for row in read_metrics(run)] == [-3, 1]


@pytest.mark.parametrize("where", ["__init__", "log", "file", "close"])
def test_a_service_that_fails_ends_no_run(run, monkeypatch, capsys, where):
    class Service(Tracker):
        def __init__(self, run, config, resume_step):
            self._do("__init__")

        def log(self, step, numbers):
            self._do("log")

        def file(self, step, name, path):
            self._do("file")

        def close(self):
            self._do("close")

        def _do(self, what):
            if what == where:
                raise ConnectionError("nobody answers")

    monkeypatch.setitem(TRACKERS, "service", Service)
    play(run, "service")
    assert "the tracker service failed" in capsys.readouterr().err
    assert [row["step"] for row in read_metrics(run)] == [-3, 1]


def test_tensorboard(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    play(run, "tensorboard")
    board = EventAccumulator(str(run / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in board.Scalars("eval/success")] == [(1, 0.25)]
    assert board.Tags()["images"] == ["learning_curve"]


@needs("wandb")
def test_wandb_offline(run, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    play(run, "wandb")
    kept = b"".join(p.read_bytes() for p in sorted(run.glob("wandb/offline-run-*/*.wandb")))
    for word in (b"eval/success", b"sft/video_loss", b"PointConfig"):
        assert word in kept
    media = [p.suffix for p in run.glob("wandb/offline-run-*/files/media/**/*") if p.is_file()]
    assert sorted(media) == [".mp4", ".png"]


@needs("trackio")
def test_trackio_offline(run, monkeypatch):
    monkeypatch.delenv("TRACKIO_DIR", raising=False)
    for name in [n for n in sys.modules if n.split(".")[0] == "trackio"]:
        monkeypatch.delitem(sys.modules, name)  # it reads its folder when it is imported
    play(run, "trackio")
    (database,) = (run.parent / "trackio").glob("*.db")
    with sqlite3.connect(database) as connection:
        lines = connection.execute("select step, metrics from metrics").fetchall()
    numbers = [(step, json.loads(metrics)) for step, metrics in lines]
    assert (-3, {"sft/video_loss": 0.5}) in numbers and (1, {"eval/success": 0.25}) in numbers
    media = (run.parent / "trackio" / "media").rglob("*.*")
    assert {path.suffix for path in media} == {".mp4", ".png"}


def test_a_tracker_that_is_not_there_is_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install wandb"):
        check_trackers(("wandb",))
    monkeypatch.undo()
    with pytest.raises(ValueError, match="choose of tensorboard, wandb, trackio"):
        check_trackers(("notepad",))
    monkeypatch.setattr("wamrl.runs.folder.check_trackers", _refuse)
    assert "not here" in refused("demos", *POINT, "--out", tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def _refuse(names) -> None:
    raise ValueError("not here")
