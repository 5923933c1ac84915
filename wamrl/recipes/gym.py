"""Environments of gymnasium. They have no scripted expert: `--data` names the demonstrations."""

from __future__ import annotations

from wamrl.config import Config, DataConfig
from wamrl.envs.gymnasium.env import GymConfig
from wamrl.models.wam_config import WAMConfig


def pusht() -> Config:
    """gym-pusht: push a T onto its shadow.

    Demonstrations come from a dataset (lerobot/pusht), named by --data.
    """
    return Config(
        name="pusht",
        env=GymConfig(
            id="gym_pusht/PushT-v0",
            module="gym_pusht",
            kwargs=(("obs_type", "pixels_agent_pos"),),
            instruction="push the grey T onto its green shadow",
            image_size=96,  # as in the dataset
        ),
        model=WAMConfig(frame_offsets=(4, 8), chunk=8),
        data=DataConfig(heldout=12),
    )
