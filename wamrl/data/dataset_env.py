"""A dataset in place of a simulator: its spec is the dataset's, nothing can be played in it.

For real-robot data: `wamrl sft dataset --env.path PLACE` learns a base model from it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Ge, Le

from wamrl.data.keys import DataKeys
from wamrl.data.recording import Recording
from wamrl.data.sources import open_dataset
from wamrl.envs.base import Env, EnvConfig, EnvSpec, StepResult

_SMALLEST = 1e-3  # half range of an action that never moves, as `wamrl.models.normalize` has it


@dataclass(frozen=True, kw_only=True)
class DatasetConfig(EnvConfig):
    """The dataset at `path`, any that `--data` takes."""

    playable: ClassVar[bool] = False

    path: str = ""
    keys: DataKeys = DataKeys()
    # pixels, square, to which pictures are squeezed; 0: as they are
    image_size: Annotated[int, Ge(0), Le(4096)] = 64
    # what the model is told; "": the dataset's most frequent instruction
    instruction: str = ""

    def validate(self) -> None:
        """ValueError if no dataset is named."""
        if not self.path:
            raise ValueError("env.path is empty: name the dataset, --env.path PLACE")
        if self.image_size and not 8 <= self.image_size <= 512:
            raise ValueError(
                f"image_size={self.image_size} is not possible: choose 8 to 512 pixels, or 0"
            )

    @property
    def demonstrations(self) -> tuple[Path, DataKeys]:
        """What there is to learn from is what the environment is."""
        return Path(self.path), self.keys

    def build(self) -> DatasetEnv:
        """ValueError of one sentence where the dataset cannot be read."""
        self.validate()
        size = self.image_size
        hw = (size, size) if size else None
        recording = open_dataset(Path(self.path), image_hw=hw, keys=self.keys)
        return DatasetEnv(recording, _name(Path(self.path).resolve()), self.instruction)


class DatasetEnv(Env):
    """Only its spec can be used."""

    def __init__(self, recording: Recording, name: str, instruction: str) -> None:
        texts = Counter(fact.text for fact in recording.facts)
        low, high = _range(recording.actions)
        self.spec = EnvSpec(
            name=name,
            instruction=instruction or texts.most_common(1)[0][0] or "do the task",
            views=recording.views,
            image_hw=tuple(recording.image_hw),
            action_dim=recording.actions.shape[1],
            proprio_dim=recording.proprio.shape[1],
            horizon=max(fact.length for fact in recording.facts),
            action_low=tuple(low.tolist()),
            action_high=tuple(high.tolist()),
        )

    def reset(self, seed: int) -> None:
        raise _no_simulator(self.spec.name)

    def step(self, action: np.ndarray) -> StepResult:
        raise _no_simulator(self.spec.name)

    def render(self) -> np.ndarray:
        raise _no_simulator(self.spec.name)

    def proprio(self) -> np.ndarray:
        raise _no_simulator(self.spec.name)


def _name(path: Path) -> str:
    """Of the folder; of a snapshot in the Hugging Face Hub's cache, OWNER/NAME."""
    if path.parent.name != "snapshots":
        return path.name
    return path.parents[1].name.removeprefix("datasets--").replace("--", "/")


def _no_simulator(name: str) -> ValueError:
    return ValueError(
        f"{name} is a dataset, no simulator: nothing can be played in it; sft learns from it, "
        "other verbs need a recipe with an environment"
    )


def _range(actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest action of the dataset, apart also where nothing moves."""
    low = actions.min(0)
    high = actions.max(0)
    still = np.maximum(0, _SMALLEST - (high - low) / 2)
    return low - still, high + still
