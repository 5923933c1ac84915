"""What a run tells its reader: `summary.json`, figures, videos of imagined beside executed frames.

summary  numbers of the evaluated models       recovery what came of failing
curves   the learning curve as numbers
figures  learning curve, diagnostics, rewards  style    the look of all figures
video    imagined and executed, side by side   rerun_file the same for rerun, with numbers
"""

from wamrl.report.curves import Point, evaluations, run_curves, task_curves
from wamrl.report.figures import (
    diagnostics_figure,
    learning_curve,
    learning_curve_figure,
    rewards_figure,
)
from wamrl.report.recovery import (
    counter_metrics,
    recovered_in,
    recovery,
    recovery_line,
)
from wamrl.report.rerun_file import Signal, require_rerun, write_recording
from wamrl.report.summary import arm, ratio_text, read_summary, write_summary
from wamrl.report.video import Film, comparison, read_comparison, side_by_side

__all__ = [
    "Film",
    "Point",
    "Signal",
    "arm",
    "comparison",
    "counter_metrics",
    "diagnostics_figure",
    "evaluations",
    "learning_curve",
    "learning_curve_figure",
    "ratio_text",
    "read_comparison",
    "read_summary",
    "recovered_in",
    "recovery",
    "recovery_line",
    "require_rerun",
    "rewards_figure",
    "run_curves",
    "side_by_side",
    "task_curves",
    "write_recording",
    "write_summary",
]
