"""Python processes that work for this one: they answer its messages in order, and end when it ends.
No torch here: the workers import this file.

A plain interpreter rather than multiprocessing's "spawn": that one runs the caller's script again
in every worker (imports torch, needs an `if __name__ == "__main__"` guard) and takes the thread
limits only from our own os.environ.

Example, in `wamrl/pool/worker.py` and in whoever wants such a worker:
    if __name__ == "__main__":
        serve(Worker())

    worker = WorkerProcess("wamrl.pool.worker")
    worker.send("build", env_config)
    spec = worker.receive(timeout_s=60)
    stop([worker])
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_CALLERS_PATH = "WAMRL_PYTHONPATH"  # what PYTHONPATH was before we wrote ours into it
_GOODBYE_S = 3.0  # seconds that workers get to close what they hold


class Terminated(KeyboardInterrupt):
    """SIGTERM: ends us as Ctrl-C does, with what is saved left whole."""

    exit_code = 128 + signal.SIGTERM


@contextlib.contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Within the block SIGTERM raises `Terminated`, as SIGINT raises KeyboardInterrupt."""

    def interrupt(*_: object) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():  # signals are not ours
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class WorkerLost(RuntimeError):
    """The process died or did not answer in time."""


class WorkerLate(WorkerLost):
    """It did not answer in time; it may still."""


class WorkerProcess:
    """`python -m module`, whose main calls `serve`.
    It exits by itself when our end of the pipe closes, so it cannot outlive us.
    """

    def __init__(self, module: str, *files: int) -> None:
        """files: descriptors that the worker inherits; their numbers are its further arguments."""
        self._pipe, theirs = Pipe()
        inherited = [theirs.fileno(), *files]
        environment = {
            "MUJOCO_GL": "egl",
            **os.environ,
            **_ONE_THREAD,
            # it finds the same modules as we do
            "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
            _CALLERS_PATH: os.environ.get("PYTHONPATH", ""),
        }
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", module, *map(str, inherited)],
                pass_fds=inherited,
                stdin=subprocess.DEVNULL,
                env=environment,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def name(self) -> str:
        """For sentences."""
        return f"worker {self.pid}"

    def cpu_s(self) -> float:
        """Processor seconds that it has used; 0 where the system does not tell."""
        try:
            said = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return 0.0
        ticks = said.rpartition(")")[2].split()[11:15]  # its own and its children's
        return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")

    def fileno(self) -> int:
        """For `multiprocessing.connection.wait`: ready when there is an answer or it has died."""
        return self._pipe.fileno()

    def send(self, verb: str, *arguments: object) -> None:
        """Ask for a method of what the worker serves; a dead worker is noticed by `receive`.
        ValueError if the arguments do not pickle.
        """
        try:
            self._pipe.send((verb, *arguments))
        except OSError:
            pass
        except Exception as error:
            raise ValueError(
                f"this cannot travel to a worker process: {error}; keep configs plain data"
            ) from error

    def receive(self, timeout_s: float | None = None) -> object:
        """The answer to the oldest message that has none yet.

        WorkerLost if it died, WorkerLate if it does not answer in time (None: there is no limit),
        after which one may ask again, or the exception of the worker's method.
        """
        if not self._pipe.poll(timeout_s):
            raise WorkerLate(f"worker {self.pid} did not answer within {timeout_s:g} s")
        try:
            kind, value = self._pipe.recv()
        except (EOFError, OSError):
            raise WorkerLost(f"worker {self.pid} died") from None
        except Exception as error:  # something else has written into its pipe
            raise WorkerLost(f"worker {self.pid} answered nonsense ({error})") from None
        if kind == "error":
            raise value
        return value

    def dismiss(self) -> None:
        """Let it close what it holds and exit."""
        with contextlib.suppress(OSError):
            self._pipe.send(None)

    def end(self, patience_s: float = 0.0) -> None:
        """Wait so long for its exit, then kill it."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(patience_s)
        self._process.kill()
        self._process.wait()
        self._pipe.close()


def stop(workers: list[WorkerProcess]) -> None:
    """Dismiss all workers, kill those that take longer than 3 s, and empty the list."""
    for worker in workers:
        worker.dismiss()
    deadline = time.monotonic() + _GOODBYE_S
    while workers:
        workers.pop().end(max(0.01, deadline - time.monotonic()))


def serve(worker: object) -> None:
    """In the process of a worker: answer messages by its methods until we are dismissed."""
    # Ctrl-C reaches the whole group; the parent decides what ends
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["PYTHONPATH"] = os.environ.pop(_CALLERS_PATH)
    pipe = Connection(int(sys.argv[1]))
    on_hangup(pipe.fileno(), lambda: os._exit(1))
    while (message := _next_message(pipe)) is not None:
        pipe.send(answer(worker, *message))
    worker.close()


def _next_message(pipe: Connection) -> tuple | None:
    while True:
        try:
            return pipe.recv()
        except (EOFError, OSError):
            os._exit(1)
        except Exception as error:  # the message came, but does not unpickle
            fault = (
                f"a worker process cannot load what it was sent: {error}; define environments in "
                "a module that it can import, not in the running script"
            )
            pipe.send(("error", ValueError(fault)))


def answer(worker: object, verb: str, *arguments: object) -> tuple[str, object]:
    """("ok", what the worker's method returns), or ("error", an exception that can travel):
    ValueError keeps its one sentence, a bug gets its traceback.
    """
    try:
        return "ok", getattr(worker, verb)(*arguments)
    except ValueError as error:
        return "error", ValueError(str(error))
    except Exception as error:
        fault = f"an environment failed with {type(error).__name__}: {error}"
        return "error", RuntimeError(f"{fault}\n{traceback.format_exc()}")


def on_hangup(fd: int, end: Callable[[], None]) -> None:
    """Call `end` when the other side of a pipe or socket closes, whatever we are doing then."""

    def watch() -> None:
        hangup = select.poll()
        hangup.register(fd, 0)  # woken by that alone, never by a message
        hangup.poll()
        end()

    threading.Thread(target=watch, daemon=True).start()
