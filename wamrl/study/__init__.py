"""Many arms from one base model per task and seed, compared: `wamrl study NAME`.

OUT/study.json                   what the study is; another study in the same folder is refused
OUT/about.json                   what its arms test and what it claims, for `wamrl report`
OUT/TASK/ARM/seedS/              one cell: config.json, metrics.jsonl, log.txt,
                                 and when it is finished summary.json
OUT/TASK/base/seedS/             also demos/, heldout/ and checkpoints/base (the arms begin there)
OUT/report.md  results.csv  comparisons.csv  arms_TASK.png  learning_TASK.png
OUT/horizon_TASK.png             of tasks with sub-goals
"""

from wamrl.study.config import Arm, Cell, StudyConfig, StudyTask

__all__ = ["Arm", "Cell", "StudyConfig", "StudyTask"]
