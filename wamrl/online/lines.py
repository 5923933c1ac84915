"""What the console says of an iteration: one line of a table, and a sentence where nothing can be
learned. Everything else is in metrics.jsonl.
"""

from __future__ import annotations

PHASES = ("rollout", "score", "actor", "online", "eval")
# heading, metric, format
COLUMNS = (
    ("success", "rollout/success", ".1%"),
    ("fresh", "rollout/success_fresh", ".1%"),
    ("mixed", "rollout/mixed_outcome", ".0%"),
    ("length", "rollout/length", ".1f"),
    ("actor kl", "actor/kl", ".4f"),
    ("clipped", "actor/clip_fraction", ".1%"),
    ("video loss", "world/video_loss", ".4f"),
    ("evaluated", "eval/success", ".1%"),
)
HEADER = "  ".join(["iteration", *(f"{title:>7}" for title, _, _ in COLUMNS), "seconds"])


def iteration_line(done: int, last: int, metrics: dict[str, float]) -> str:
    """A row under HEADER; "-" where nothing was measured. Seconds: in all, and by phase."""
    cells = [f"{f'{done}/{last}':>9}"]
    for title, name, form in COLUMNS:
        value = metrics.get(name)
        text = "-" if value is None else format(float(value), form)
        cells.append(text.rjust(max(7, len(title))))
    seconds = {phase: metrics.get(f"time/{phase}", 0.0) for phase in PHASES}
    spent = ", ".join(f"{phase} {value:.0f}" for phase, value in seconds.items() if value >= 0.5)
    cells.append(f"{sum(seconds.values()):>7.0f}{spent and f' ({spent})'}")
    return "  ".join(cells)


def base_warning(successes: int, episodes: int) -> str:
    """Where the base solves nothing; else empty."""
    if successes:
        return ""
    return (
        f"the base solved none of {episodes} initial states: nothing can be learned from outcomes "
        "before some episode succeeds; give more demonstrations or sft.steps, or an easier task"
    )


def iteration_warning(metrics: dict[str, float]) -> str:
    """Where an iteration's outcomes could teach the actor nothing; else empty."""
    success = metrics.get("rollout/success")
    if success == 0:
        return (
            "no episode succeeded: there was nothing to learn from their outcomes; raise "
            "flow.noise or train.groups, or start from a better base"
        )
    if success == 1:
        return "every episode succeeded: there was nothing to learn from their outcomes"
    if metrics.get("rollout/mixed_outcome") == 0:
        return (
            "no initial state had both outcomes: nothing said which actions to prefer there; raise "
            "flow.noise, flow.correlation, train.groups or train.initial_states.group"
        )
    return ""
