"""What a run tells its reader: intervals, `summary.json`,
a learning curve, imagined-versus-executed videos.
"""

from wamrl.report.figures import diagnostics_figure, rewards_figure
from wamrl.report.plots import Point, evaluations, learning_curve, run_curves
from wamrl.report.recovery import (
    RECOVERY_COUNTERS,
    counter_metrics,
    recovered_in,
    recovery,
    recovery_line,
)
from wamrl.report.summary import (
    Paired,
    arm,
    paired_difference,
    ratio_text,
    read_summary,
    wilson,
    write_summary,
)
from wamrl.report.video import Film, comparison, read_comparison, side_by_side

__all__ = [
    "RECOVERY_COUNTERS",
    "Film",
    "Paired",
    "Point",
    "arm",
    "comparison",
    "counter_metrics",
    "diagnostics_figure",
    "evaluations",
    "learning_curve",
    "paired_difference",
    "ratio_text",
    "read_comparison",
    "read_summary",
    "recovered_in",
    "recovery",
    "recovery_line",
    "rewards_figure",
    "run_curves",
    "side_by_side",
    "wilson",
    "write_summary",
]
