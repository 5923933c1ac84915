"""What `import wamrl` offers, see docs/api.md: a run to use, and the verbs as functions."""

import os

# Before torch loads OpenMP and a simulator its OpenGL, as the verbs do.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")
os.environ.setdefault("MUJOCO_GL", "egl")

from wamrl.api.run import Evaluation, Run, load  # noqa: E402
from wamrl.api.training import Trainer, demonstrate, recipe, sft, train  # noqa: E402

__all__ = ["Evaluation", "Run", "Trainer", "demonstrate", "load", "recipe", "sft", "train"]
