"""One online iteration on a CPU: ranks of one thread each, or one process with as many threads.

    python -m benchmarks.ranks [--recipe quickstart] [--groups 0] [--rounds 3]

Same recipe, same episodes, same updates; runs in turns, each with its own processes. Both must have learned the same:
the losses of their last iteration agree to rounding.
"""

from __future__ import annotations

import math

from benchmarks.before_after import ROWS, profile, seconds
from benchmarks.machine import ROOT, cores
from benchmarks.side_by_side import finish, parser, row

SAME = ("rollout/steps", "rollout/success", "world/video_loss", "cotrain/action_loss")


def main() -> None:
    p = parser()
    p.add_argument("--recipe", default="quickstart")
    p.add_argument("--groups", type=int, default=0, help="initial states per iteration; 0: as the recipe says")
    p.add_argument("--rounds", type=int, default=3, help="runs of each side")
    o = p.parse_args()
    recipe = ["--quick"] if o.quick else ["--recipe", o.recipe, "--groups", str(o.groups), "--iterations", "1"]
    sides = {"ours": str(max(2, cores())), "peer": "1"}
    found: dict[str, list[dict]] = {side: [] for side in sides}
    for i in range(1 if o.quick else o.rounds):
        for side in list(sides)[:: -1 if i % 2 else 1]:
            found[side].append(profile(ROOT, [*recipe, "--operators", "0", "--ranks", sides[side]]))
        ours, peer = (found[side][-1]["metrics"] for side in sides)
        for name in SAME:
            assert math.isclose(ours[name], peer[name], rel_tol=1e-3), f"{name}: {ours[name]} and {peer[name]}"
    note = f"{sides['ours']} ranks; peer: one process, {found['peer'][0]['machine']['threads']} threads"
    both = [[seconds(run) for run in found[side]] for side in sides]
    rows = [row(w, *([run[w] for run in runs] for runs in both), scale=1, unit="s", note=note) for w in ROWS]
    finish("ranks", rows, o)


if __name__ == "__main__":
    main()
