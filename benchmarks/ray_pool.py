"""What a pool on a Ray cluster costs beside processes on the same machine:
start, round trip, chunk, memory.

The environment costs next to nothing (`blank.py`), so this is the price of the plumbing, and the
reason why Ray is for clusters only. The cluster is a head and a second node, both on this machine,
one worker on each, as in its tests. Both sides must show the same counter in the same pixels.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import torch

from benchmarks.blank import ACTIONS, BlankConfig
from benchmarks.by_hand import begin, step
from benchmarks.side_by_side import finish, interleave, options, row, single
from wamrl.pool.pool import Pool, PoolConfig
from wamrl.types import InitialState

CHUNK, WORKERS = 8, 2
SIDES = {"ours": "ray", "peer": "processes"}


def cluster(stack: ExitStack) -> None:
    """A head without workers' cores to spare and a second node; gone with the stack."""
    try:
        import ray
        from ray.cluster_utils import Cluster
    except ImportError:
        raise SystemExit("this benchmark needs Ray: pip install -e '.[ray]'") from None
    small = {"num_cpus": 1, "object_store_memory": 80_000_000}
    made = Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False})
    stack.callback(made.shutdown)
    made.add_node(**small)
    ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
    stack.callback(ray.shutdown)


def open_pool(backend: str, n: int) -> Pool:
    config = PoolConfig(n_envs=n, n_workers=min(n, WORKERS), backend=backend)
    return config.build(BlankConfig(), n_exec=CHUNK, frame_offsets=(4, CHUNK))


def starts_and_stops(backend: str) -> None:
    """A pool from nothing to its first observation, and its end."""
    with open_pool(backend, WORKERS) as pool:
        begin(pool, [InitialState(split="demo", index=0)] * WORKERS, CHUNK)


class Side:
    """A pool of `n` environments and its present frames."""

    def __init__(self, backend: str, n: int, stack: ExitStack) -> None:
        self.pool: Pool = stack.enter_context(open_pool(backend, n))
        begin(self.pool, [InitialState(split="demo", index=0)] * n, CHUNK)
        self.actions = torch.zeros(n, CHUNK, ACTIONS)
        self.frames = np.zeros(0)

    def chunks(self, times: int) -> None:
        for _ in range(times):
            self.frames = step(self.pool, self.actions).obs.frames[:, -1, 0].numpy()


def round_trips(n: int, rounds: int, times: int) -> dict:
    """A chunk of `n` environments, there and back."""
    with ExitStack() as stack:
        sides = {name: Side(backend, n, stack) for name, backend in SIDES.items()}
        work: dict[str, Callable] = {
            name: lambda side=side: side.chunks(times) for name, side in sides.items()
        }
        seconds = interleave(work, rounds)
        assert np.array_equal(sides["ours"].frames, sides["peer"].frames), (
            "the pools show different pictures"
        )
    what = f"8-step chunk of {n} environment{'s' * (n > 1)}, there and back"
    return row(
        what, seconds["ours"], seconds["peer"], scale=1e3 / times, note=f"{min(n, WORKERS)} workers"
    )


def megabytes(pids: set[int]) -> float:
    """Memory of processes, what they share counted once (PSS)."""
    total = 0
    for pid in pids:
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1e3


def descendants() -> set[int]:
    """All processes that this one has started, directly or not."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            parents[int(stat.parent.name)] = int(stat.read_text().rsplit(")", 1)[1].split()[1])
    found, new = set(), {os.getpid()}
    while new:
        new = {pid for pid, parent in parents.items() if parent in new} - found
        found |= new
    return found


def memory() -> list[dict]:
    """Of the workers of either kind, and of what the cluster runs besides."""
    rows, before = [], descendants()
    rows.append(
        single(
            "memory of the cluster's own processes",
            [megabytes(before)],
            "MB",
            f"{len(before)} processes",
        )
    )
    for backend in SIDES.values():
        with ExitStack() as stack:
            pool = Side(backend, WORKERS, stack).pool
            rows.append(
                single(f"memory of {WORKERS} workers, {backend}", [megabytes(set(pool.pids))], "MB")
            )
    return rows


def main() -> None:
    o = options()
    with ExitStack() as stack:
        begin = time.perf_counter()
        cluster(stack)
        rows = [single("start of the cluster of two nodes", [time.perf_counter() - begin], "s")]
        seconds = interleave(
            {name: lambda b=b: starts_and_stops(b) for name, b in SIDES.items()},
            1 if o.quick else 5,
        )
        rows += [row("start of 2 workers", seconds["ours"], seconds["peer"], scale=1, unit="s")]
        rows += [round_trips(n, 3 if o.quick else 15, 20 if o.quick else 100) for n in (1, 2, 32)]
        finish("ray_pool", rows + memory(), o)


if __name__ == "__main__":
    main()
