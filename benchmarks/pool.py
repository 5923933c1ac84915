"""Our pool against gymnasium's AsyncVectorEnv (shared memory)
and Stable-Baselines3's SubprocVecEnv, per env step.

The environment costs next to nothing (`blank.py`), so this is the price of the plumbing. The peers
run one process per environment; ours shares them out: 2 cheap environments to one process, because
a second one would have to share its core with the pool's own where there are 2 cores, and 32, what
the recipes use, to two. In rows "in 2 processes" all sides have as many. "Per step": one message
and one frame per control step on all sides. "Per 8-step chunk": ours executes 8 actions per message
and draws only the two frames that the model looks at (offsets 4 and 8, the latter is the next
observation too); the peers, which have no chunks, step eight times and bring eight frames. Before
and after the timing all sides must show the same counter in the same pixels.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import gymnasium as gym
import numpy as np
import torch

from benchmarks.blank import ACTIONS, BlankConfig, BlankGym
from benchmarks.by_hand import begin, step
from benchmarks.machine import PEERS
from benchmarks.side_by_side import finish, interleave, options, row
from wamrl.pool.pool import PoolConfig
from wamrl.types import InitialState

CHUNK = 8
MISSING = (
    "stable-baselines3 is not here: `bash benchmarks/peers.sh` installs it beside ours; its rows "
    "are left out"
)


def peers(n: int, stack: ExitStack) -> dict[str, tuple[Callable, Callable[[], np.ndarray]]]:
    """Name -> (step(actions (n, A)), the frames of its last observation (n, H, W, 3)),
    each on `n` environments.
    """
    # its fastest; ours copies
    vector = gym.vector.AsyncVectorEnv([BlankGym] * n, shared_memory=True, copy=False)
    stack.callback(vector.close)
    seen = {"AsyncVectorEnv": vector.reset(seed=[0] * n)[0]}
    found = {"AsyncVectorEnv": partial(_step, "AsyncVectorEnv", vector.step, seen)}
    if PEERS.is_dir():
        # at the end: our own packages stay the ones that both sides use
        sys.path.append(str(PEERS))
        from stable_baselines3.common.vec_env import SubprocVecEnv

        # its default imports torch once per process
        vector = SubprocVecEnv([BlankGym] * n, start_method="fork")
        stack.callback(vector.close)
        vector.seed(0)
        seen["SubprocVecEnv"] = vector.reset()
        vector.env_method("reset", seed=0)
        found["SubprocVecEnv"] = partial(_step, "SubprocVecEnv", vector.step, seen)
    else:
        print(MISSING)
    return {name: (step, partial(seen.get, name)) for name, step in found.items()}


def _step(name: str, step: Callable, seen: dict, actions: np.ndarray) -> None:
    seen[name] = step(actions)[0]


class Ours:
    """A pool and its present frames."""

    def __init__(self, n: int, workers: int, n_exec: int, offsets: tuple[int, ...]) -> None:
        config = PoolConfig(n_envs=n, n_workers=workers)
        self.pool = config.build(BlankConfig(), n_exec=n_exec, frame_offsets=offsets)
        begin(self.pool, [InitialState(split="demo", index=0)] * n, n_exec)
        self.actions = torch.zeros(n, n_exec, ACTIONS)
        self.frames = np.zeros(0)

    def step(self) -> None:
        self.frames = step(self.pool, self.actions).obs.frames.numpy()[:, -1, 0]


def measure(n: int, workers: int, rounds: int, steps: int, suffix: str = "") -> list[dict]:
    """Rows for `n` environments; every round is `steps` control steps of each side."""
    rows = []
    with ExitStack() as stack:
        others, actions = peers(n, stack), np.zeros((n, ACTIONS), np.float32)
        for mode, n_exec, offsets in (("step", 1, (1,)), ("8-step chunk", CHUNK, (4, CHUNK))):
            ours = Ours(n, workers, n_exec, offsets)
            stack.callback(ours.pool.close)
            for name, (step, frames) in others.items():
                sides = {
                    "ours": lambda ours=ours, k=n_exec: [ours.step() for _ in range(steps // k)],
                    "peer": lambda step=step: [step(actions) for _ in range(steps)],
                }
                seconds = interleave(sides, rounds)
                check(ours.frames, frames(), mode, name)
                what = f"per {mode}, {n} environments{suffix}, against {name}"
                note = f"{workers} worker process{'es' * (workers > 1)}, the peer {n}"
                rows.append(
                    row(
                        what,
                        seconds["ours"],
                        seconds["peer"],
                        scale=1e6 / steps / n,
                        unit="us",
                        note=note,
                    )
                )
    return rows


def check(ours: np.ndarray, peer: np.ndarray, mode: str, name: str) -> None:
    """Every pixel of every environment shows one counter;
    on each side all of them have moved by whole rounds.
    """
    for frames in (ours, peer):
        assert frames.shape[1:] == (64, 64, 3) and frames.dtype == np.uint8, (
            name,
            frames.shape,
            frames.dtype,
        )
        assert (frames == frames[0, 0, 0, 0]).all(), f"{name}, {mode}: environments drifted apart"


def same_frames(n: int = 2) -> None:
    """Both kinds of environment, all engines, from seed 0:
    after each of 16 steps the same picture.
    """
    with ExitStack() as stack:
        others = peers(n, stack)
        stepwise, chunked = Ours(n, n, 1, (1,)), Ours(n, n, CHUNK, (4, CHUNK))
        stack.callback(stepwise.pool.close)
        stack.callback(chunked.pool.close)
        for t in range(1, 17):
            stepwise.step()
            for name, (step, frames) in others.items():
                step(np.zeros((n, ACTIONS), np.float32))
                assert np.array_equal(stepwise.frames, frames()), (
                    f"step {t}: {name} shows another picture"
                )
            if t % CHUNK == 0:
                chunked.step()
                assert np.array_equal(chunked.frames, stepwise.frames), (
                    f"step {t}: the chunk ends elsewhere"
                )


if __name__ == "__main__":
    o = options()
    same_frames()
    rounds, steps = (3, 64) if o.quick else (15, 1024)
    rows = measure(2, 1, rounds, steps)
    rows += measure(2, 2, rounds, steps, " in 2 processes")
    rows += measure(32, 2, rounds, steps // 4)
    finish("pool", rows, o)
