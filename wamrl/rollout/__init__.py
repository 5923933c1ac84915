"""Running a policy in many environments at once, and keeping what the update needs.

types     Decisions, Rollout: what was decided and what became of it
runner    which slot plays which episode: `collect`
ranks     the outcomes of all ranks
samples   what training makes of a rollout: imagined frames, reward inputs, clips
metrics   what the log says of it
"""

from wamrl.rollout.collect import collect, episode_generator
from wamrl.rollout.metrics import rollout_metrics, undecided
from wamrl.rollout.ranks import everywhere
from wamrl.rollout.samples import imagine, rare_success_weight, reward_inputs, success_clips
from wamrl.rollout.types import Decisions, Rollout

__all__ = [
    "Decisions",
    "Rollout",
    "collect",
    "episode_generator",
    "everywhere",
    "imagine",
    "rare_success_weight",
    "reward_inputs",
    "rollout_metrics",
    "success_clips",
    "undecided",
]
