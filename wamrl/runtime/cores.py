"""How many processes and threads. Simulators and model work at the same time, so the cores are
shared out between them: a torch thread without a core of its own spins and costs more than it
brings (benchmarks/pipeline.py, LOG.md). And on CPUs between ranks, which use the cores better than
threads do (benchmarks/ranks.py).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import torch


def all_cores() -> int:
    """CPU cores that this machine gives us."""
    return len(os.sched_getaffinity(0))


def cores() -> int:
    """Those of this process: the ranks on one machine share them."""
    return max(1, all_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def memory() -> int:
    """Bytes that this machine, or the container that we are in, has."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):  # no container, or "max"
        return min(whole, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return whole


def ranks(batch: int) -> int:
    """Ranks that share a run on this machine: one per core, per 8 samples of the smallest batch and
    per 3 GB of memory; beside a GPU one."""
    if torch.cuda.is_available():
        return 1
    return max(1, min(cores(), torch.get_num_threads(), batch // 8, int(memory() / 3e9)))


def device() -> str:
    """Where this rank computes (see `dist.ranks`)."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def workers() -> int:
    """Simulator processes beside the model: half of the cores,
    or all but one where the model runs on a GPU.
    """
    return max(1, cores() - 1 if torch.cuda.is_available() else cores() // 2)


def fast_bfloat16(device: str) -> bool:
    """Is bfloat16 faster than float32?
    On GPUs, and on CPUs with matrix units for it (AMX); on others it is slower.
    """
    return device != "cpu" or getattr(torch.cpu, "get_capabilities", dict)().get("amx_bf16", False)


@contextlib.contextmanager
def threads_beside(busy: int) -> Iterator[int]:
    """Within the block torch uses no more threads than `busy`
    processes leave cores; yields their number.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, min(before, cores() - busy)))
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
