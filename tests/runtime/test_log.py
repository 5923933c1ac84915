import io
import json
import math
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer

from wamrl.runtime import log
from wamrl.runtime.log import (
    Logger,
    bar,
    duration,
    new_run,
    read_metrics,
    resolved,
    summary_line,
    tracked,
)


@dataclass(frozen=True, kw_only=True)
class Inner:
    offsets: tuple[int, ...] = (4, 8)
    path: Path = Path("/tmp/x")
    loss: object = torch.nn.functional.mse_loss


@dataclass(frozen=True, kw_only=True)
class Outer:
    inner: Inner = Inner()
    rates: tuple[float, ...] = (1e-5, math.inf)
    name: str | None = None


@pytest.fixture
def output(monkeypatch):
    text = io.StringIO()
    monkeypatch.setattr(log, "console", Console(file=text, soft_wrap=True))
    return text


def test_runs_are_never_overwritten_and_hold_the_config(tmp_path):
    first, second = (new_run(tmp_path, "quick", Outer()) for _ in range(2))
    assert first != second and first.name.startswith("quick-2")
    config = json.loads((first / "config.json").read_text())
    inner = config["inner"]
    assert config["class"].endswith(":Outer") and inner["class"].endswith(":Inner")
    assert (
        inner["offsets"] == [4, 8]
        and inner["path"] == "/tmp/x"
        and inner["loss"] == "torch.nn.functional:mse_loss"
    )
    assert config["rates"] == [1e-5, "inf"] and config["name"] is None
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="choose another folder"):
        new_run(tmp_path / "file", "quick", Outer())


def test_resolved_keeps_every_kind_of_value():
    assert resolved({"a": {1: (True, torch.float32)}, "f": new_run}) == {
        "a": {"1": [True, "torch.float32"]},
        "f": "wamrl.runtime.log:new_run",
    }


def test_metrics_go_to_the_file_the_board_and_the_console(tmp_path, output):
    run = new_run(tmp_path, "r", Outer())
    with Logger(run) as logger:
        logger.log(
            0, {"a/b": torch.tensor(0.5), "bad": math.nan, "worse": -math.inf}, "iteration 0 [x]"
        )
        logger.log(3, {"a/b": 2})
    rows = read_metrics(run)
    assert (
        [r["step"] for r in rows] == [0, 3]
        and rows[0]["a/b"] == 0.5
        and rows[1]["seconds"] >= rows[0]["seconds"]
    )
    assert rows[0]["bad"] is None and rows[0]["worse"] is None
    assert output.getvalue() == "iteration 0 [x]\n"
    board = EventAccumulator(str(run / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in board.Scalars("a/b")] == [(0, 0.5), (3, 2.0)]


def test_resume_continues_from_the_step_that_counts(tmp_path, monkeypatch):
    # TensorBoard reads ...10 before ...9, unless they were opened in different seconds
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(9))
    run = new_run(tmp_path, "r", Outer())
    with Logger(run) as logger:
        for step in range(5):
            logger.log(step, {"loss": step})
    before = read_metrics(run)
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"step": 5, "lo')  # a crash in the middle of a line
    with Logger(run, resume_step=2) as logger:
        assert logger.seconds >= before[2]["seconds"]
        logger.log(3, {"loss": 33.0})
    rows = read_metrics(run)
    assert rows[:3] == before[:3] and [(r["step"], r["loss"]) for r in rows[3:]] == [(3, 33.0)]
    dropped = (run / "metrics-dropped.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in dropped] == before[3:]
    board = EventAccumulator(str(run / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in board.Scalars("loss")] == [
        (0, 0.0),
        (1, 1.0),
        (2, 2.0),
        (3, 33.0),
    ]


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is not a run folder"):
        Logger(tmp_path)
    assert not list(tmp_path.iterdir())


def test_progress_prints_lines_with_time_left_where_there_is_no_terminal(output, monkeypatch):
    clock = iter([0.0, *(4.0 * i for i in range(1, 100))])
    monkeypatch.setattr(log.time, "monotonic", lambda: next(clock))
    with bar("demos", 6) as advance:
        for _ in range(6):
            advance(1)
    assert (
        output.getvalue() == "demos: 3/6, 12 s gone, 12 s left\ndemos: 6/6, 24 s gone, 0 s left\n"
    )


def test_what_one_rank_has_done_stands_for_all(output, monkeypatch):
    clock = iter([0.0, 12.0, 24.0])
    monkeypatch.setattr(log.time, "monotonic", lambda: next(clock))
    with bar("episodes", 8, ranks=2) as advance:
        advance(2)
        advance(2)
    assert output.getvalue() == (
        "episodes: 4/8, 12 s gone, 12 s left\nepisodes: 8/8, 24 s gone, 0 s left\n"
    )


def test_a_resumed_bar_knows_no_time_left_before_its_first_result(output, monkeypatch):
    clock = iter([0.0, 20.0, 40.0])
    monkeypatch.setattr(log.time, "monotonic", lambda: next(clock))
    with bar("improving", 8, done=4) as advance:
        advance(0)
        advance(2)
    told = "improving: 4/8, 20 s gone\nimproving: 6/8, 40 s gone, 40 s left\n"
    assert output.getvalue() == told


def test_what_is_tracked_comes_through_and_leaves_no_row_behind(monkeypatch):
    text = io.StringIO()
    monkeypatch.setattr(log, "console", Console(file=text, force_terminal=True, width=90))
    with bar("outer", 2):
        assert list(tracked("inner", range(3))) == [0, 1, 2]
        for item in tracked("stopped", [1, 2, 3]):
            if item == 2:
                break
        assert [task.description for task in log._shown[0].tasks] == ["outer"]
    assert "inner" in text.getvalue()


def test_short_work_is_quiet(output):
    with bar("y", 2) as advance:
        advance(2)
    assert output.getvalue() == ""


def test_a_terminal_gets_a_bar(monkeypatch):
    text = io.StringIO()
    monkeypatch.setattr(log, "console", Console(file=text, force_terminal=True, width=90))
    with bar("rollout", 4) as advance:
        advance(1)
        with bar("inner", 2) as one_more:
            for _ in range(2):
                log.console.print("a line between")
                one_more(1)
        advance(3)
    assert "inner" in text.getvalue() and "rollout" in text.getvalue() and "4/4" in text.getvalue()


def test_lines_for_people():
    assert (
        summary_line("it 3", {"success": 0.25, "loss": torch.tensor(1.23456)})
        == "it 3  success 0.25  loss 1.235"
    )
    assert [duration(s) for s in (3.2, 90, 4000)] == ["3 s", "1:30 min", "1:06 h"]
