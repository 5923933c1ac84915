"""Memory that is exhausted, by a limit of the address space: one sentence, old data whole."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.faults.test_signals import tiny_run, whole
from tests.support import forked
from tests.support.processes import wait_for_end
from wamrl.cli import main
from wamrl.data.episodes import open_store

SENTENCE = "wamrl: error: memory is exhausted ("


def limited(args: list, said: Path, memory_mb: int) -> int:
    process = forked.start(args, said, memory_mb)
    process.join(280)
    wait_for_end([process.pid])
    return process.exitcode


@pytest.mark.faults
@pytest.mark.timeout(0)
def test_a_batch_that_does_not_fit(tmp_path):
    """The demonstrations that it has recorded before stay."""
    out = tmp_path / "runs"
    args = [word for word in tiny_run(out)[1:] if word != "--smoke"]  # which has a batch of its own
    args = ["sft", *args, "--sft.batch", "20000", "--sft.steps", "1", "--data.episodes", "2"]
    args += ["--data.heldout", "2"]
    assert limited(args, tmp_path / "said", 400) == 1
    (said,) = (tmp_path / "said").read_text().strip().splitlines()
    assert said.startswith(SENTENCE) and "sft.batch" in said
    (run,) = out.iterdir()
    assert not list(run.rglob(".*.tmp"))
    assert [len(open_store(run / name)) for name in ("demos", "heldout")] == [2, 2]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        MemoryError("Unable to allocate 8.00 PiB for an array"),
        OSError(12, "Cannot allocate memory"),
        RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB.\n See documentation"),
    ],
    ids=["Python", "NumPy", "the system", "a GPU"],
)
def test_whoever_says_it(error, monkeypatch, capsys):
    def fail(*_):
        raise error

    monkeypatch.setattr("wamrl.cli._call", fail)
    with pytest.raises(SystemExit) as stop:
        main(["list"])
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert stop.value.code == 1 and said.startswith(SENTENCE)


@pytest.mark.faults
@pytest.mark.timeout(0)
def test_a_run_under_ever_larger_limits(tmp_path):
    """Wherever it is short of memory; 1 in words, or ended by the library that was."""
    ends = []
    for memory_mb in (*range(10, 200, 20), 400, 800, 1600):
        out = tmp_path / str(memory_mb)
        code = limited(tiny_run(out), tmp_path / "said", memory_mb)
        said = (tmp_path / "said").read_text().strip().splitlines()
        ends.append((memory_mb, code, said[-1][:150] if said else ""))
        print(*ends[-1], flush=True)
        assert code in (0, 1, -signal.SIGABRT, -signal.SIGSEGV)
        for run in out.glob("*"):
            whole(run)
    assert ends[-1][1] == 0
