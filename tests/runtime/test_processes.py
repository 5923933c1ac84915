"""Worker processes: every answer in its order, every failure in words, and none is left behind."""

import os
import subprocess
import sys

import pytest

from tests.support.processes import runs, wait_for_end
from wamrl.runtime.processes import WorkerLost, WorkerProcess, stop


@pytest.fixture
def worker():
    workers = [WorkerProcess("tests.support.echo")]
    yield workers[0]
    stop(workers)


def test_answers_come_in_the_order_of_the_messages(worker):
    for number in range(3):
        worker.send("say", number, "words")
    assert [worker.receive(60) for _ in range(3)] == [(n, "words") for n in range(3)]


def test_failures_of_the_worker_are_raised_here(worker):
    worker.send("complain")
    worker.send("fail")
    worker.send("say")
    with pytest.raises(ValueError, match="^nothing to say: ask something else$"):
        worker.receive(60)
    with pytest.raises(RuntimeError, match="KeyError: 'joint7'(.|\n)*echo.py"):
        worker.receive(60)
    assert worker.receive(60) == ()  # it goes on


def test_what_cannot_travel_is_one_sentence(worker):
    with pytest.raises(ValueError, match="^this cannot travel to a worker process: "):
        worker.send("say", lambda: 0)
    worker.send("say", Unloadable())
    with pytest.raises(ValueError, match="cannot load what it was sent: .* not in the running"):
        worker.receive(60)


class Unloadable:
    def __reduce__(self):
        return int, ("not a number",)


def test_a_worker_that_dies_or_hangs_is_lost(worker):
    worker.send("say")
    worker.receive(60)
    worker.send("hang")
    with pytest.raises(WorkerLost, match="did not answer within 0.2 s"):
        worker.receive(0.2)
    worker.end()
    assert not runs(worker.pid)
    dead = WorkerProcess("tests.support.echo")
    dead.send("die")
    for _ in range(2):
        with pytest.raises(WorkerLost, match="died"):
            dead.receive(60)
        dead.send("say")
    dead.end()


def test_it_finds_our_modules_and_hands_on_our_environment(worker, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    monkeypatch.syspath_prepend("/somewhere")
    workers = [WorkerProcess("tests.support.echo")]
    workers[0].send("environment")
    path, environment = workers[0].receive(60)
    stop(workers)
    ours = [entry or os.getcwd() for entry in sys.path]
    assert [entry for entry in path if entry in ours][:2] == ours[:2]
    assert environment["PYTHONPATH"] == "/nowhere" and environment["OMP_NUM_THREADS"] == "1"
    assert set(environment) - set(os.environ) <= {
        "MUJOCO_GL",
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
    }


def test_those_who_are_stopped_close_what_they_hold():
    code = """
from wamrl.runtime.processes import WorkerProcess, stop
workers = [WorkerProcess("tests.support.echo") for _ in range(2)]
stop(workers)
assert not workers
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout.split() == ["closed", "closed"], done.stderr


def test_a_worker_in_a_hung_simulator_ends_with_a_parent_that_is_killed():
    code = """
import os
from wamrl.runtime.processes import WorkerProcess
worker = WorkerProcess("tests.support.echo")
worker.send("say")
worker.receive()
worker.send("hang")
print(worker.pid, flush=True)
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    wait_for_end([int(done.stdout)], seconds=5.0)
