"""The videos of a run folder: imagined next to executed frames, and before next to after; and
recordings of the same episodes for rerun.
"""

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
from wamrl.rewards.episode_scores import raw_rewards
from wamrl.rollout.collect import collect
from wamrl.rollout.samples import imagine
from wamrl.rollout.types import Decisions, Rollout
from wamrl.runtime.log import decorative
from wamrl.types import InitialState

_REWARDS = {  # of `raw_rewards`, one per chunk, at its end
    "reconstruction": "negative: imagined from executed frames of a chunk",
    "copy": "negative: the last frame before a chunk from its executed frames",
    "gain": "reconstruction less copy: above 0, more was imagined than copied",
}


@decorative("videos of episodes")
def write_videos(
    cfg: Config,
    wam: WAM,
    rollout: Rollout,
    folder: Path,
    most: int = 4,
    *,
    recordings: bool = False,
) -> None:
    """Imagined next to executed frames: up to `most` episodes, half of them failed if possible.

    Of a suite, two of each task. Each is played again by its actions, to show every control step.
    recordings: also an .rrd file of each, with actions, state and rewards.
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
            title = f"initial state {start}"
            report.side_by_side(path, shown, title=title)
            if recordings:
                measured = signals(cfg, wam, rollout, episode, shown)
                target = path.with_suffix(".rrd")
                report.write_recording(target, shown, measured, env.spec.views, title=title)
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
    state = None
    if env is not None:
        every, state = played_again(env, rollout.starts[episode], chunks)
        if every is None or any(
            _far(every[s], frame) for s, frame in zip(steps, executed, strict=True)
        ):
            every = None
            state = None
    return report.Film(
        executed=executed,
        imagined=(imagined.flatten(0, 1)[real] * 255).round().to(torch.uint8).numpy(),
        steps=tuple(steps),
        length=int(rollout.length[episode]),
        success=bool(rollout.success[episode]),
        instruction=chunks.obs.text[0],
        control_hz=None if env is None else env.spec.control_hz,
        every=every,
        state=state,
    )


def signals(
    cfg: Config, wam: WAM, rollout: Rollout, episode: int, shown: report.Film
) -> dict[str, report.Signal]:
    """What was done and measured in an episode: action, state, and the reward's parts per chunk."""
    chunks = rollout.decisions[rollout.decisions.episode == episode]
    low, high = rollout.bounds
    actions = chunks.plan.actions[chunks.mask].clamp(low, high).numpy()
    own = "in the environment's own units"
    found = {"action": report.Signal(np.arange(len(actions)), actions, f"executed, {own}")}
    replayed = shown.state is not None
    state = shown.state if replayed else chunks.obs.proprio.numpy()
    steps = np.arange(len(state)) if replayed else chunks.step.numpy()
    found["state"] = report.Signal(steps, state, f"of the robot, {own}")
    similarity = cfg.train.reward.similarity
    rewards = raw_rewards(
        similarity.build(),
        imagine(wam, chunks, cfg.eval.imagine_steps, batch=32),
        chunks.frames,
        chunks.obs.frames[:, -1],
        chunks.verifiable,
        device=next(wam.parameters()).device,
    )
    ends = (chunks.step + chunks.executed).numpy()
    for name, values in rewards.items():
        unit = f"{similarity.name} distance, {_REWARDS[name]}"
        found[f"reward/{name}"] = report.Signal(ends, values[:, None].numpy(), unit)
    solved = chunks.success.float()[:, None].numpy()
    found["reward/success"] = report.Signal(ends, solved, "1 at the end of the chunk that solves")
    return found


def played_again(
    env: Env, start: InitialState, chunks: Decisions
) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
    """Every frame of an episode from its initial state on, uint8 (S+1, V, H, W, 3), and the robot's
    state in it, float32 (S+1, P), by the actions that were executed: no model and no noise is
    needed. None twice where it ends too early.
    """
    env.reset(start.seed)
    frames = [env.render()]
    states = [env.proprio()]
    actions = chunks.plan.actions[chunks.mask].numpy()  # (S, A), in order
    for i, action in enumerate(actions, 1):
        result = env.step(action)
        frames.append(env.render())
        states.append(env.proprio())
        if (result.terminated or result.truncated) and i < len(actions):
            return None, None
    return np.stack(frames), np.stack(states).astype(np.float32)


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
