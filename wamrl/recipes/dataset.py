"""Learning from a dataset alone, where there is no simulator."""

from __future__ import annotations

from wamrl.config import Config
from wamrl.data.dataset_env import DatasetConfig
from wamrl.models.normalize import NormalizeConfig
from wamrl.models.wam_config import WAMConfig


def dataset() -> Config:
    """SFT on a dataset without a simulator, such as a real robot's: --env.path names it."""
    # by quantiles: the bounds are the dataset's extremes, which may be anything
    model = WAMConfig(normalize=NormalizeConfig(actions="quantiles"))
    return Config(name="dataset", env=DatasetConfig(), model=model)
