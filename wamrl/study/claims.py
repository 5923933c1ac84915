"""One sentence per claim: supported, not supported or undecided, by a rule fixed before the data.

The rule looks at the hierarchical interval of the paired difference `arm` - `against`, pooled over
the tasks of the claim's kinds:

    expects "gain"     supported: low > 0;         not supported: high < margin;   else undecided
    expects "no gain"  not supported: low > 0;     supported: high < margin;       else undecided

(from left to right, the first that holds), with margin = 5 points: what is smaller is no gain worth
the name. With fewer than three seeds in a task of the claim the verdict is undecided, whatever the
interval.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from wamrl.stats.nested import Estimate

Kind = Literal["short", "multi-phase", "staged"]
KINDS: tuple[Kind, ...] = ("short", "multi-phase", "staged")
LONG: tuple[Kind, ...] = ("multi-phase", "staged")
Verdict = Literal["supported", "not supported", "undecided", "not tested"]
MIN_SEEDS = 3


@dataclass(frozen=True, kw_only=True)
class Claim:
    """`arm` is better than `against` (or not) on tasks of these kinds."""

    number: int
    text: str
    arm: str
    against: str
    kinds: tuple[Kind, ...] = KINDS
    expects: Literal["gain", "no gain"] = "gain"


def verdict(estimate: Estimate | None, expects: str, margin: float) -> Verdict:
    """The rule above. None: no task of these kinds has both arms."""
    if estimate is None:
        return "not tested"
    if estimate.seeds < MIN_SEEDS:
        return "undecided"
    if estimate.low > 0:
        return "supported" if expects == "gain" else "not supported"
    if estimate.high < margin:
        return "not supported" if expects == "gain" else "supported"
    return "undecided"


def sentence(claim: Claim, estimate: Estimate | None, margin: float) -> str:
    """E.g. "**Claim 4** (joint helps; `wamrl` - `base`): **undecided** at n = 600 ..."."""
    head = f"**Claim {claim.number}** ({claim.text}; `{claim.arm}` - `{claim.against}`): "
    word = verdict(estimate, claim.expects, margin)
    if estimate is None:
        kinds = " or ".join(claim.kinds)
        return f"{head}**{word}**: no {kinds} task has finished cells of both arms."
    few = f"; fewer than {MIN_SEEDS} seeds decide nothing" if estimate.seeds < MIN_SEEDS else ""
    size = f"{plural(estimate.tasks, 'task')} x {plural(estimate.seeds, 'seed')}"
    return (
        f"{head}**{word}** at n = {estimate.episodes} pairs of episodes, {size}: "
        f"{points(estimate)} points{few}."
    )


def points(e: Estimate) -> str:
    """A difference in points with its interval: "+9.5 [+6.0, +14.5]"."""
    return f"{100 * e.value:+.1f} [{100 * e.low:+.1f}, {100 * e.high:+.1f}]"


def plural(n: int, noun: str) -> str:
    """1 -> "1 seed", 3 -> "3 seeds"."""
    return f"{n} {noun}{'' if n == 1 else 's'}"
