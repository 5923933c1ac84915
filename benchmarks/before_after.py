"""Where the time of one online iteration goes,
before and after the work on speed, both run here in turns.

    python -m benchmarks.before_after [--commit 27d16b8] [--recipe quickstart] [--groups 0]

The earlier commit is cloned into a temporary folder and timed by the present `profile_iteration.py`
in the present environment: same recipe, same number of initial states, each side's own defaults
else (ours: as many ranks as `wamrl train` starts; the earlier one knows one rank with all threads).
A run is a process of its own, or those of its ranks.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.machine import ROOT
from benchmarks.side_by_side import finish, parser, row

TOOLS = ("profile_iteration.py", "side_by_side.py", "machine.py")
ROWS = ("whole iteration", "phase rollout", "phase score", "phase actor", "phase online")


def earlier(commit: str, folder: Path) -> Path:
    """The checkout at `commit`, with our tools."""
    done = subprocess.run(
        ["git", "clone", "-q", str(ROOT), str(folder)], capture_output=True, text=True
    )
    done = (
        done
        if done.returncode
        else subprocess.run(
            ["git", "checkout", "-q", commit], cwd=folder, capture_output=True, text=True
        )
    )
    if done.returncode:
        raise SystemExit(
            f"commit {commit} is not in this clone: fetch the whole history ({done.stderr.strip()})"
        )
    for name in TOOLS:
        shutil.copy(ROOT / "benchmarks" / name, folder / "benchmarks" / name)
    return folder


def profile(tree: Path, arguments: list[str]) -> dict:
    """What `profile_iteration` of one run found: `rows`, `metrics`."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rows.json"
        command = [sys.executable, "-P", "-m", "benchmarks.profile_iteration", "--out", str(out)]
        subprocess.run(
            [*command, *arguments], cwd=tree, env=os.environ | {"PYTHONPATH": str(tree)}, check=True
        )
        return json.loads(out.read_text(encoding="utf-8"))


def seconds(found: dict) -> dict[str, float]:
    """Of the median iteration, per row."""
    return {r["what"]: r["ours"][1] for r in found["rows"]}


def main() -> None:
    p = parser()
    p.add_argument("--commit", default="27d16b8", help="what to compare with")
    p.add_argument("--recipe", default="quickstart")
    p.add_argument(
        "--groups", type=int, default=0, help="initial states per iteration; 0: as the recipe says"
    )
    p.add_argument("--rounds", type=int, default=2, help="runs of each side")
    o = p.parse_args()
    arguments = ["--quick"] if o.quick else ["--recipe", o.recipe, "--groups", str(o.groups)]
    arguments += ["--iterations", "1", "--operators", "0"]
    found: dict[str, list[dict]] = {"ours": [], "peer": []}
    with tempfile.TemporaryDirectory() as folder:
        trees = {"ours": ROOT, "peer": earlier(o.commit, Path(folder) / "earlier")}
        for i in range(1 if o.quick else o.rounds):
            for side in list(trees)[:: -1 if i % 2 else 1]:
                ranks = ["--ranks", "0" if side == "ours" else "1"]
                found[side].append(seconds(profile(trees[side], [*arguments, *ranks])))
    note = f"peer: {o.commit}, the same recipe"
    rows = [
        row(w, *([run[w] for run in found[side]] for side in found), scale=1, unit="s", note=note)
        for w in ROWS
    ]
    finish("before_after", rows, o)


if __name__ == "__main__":
    main()
