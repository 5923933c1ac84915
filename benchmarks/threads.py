"""One training step of the nano model beside busy simulators,
with 1 and 2 torch threads and OpenMP's ways of waiting.

OpenMP reads its environment when it is loaded, so each setting is a process of its own. They take
turns, frozen by SIGSTOP when it is not theirs, since an idle OpenMP thread may spin; the simulators
are the same for all. `wamrl` sets GOMP_SPINCOUNT=2000.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.side_by_side import finish, interleave, options, row

SETTINGS = {
    "libgomp's default": {},
    "GOMP_SPINCOUNT=2000": {"GOMP_SPINCOUNT": "2000"},
    "GOMP_SPINCOUNT=0": {"GOMP_SPINCOUNT": "0"},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    "OMP_WAIT_POLICY=ACTIVE": {"OMP_WAIT_POLICY": "ACTIVE"},
}
STEP = """
import sys, torch
from benchmarks.models import build, clips
from wamrl.sft import SFT, SFTConfig
torch.set_num_threads(int(sys.argv[1]))
wam = build()
clip, sft = clips(wam, 16), SFT(wam, SFTConfig(batch=16), 0)
print(0.0, flush=True)
for _ in sys.stdin:
    print(sft.step(lambda n, g, own: clip[own])["sft/video_loss"], flush=True)
"""
BUSY = """
from wamrl.envs.point import PointConfig
env = PointConfig(image_size=64).build()
while True:
    env.reset(0)
    for _ in range(20):
        env.step((0.0, 0.0)); env.render()
"""


def start(code: str, *args: str, **env: str) -> subprocess.Popen:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("GOMP_", "OMP_"))}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    return subprocess.Popen([sys.executable, "-c", code, *args], env=clean | env, **pipes)


def step(process: subprocess.Popen, losses: dict) -> None:
    """One step of the process; remembers its loss, to compare the settings."""
    process.send_signal(signal.SIGCONT)
    process.stdin.write("\n")
    losses[process.pid] = float(process.stdout.readline())
    process.send_signal(signal.SIGSTOP)


@contextmanager
def busy(count: int) -> Iterator[None]:
    """`count` processes that simulate without a pause."""
    processes = [start(BUSY, OMP_NUM_THREADS="1") for _ in range(count)]
    time.sleep(2 if count else 0)
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def main() -> None:
    o, losses = options(), {}
    keys = [
        (threads, name)
        for threads in (1, 2)
        for name in SETTINGS
        if threads > 1 or name == "GOMP_SPINCOUNT=2000"
    ]
    models = {key: start(STEP, str(key[0]), **SETTINGS[key[1]]) for key in keys}
    rows = []
    try:
        for process in models.values():
            process.stdout.readline()
        for count in (0, 2):
            sides = {key: lambda p=process: step(p, losses) for key, process in models.items()}
            with busy(count):
                seconds = interleave(sides, 2 if o.quick else 20, warmup=2)
            values = list(losses.values())
            assert max(values) - min(values) < 1e-3 * abs(values[0]), (
                f"the settings disagree about the loss: {values}"
            )
            beside = f"beside {count} busy simulators" if count else "alone"
            reference = seconds[1, "GOMP_SPINCOUNT=2000"]
            for (threads, name), found in seconds.items():
                what = f"{threads} thread{'s' * (threads > 1)}, {name}, {beside}"
                rows.append(row(what, found, reference, note="peer: 1 thread"))
    finally:
        for process in models.values():
            process.kill()
            process.wait()
    finish("threads", rows, o)


if __name__ == "__main__":
    main()
