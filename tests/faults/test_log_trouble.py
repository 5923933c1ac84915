"""A log that cannot be written is a sentence before any work; TensorBoard that cannot is one as
well, and the run goes on without it. A full disk: test_disk_full.py; another tracker that fails:
tests/runtime/test_trackers.py.
"""

from __future__ import annotations

import shutil

import pytest

from tests.support import tiny
from wamrl.runtime.log import Logger, new_run, read_metrics


@pytest.fixture
def run(tmp_path):
    return new_run(tmp_path, "log", tiny.CONFIG)


def test_a_folder_is_in_the_place_of_the_log(run):
    (run / "metrics.jsonl").mkdir()
    with pytest.raises(ValueError, match=f"cannot write {run}/metrics.jsonl: .* another folder"):
        Logger(run)


def test_a_file_is_in_the_place_of_tensorboard(run, capsys):
    (run / "tensorboard").write_text("")
    with Logger(run) as logger:
        logger.log(1, {"m/x": 1.0})
    said = capsys.readouterr().err
    assert "the tracker tensorboard failed" in said and f"cannot write {run}/tensorboard" in said
    assert [row["step"] for row in read_metrics(run)] == [1]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("name", ["tensorboard", "metrics.jsonl"])
def test_it_is_removed_while_the_run_goes_on(name, run, capsys):
    with Logger(run) as logger:
        logger.log(1, {"m/x": 1.0})
        shutil.rmtree(run / name) if name == "tensorboard" else (run / name).unlink()
        for step in range(2, 50):
            logger.log(step, {"m/x": 1.0})
    if name == "tensorboard":
        assert [row["step"] for row in read_metrics(run)] == [*range(1, 50)]
        assert "the tracker tensorboard failed" in capsys.readouterr().err
