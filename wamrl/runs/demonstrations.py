"""The episodes of a run: demonstrations that it records or is given, rollouts that it keeps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from wamrl.config import Config
from wamrl.data import demos as demonstrations
from wamrl.data.clips import ClipDataset
from wamrl.data.episodes import open_store
from wamrl.data.fit import must_fit, oddities
from wamrl.data.keys import DataKeys
from wamrl.data.recording import Recording
from wamrl.data.sources import kind, open_dataset
from wamrl.envs.base import EnvSpec
from wamrl.rollout.types import Rollout
from wamrl.runtime import dist
from wamrl.runtime.cores import cores
from wamrl.runtime.log import bar, console
from wamrl.types import Clip


@dataclass(frozen=True, kw_only=True)
class Data:
    """Demonstrations as clips: successful ones to train on,
    held-out ones to measure the world model.
    """

    demos: ClipDataset
    heldout: Clip
    place: Path | None = None  # where they were read
    keys: DataKeys = DataKeys()  # what their columns are called


def record(cfg: Config, run: Path) -> None:
    """Record both sets of demonstrations into the run folder;
    one that an interrupted run has finished is kept.
    """
    spec = env_spec(cfg)
    for split, folder in (("demo", "demos"), ("heldout", "heldout")):
        if not dist.is_main() or (run / folder).is_dir():  # written whole or not at all
            continue
        plan = cfg.demos(split)
        with bar(f"recording {folder}", plan.episodes) as advance:
            episodes = demonstrations.collect(plan, advance)
        demonstrations.save(episodes, spec, run / folder)
        wins = sum(e.success for e in episodes)
        console.print(
            f"{folder}: {wins} of {len(episodes)} episodes succeeded -> {run / folder}",
            markup=False,
        )
    dist.barrier()


def has_data(place: Path) -> bool:
    """Can `load_data` read it: a run folder with demonstrations, or a dataset?"""
    return ((place / "demos").is_dir() and (place / "heldout").is_dir()) or kind(place) is not None


def load_data(cfg: Config, place: Path, keys: DataKeys | None = None) -> Data:
    """`place`: a run folder, recorded with the same environment;
    or a dataset, whose last episodes are held out. keys: what the dataset's columns are called.
    """
    spec = env_spec(cfg)
    if kind(place) is None:
        return Data(
            demos=_clips(cfg, open_store(place / "demos", spec)),
            heldout=_measured(_clips(cfg, open_store(place / "heldout", spec))),
            place=place,
        )
    episodes = open_dataset(place, views=spec.views, image_hw=spec.image_hw, keys=keys)
    must_fit(episodes, spec, place)
    for sentence in oddities(episodes, spec):
        console.print(f"note on {place}: {sentence}", markup=False)
    good = episodes.demonstrations
    if len(good) < 2:
        raise ValueError(
            f"{place} holds {len(good)} successful episodes: two are the least, one of them is "
            "held out"
        )
    held = min(cfg.data.heldout, max(1, len(good) // 5))
    return Data(
        demos=_clips(cfg, episodes, good[:-held]),
        heldout=_measured(_clips(cfg, episodes, good[-held:])),
        place=place,
        keys=keys or DataKeys(),
    )


def env_spec(cfg: Config) -> EnvSpec:
    env = cfg.env.build()
    try:
        return env.spec
    finally:
        env.close()


def keep_rollout(cfg: Config, rollout: Rollout, folder: Path) -> None:
    """Play a rollout again and write every frame of it as the new dataset `folder`;
    what is there already is kept.

    The environment's exact resets make the second playing the first one:
    where it is not, this raises ValueError.
    """
    if folder.is_dir():
        return
    decisions = rollout.decisions
    played = []
    for number in rollout.own:
        mine = decisions.episode == number
        actions = decisions.plan.actions[mine][decisions.mask[mine]].numpy()
        played.append((rollout.starts[number], actions))
    with bar(f"keeping {folder.name}", len(played)) as advance:
        # all ranks do
        episodes = demonstrations.replay(cfg.env, cfg.pool.n_workers or cores(), played, advance)
    for episode, number in zip(episodes, rollout.own, strict=True):
        if episode.success != bool(rollout.success[number]):
            raise ValueError(
                f"the environment does not repeat itself: {rollout.starts[number]} ended in "
                "another way the second time"
            )
    demonstrations.save(episodes, env_spec(cfg), folder)
    console.print(
        f"{len(episodes)} episodes -> {folder} (export: wamrl data convert)", markup=False
    )


def _clips(cfg: Config, episodes: Recording, numbers: list[int] | None = None) -> ClipDataset:
    m = cfg.model
    offsets = (m.history_offsets, m.frame_offsets)
    options = {"past": m.world.past, "only_success": True, "numbers": numbers}
    return ClipDataset(episodes, *offsets, m.chunk, **options)


def _measured(heldout: ClipDataset) -> Clip:
    """Up to 256 evenly spaced clips."""
    return heldout.at(torch.linspace(0, len(heldout) - 1, min(256, len(heldout))).long())
