"""From the interpreter's start to the first optimiser step: a fresh process each time.

Both sides import torch and take one step of AdamW, fused, on the same gradient.
"""

from __future__ import annotations

import subprocess
import sys

from benchmarks.side_by_side import finish, interleave, options, row

SETUP = """
import torch
layer = torch.nn.Linear(3, 3)
torch.nn.init.ones_(layer.weight)
layer(torch.ones(3)).sum().backward()
"""
OURS = (
    SETUP
    + """
from wamrl.rl.optim import RankedAdamW
RankedAdamW(layer, grad_norm=1e9, option="lr").step(0.1)
print(layer.weight.tolist())
"""
)
PEER = (
    SETUP
    + """
torch.optim.AdamW(layer.parameters(), 0.1, weight_decay=0.0, fused=True).step()
print(layer.weight.tolist())
"""
)


def begin(code: str) -> str:
    """What a new process prints that runs the code."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main() -> None:
    o = options()
    assert begin(OURS) == begin(PEER)
    sides = {"ours": lambda: begin(OURS), "peer": lambda: begin(PEER)}
    seconds = interleave(sides, rounds=2 if o.quick else 10)
    what = "a process to its first optimiser step"
    finish("start", [row(what, seconds["ours"], seconds["peer"], scale=1.0, unit="s")], o)


if __name__ == "__main__":
    main()
