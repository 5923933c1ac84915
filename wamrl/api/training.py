"""The verbs as functions; and the online loop, an iteration at a time."""

from __future__ import annotations

from contextlib import AbstractContextManager
from os import PathLike
from pathlib import Path

from wamrl.api.recipes import Recipe, as_config, recipe
from wamrl.api.run import Run
from wamrl.commands import runs as verbs
from wamrl.hub.repo import Kind, local
from wamrl.models.saved import save_wam
from wamrl.online.state import TrainingState
from wamrl.runs.demonstrations import env_spec, has_data, load_data
from wamrl.runs.folder import Options, open_model
from wamrl.runtime.log import new_run
from wamrl.train import iterate

__all__ = ["Trainer", "demonstrate", "recipe", "sft", "train"]

Place = str | PathLike[str]
Base = Run | str | PathLike[str]


def demonstrate(recipe: Recipe, *, out: Place = "runs") -> Path:
    """Record demonstrations of the scripted expert: a run folder for `data=`. As `wamrl demos`."""
    return verbs.demos(_options("demos", recipe, out))


def sft(recipe: Recipe, *, data: Place | None = None, out: Place = "runs") -> Run:
    """A base model, learned from demonstrations. As `wamrl sft`, in this process.

    data: a run folder or a dataset; None: recorded first. out: where the run folder is made.
    """
    options = _options("sft", recipe, out, data=data)
    return Run(verbs.sft(options), options.config)


def train(
    recipe: Recipe,
    *,
    base: Base | None = None,
    data: Place | None = None,
    out: Place = "runs",
) -> Run:
    """The whole online phase: evaluate, improve, evaluate again. As `wamrl train`, in this process.

    base: the model to begin with, a `Run` or its folder; None: one is learned from demonstrations
    first, as `wamrl quickstart` does. data: demonstrations; None: those of the base.
    """
    name = "quickstart" if base is None else "train"
    options = _options(name, recipe, out, data=data, base=base)
    return Run(getattr(verbs, name)(options), options.config)


class Trainer(AbstractContextManager):
    """The online loop, an iteration at a time, in memory: nothing is written before `save`.

    Example:
        with wamrl.Trainer("point", base=run) as trainer:
            metrics = trainer.step()
    """

    def __init__(self, recipe: Recipe, *, base: Base, data: Place | None = None) -> None:
        """base, data: as for `train`. ValueError of one sentence where something does not fit."""
        self.config = as_config(recipe)
        place = _path(base)
        places = [place, *place.resolve().parents[:2]] if data is None else [_path(data, "dataset")]
        found = next((p for p in places if has_data(p)), None)
        if found is None:
            raise ValueError(f"{places[0]} holds no demonstrations: give data=, a run or a dataset")
        wam = open_model(self.config, place)
        demos = load_data(self.config, found).demos
        self._pool = self.config.build_pool()
        # also what the iterations so far have led to: `state.wam`, `state.iteration`
        self.state = TrainingState(self.config, wam, demos, self._pool.spec.horizon)

    def step(self) -> dict[str, float]:
        """One iteration: act, score, learn. Its metrics, see docs/metrics.md."""
        metrics, _ = iterate(self.state, self._pool)
        self.state.require_finite()
        return metrics

    def save(self, out: Place = "runs") -> Run:
        """The present model as a new run folder."""
        run = new_run(Path(out), self.config.name, self.config)
        config = self.config
        save_wam(config.model, env_spec(config), self.state.wam, run, "final", config=config)
        return Run(run, self.config)

    def close(self) -> None:
        """End the simulators."""
        self._pool.close()

    def __exit__(self, *_: object) -> None:
        self.close()


def _options(
    verb: str, recipe: Recipe, out: Place, data: Place | None = None, base: Base | None = None
) -> Options:
    """What the command line would have asked; a recipe that is no name has none to go on with."""
    name = recipe if isinstance(recipe, str) else ""
    places = {"out": Path(out), "data": _path(data, "dataset"), "base": _path(base)}
    words = (name,) if name else ()
    return Options(config=as_config(recipe), verb=verb, recipe=name, words=words, **places)


def _path(place: Base | None, kind: Kind = "model") -> Path | None:
    if place is None:
        return None
    return place.path if isinstance(place, Run) else local(place, kind)
