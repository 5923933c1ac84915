"""`wamrl ARGS` as a process of its own, forked from one that has imported everything: half the
processor time of a fresh interpreter, so that runs can be ended many times.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
from collections.abc import Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    ["wamrl.commands.runs", "torch._dynamo", "torch.utils.tensorboard", "matplotlib.pyplot", "av"]
)
_TICKS = os.sysconf("SC_CLK_TCK")


def start(args: Sequence[object], said: Path, memory_mb: int | None = None) -> ForkServerProcess:
    """The leader of a session of its own. said: the file to which its stderr goes. memory_mb: so
    much address space it may have more than when it begins.
    """
    words = [str(word) for word in args]
    process = _SERVER.Process(target=_wamrl, args=(words, said, memory_mb), daemon=True)
    process.start()
    return process


def _wamrl(words: list[str], said: Path, memory_mb: int | None) -> None:
    from wamrl.cli import main

    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs have none
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    if memory_mb is not None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + (memory_mb << 20)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    main(words)


def spent_s(pid: int) -> float:
    """Processor seconds of a process so far; -1 when it has gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return -1.0
    return (int(fields[11]) + int(fields[12])) / _TICKS
