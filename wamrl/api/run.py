"""`Run`: a saved model that acts, imagines, is evaluated and drawn."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wamrl import report
from wamrl.api.recipes import Recipe, as_config
from wamrl.config import Config
from wamrl.envs.base import EnvSpec
from wamrl.evaluate import evaluate
from wamrl.hub.repo import local
from wamrl.models.wam import WAM
from wamrl.runtime.log import read_metrics
from wamrl.serve.policy import Policy
from wamrl.serve.saved import open_saved
from wamrl.stats.paired import wilson
from wamrl.types import SAMPLERS, Sampler

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Closed-loop success on held-out initial states."""

    states: np.ndarray  # int64 (E,): which of the split `eval`
    success: np.ndarray  # bool (E,)
    length: np.ndarray  # int64 (E,), control steps
    sampler: Sampler

    @property
    def rate(self) -> float:
        """The share of episodes that succeeded."""
        return float(self.success.mean())

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the rate."""
        return wilson(int(self.success.sum()), len(self.success))

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"{int(self.success.sum())}/{len(self.success)} = {self.rate:.1%}, "
            f"95 % interval {low:.1%} to {high:.1%}"
        )


class Run:
    """A model with its run. Made by `load`, `sft` and `train`.

    An observation is a dict of images and state, named as LeRobot, gymnasium or openpi name them:
    `observation.images.front` and `observation.state`; `pixels` and `agent_pos`. Images are uint8
    (H, W, 3) or floats in [0, 1], of any size; the state is in raw units. Methods raise ValueError
    of one sentence where something does not fit.

    Attributes:
        path: the run folder, or a checkpoint folder in it.
        config: the whole configuration; spec: what the environment looks like.
        model: the `WAM`; sampler: how it acts, "explore", "ode" or "zero".
    """

    def __init__(
        self, path: Path, config: Config | None = None, sampler: Sampler | None = None
    ) -> None:
        """config: None: as the run says. sampler: None: the deployed one."""
        self._saved = open_saved(path, config, sampler)
        self._policy = Policy(self._saved)
        self.path: Path = path
        self.config: Config = self._saved.config
        self.spec: EnvSpec = self._saved.spec
        self.model: WAM = self._saved.wam
        self.sampler: Sampler = self._saved.sampler

    def __repr__(self) -> str:
        return f"<Run {self.path}: {self.spec.name}, sampler {self.sampler!r}>"

    def reset(self, episode: int | None = None) -> None:
        """Begin an episode: forget what was seen.

        episode: with the noise that `evaluate` has on that held-out state; None: the next one.
        """
        self._policy.reset(episode)

    def act(self, obs: Mapping[str, Any], executed: int | None = None) -> np.ndarray:
        """A chunk of actions, float32 (N, A), in the environment's units and within its bounds.

        executed: control steps since the last observation of this episode; None: the whole of the
        last chunk.
        """
        return self._policy.act(obs, executed)

    def select_action(self, obs: Mapping[str, Any]) -> np.ndarray:
        """The action for one control step, float32 (A,): call it at every step.

        A chunk is executed whole before the next one is decided, as in evaluations.
        """
        return self._policy.select_action(obs)

    def imagine(self, obs: Mapping[str, Any] | None = None, steps: int | None = None) -> np.ndarray:
        """The frames that the model imagines, uint8 (F, V, H, W, 3).

        They are `model.spec.frame_offsets` control steps ahead, of the cameras `spec.views`. obs:
        None: what was imagined when it last acted. steps: of denoising; None: as in evaluations.
        """
        return self._policy.imagine(obs, steps)

    def evaluate(self, episodes: int | None = None) -> Evaluation:
        """Play held-out initial states 0, 1, .. in the run's own environment.

        episodes: None: as many as the run's configuration says.
        """
        n = self.config.eval.episodes if episodes is None else episodes
        if n < 1:
            raise ValueError(f"episodes={n} is not possible: give 1 or more")
        cfg = replace(
            self.config,
            eval=replace(self.config.eval, episodes=n),
            pool=replace(self.config.pool, n_envs=min(n, self.config.pool.n_envs)),
        )
        flow = self._saved.flow
        with cfg.build_pool() as pool:
            options = {"seed": cfg.seed, "sampler": self.sampler}
            played = evaluate(self.model, pool, cfg.eval, flow, **options)
        return Evaluation(
            states=played.state.numpy(),
            success=played.success.numpy(),
            length=played.length.numpy(),
            sampler=self.sampler,
        )

    def metrics(self) -> list[dict[str, Any]]:
        """What the run has logged, a dict per line; docs/metrics.md has the formulas."""
        return read_metrics(self._folder)

    def plot(self) -> Figure:
        """The learning curve as a matplotlib figure; ValueError if the run has no evaluations."""
        curves, thin = report.run_curves(self.metrics(), SAMPLERS)
        figure = report.learning_curve_figure(
            curves, thin=thin, title=self._folder.name, x_label="online episodes so far"
        )
        # notebooks show a figure by themselves only where it is one of pyplot's
        figure._repr_png_ = partial(_png, figure)
        return figure

    @property
    def _folder(self) -> Path:
        """The run folder, also where a checkpoint in it was named."""
        places = (self.path, *self.path.resolve().parents[:2])
        return next((place for place in places if (place / "metrics.jsonl").is_file()), self.path)


def _png(figure: Figure) -> bytes:
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()


def load(
    path: str | PathLike[str], *, recipe: Recipe | None = None, sampler: Sampler | None = None
) -> Run:
    """The model of a run folder, of one of its checkpoints such as `runs/NAME/checkpoints/best`, of
    a model folder that was copied out of its run, or of the Hugging Face Hub: `hf://owner/name`.

    recipe: only where the run cannot say how it was made. sampler: "explore", "ode" or "zero" in
    place of the deployed one. ValueError of one sentence if there is no model, or it does not fit.
    """
    return Run(local(path), None if recipe is None else as_config(recipe), sampler)
