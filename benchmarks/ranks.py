"""One online iteration on a CPU: ranks of one thread each, or one process with as many threads.

    python -m benchmarks.ranks [--recipe quickstart] [--groups 16] [--rounds 3]

Alone on the machine, and beside one process that computes all the time, as on a desk there always
is one. Same recipe, same episodes, same updates; runs in turns, each with its own processes. Both
must have learned the same: the losses of their last iteration agree to rounding.
"""

from __future__ import annotations

import contextlib
import math
import subprocess
import sys
from collections.abc import Iterator

from benchmarks.before_after import ROWS, profile, seconds
from benchmarks.machine import ROOT, cores
from benchmarks.side_by_side import finish, parser, row

SAME = ("rollout/steps", "rollout/success", "world/video_loss", "actor/loss")
SIDES = {"ours": max(2, cores()), "peer": 1}  # ranks


@contextlib.contextmanager
def busy(processes: int) -> Iterator[None]:
    """That many processes compute beside us."""
    started = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)
    ]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def measure(where: str, options: list[str], rounds: int) -> list[dict]:
    found: dict[str, list[dict]] = {side: [] for side in SIDES}
    for i in range(rounds):
        for side in list(SIDES)[:: -1 if i % 2 else 1]:
            found[side].append(
                profile(ROOT, [*options, "--operators", "0", "--ranks", str(SIDES[side])])
            )
        ours, peer = (found[side][-1]["metrics"] for side in SIDES)
        for name in SAME:
            assert math.isclose(ours[name], peer[name], rel_tol=1e-3), (
                f"{name}: {ours[name]} and {peer[name]}"
            )
    note = (
        f"{SIDES['ours']} ranks; peer: one process, {found['peer'][0]['machine']['threads']} "
        "threads"
    )
    ours, peer = ([seconds(run) for run in found[side]] for side in SIDES)
    return [
        row(
            f"{what}, {where}",
            [r[what] for r in ours],
            [r[what] for r in peer],
            scale=1,
            unit="s",
            note=note,
        )
        for what in ROWS
    ]


def main() -> None:
    p = parser()
    p.add_argument("--recipe", default="quickstart")
    p.add_argument("--groups", type=int, default=16, help="initial states per iteration")
    p.add_argument("--rounds", type=int, default=2, help="runs of each side")
    o = p.parse_args()
    options = (
        ["--quick"]
        if o.quick
        else ["--recipe", o.recipe, "--groups", str(o.groups), "--iterations", "1"]
    )
    rows = []
    for processes, where in ((0, "alone"), (1, "beside one busy process")):
        with busy(processes):
            rows += measure(where, options, 1 if o.quick else o.rounds)
    finish("ranks", rows, o)


if __name__ == "__main__":
    main()
