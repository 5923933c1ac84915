"""The videos of a run folder: imagined next to executed frames, and before next to after."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from wamrl import report
from wamrl.config import Config
from wamrl.envs.base import Env
from wamrl.models.wam import WAM
from wamrl.pool.pool import Pool
from wamrl.rollout.collect import collect
from wamrl.rollout.samples import imagine
from wamrl.rollout.types import Decisions, Rollout
from wamrl.runtime.log import decorative
from wamrl.types import InitialState


@decorative("videos of episodes")
def write_videos(cfg: Config, wam: WAM, rollout: Rollout, folder: Path, most: int = 4) -> None:
    """Imagined next to executed frames: up to `most` episodes, half of them failed if possible.

    Of a suite, two of each task. Each is played again by its actions, to show every control step.
    """
    chosen = _chosen(rollout, rollout.own, most)
    if rollout.tasks:
        chosen = []
        for own in rollout.by_task.values():
            chosen += _chosen(rollout, [e for e in rollout.own if own[e]], 2)
    folder.mkdir(parents=True, exist_ok=True)
    env = cfg.env.build()
    try:
        for episode in chosen:
            shown = film(cfg, wam, rollout, episode, env)
            if shown is None:
                continue
            start = rollout.starts[episode].index
            path = folder / f"start{start:04d}-{shown.outcome}.mp4"
            report.side_by_side(path, shown, title=f"initial state {start}")
    finally:
        env.close()


def _chosen(rollout: Rollout, episodes: Sequence[int], most: int) -> list[int]:
    """Up to `most` of these episodes, half of them failed if possible."""
    wins = [e for e in episodes if rollout.success[e]]
    losses = [e for e in episodes if not rollout.success[e]]
    half = max(most // 2, most - len(losses))
    return (wins[:half] + losses)[:most]


def film(
    cfg: Config, wam: WAM, rollout: Rollout, episode: int, env: Env | None = None
) -> report.Film | None:
    """An episode and what `wam` imagines in it; None if it ended before the first frame.

    env: plays it again, so that every control step is shown.
    """
    chunks = rollout.decisions[rollout.decisions.episode == episode]
    real = chunks.verifiable.flatten()
    if not real.any():
        return None
    imagined = imagine(wam, chunks, cfg.eval.imagine_steps, batch=32)
    steps = (chunks.step[:, None] + torch.tensor(wam.spec.frame_offsets)).flatten()[real].tolist()
    executed = chunks.frames.flatten(0, 1)[real].numpy()
    every = None
    if env is not None:
        every = played_again(env, rollout.starts[episode], chunks)
        if every is None or any(
            _far(every[s], frame) for s, frame in zip(steps, executed, strict=True)
        ):
            every = None
    return report.Film(
        executed=executed,
        imagined=(imagined.flatten(0, 1)[real] * 255).round().to(torch.uint8).numpy(),
        steps=tuple(steps),
        length=int(rollout.length[episode]),
        success=bool(rollout.success[episode]),
        instruction=chunks.obs.text[0],
        control_hz=None if env is None else env.spec.control_hz,
        every=every,
    )


def played_again(env: Env, start: InitialState, chunks: Decisions) -> np.ndarray | None:
    """Every frame of an episode from its initial state on, uint8 (S+1, V, H, W, 3), by the actions
    that were executed: no model and no noise is needed. None where it ends too early.
    """
    env.reset(start.seed)
    frames = [env.render()]
    actions = chunks.plan.actions[chunks.mask].numpy()  # (S, A), in order
    for i, action in enumerate(actions, 1):
        result = env.step(action)
        frames.append(env.render())
        if (result.terminated or result.truncated) and i < len(actions):
            return None
    return np.stack(frames)


def _far(a: np.ndarray, b: np.ndarray) -> bool:
    """Do two pictures of the same moment differ by more than rendering on another machine?"""
    return float(np.abs(a.astype(np.int16) - b).mean()) > 1


@decorative("video of before and after")
def write_comparison(
    cfg: Config, base: WAM, wam: WAM, pool: Pool, states: Sequence[int], folder: Path, most: int = 8
) -> Path | None:
    """startNNNN.mp4: base and improved model from one evaluation state that only the latter solves.

    states: candidates. The first `most` are played again, by both models with the noise of their
    evaluation; where it goes as it did there (in another batch, rounding may turn a narrow
    outcome), the state is shown whose last executed frames differ most, so that the failure can
    be seen. None if there is none.
    """
    for old in folder.glob("start*.mp4"):  # of an earlier end of a run that was prolonged
        old.unlink()
    if not states:
        return None
    starts = [InitialState(split="eval", index=i) for i in states[:most]]
    flow = cfg.flow.at(1.0)
    films: dict[int, dict[str, report.Film]] = {i: {} for i in states[:most]}
    for name, model in {"before": base, "after": wam}.items():
        rollout = collect(model, pool, starts, flow, seed=cfg.seed, sampler=model.sampler)
        for episode, start in enumerate(rollout.starts):
            shown = film(cfg, model, rollout, episode)
            if shown is not None and shown.success == (name == "after"):
                films[start.index][name] = shown
    seen = {i: _apart(*both.values()) for i, both in films.items() if len(both) == 2}
    if not seen:
        return None
    chosen = max(seen, key=seen.get)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"start{chosen:04d}.mp4"
    report.comparison(path, films[chosen])
    return path


def _apart(a: report.Film, b: report.Film) -> float:
    """Mean absolute difference of the last executed frames, grey levels."""
    return float(np.abs(a.executed[-1].astype(np.int16) - b.executed[-1]).mean())
