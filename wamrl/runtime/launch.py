"""Ranks on one machine without torchrun: this process becomes the first of n and starts the others.

Why on CPUs: threads within torch's operators gain little at the sizes that are trained there, and
lose much beside any other work; ranks share out whole minibatches and simulators instead (`wamrl
bench ranks`, docs/scaling.md).
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from wamrl.runtime import dist
from wamrl.runtime.processes import on_hangup

# file descriptor of the line to the first rank, in the others' environment
_SOCKET = "WAMRL_FIRST_RANK"
_LOOPBACK = [name for _, name in socket.if_nameindex() if name in ("lo", "lo0")]
_SENTENCE = "wamrl: error: "  # what cli.py writes
_GOODBYE_S = 20.0  # seconds that a rank gets to end
_LAST_WORDS_S = 5.0  # seconds that a rank gets to end whose connections are closed


@contextlib.contextmanager
def local_ranks(n: int, command: Sequence[str]) -> Iterator[None]:
    """Within the block there are n ranks on this machine;
    `command` starts another one, which gets here, too.

    Nothing happens for n = 1, and where torchrun has started us. They talk over the loopback
    device, share the torch threads of this process out, and end when it ends, however it does. An
    error of another rank is raised here, ValueError with its one sentence.
    """
    if "WORLD_SIZE" in os.environ:
        _tell_the_first()
        yield
    elif n == 1:
        yield
    else:
        with tempfile.TemporaryDirectory(prefix="wamrl-ranks-") as folder:
            with _first_of(n, command, Path(folder)):
                yield


@contextlib.contextmanager
def _first_of(n: int, command: Sequence[str], folder: Path) -> Iterator[None]:
    before = torch.get_num_threads()
    shared = {
        "WORLD_SIZE": str(n),
        "LOCAL_WORLD_SIZE": str(n),
        "OMP_NUM_THREADS": str(max(1, before // n)),
        dist.RENDEZVOUS: (folder / "rendezvous").as_uri(),
        **({"GLOO_SOCKET_IFNAME": _LOOPBACK[0]} if _LOOPBACK else {}),
    }
    others: list[_Rank] = []
    try:
        for rank in range(1, n):
            others.append(_Rank(rank, command, shared, folder))
        for other in others:
            other.wait_until_here()
        with _environment(shared | {"RANK": "0", "LOCAL_RANK": "0"}):
            torch.set_num_threads(max(1, before // n))
            yield
        for other in others:
            other.join()
    except dist.Ended as error:
        raise ValueError(_last_words(others) or str(error)) from error
    finally:
        for other in others:
            other.stop()
        torch.set_num_threads(before)


def _last_words(others: Sequence[_Rank]) -> str:
    """What the rank said that has failed; "" if none has. Its connections close before it has
    ended, on a busy machine seconds before.
    """
    deadline = time.monotonic() + _LAST_WORDS_S
    while time.monotonic() < deadline:
        for other in others:
            if other.failed:
                return other.words
        time.sleep(0.05)
    return ""


class _Rank:
    """Another rank: a process with the same command line, whose complaints are kept in a file."""

    def __init__(
        self, rank: int, command: Sequence[str], shared: dict[str, str], folder: Path
    ) -> None:
        self._rank = rank
        self._complaints = folder / f"stderr-{rank}"
        self._line, theirs = socket.socketpair()
        mine = {"RANK": str(rank), "LOCAL_RANK": str(rank), _SOCKET: str(theirs.fileno())}
        with theirs, open(self._complaints, "wb") as stderr:
            self._process = subprocess.Popen(
                command,
                env={**os.environ, **shared, **mine},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stderr=stderr,
            )

    def wait_until_here(self) -> None:
        """Until it has loaded everything: a rank that dies before would keep the others waiting."""
        if not self._line.recv(1):
            self._process.wait()
            raise ValueError(self.words)

    def join(self) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_GOODBYE_S)
        if self.failed:
            raise ValueError(self.words)

    def stop(self) -> None:
        self._line.close()
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(_GOODBYE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @property
    def failed(self) -> bool:
        """Has it ended by itself, and not well?"""
        return self._process.poll() not in (None, 0)

    @property
    def words(self) -> str:
        """Its own sentence, or how it ended."""
        lines = self._complaints.read_text(encoding="utf-8", errors="replace").split("\n")
        last = next(
            (line for line in reversed(lines) if line.strip()),
            f"exit code {self._process.returncode}",
        )
        if os.environ.get("WAMRL_TRACEBACK"):
            return "\n".join([f"rank {self._rank}:", *lines])
        if last.startswith(_SENTENCE):
            return last.removeprefix(_SENTENCE)
        return (
            f"rank {self._rank} of this run has ended ({last}): look at the free memory and go on "
            "with --resume"
        )


def _tell_the_first() -> None:
    """That we are here; and from now on end with it, also in the middle of a rollout."""
    if (fd := os.environ.pop(_SOCKET, None)) is None:  # torchrun has started us
        return
    os.set_inheritable(int(fd), False)  # the simulators shall not hold the line open
    os.write(int(fd), b"1")
    on_hangup(int(fd), lambda: os.kill(os.getpid(), signal.SIGTERM))


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
