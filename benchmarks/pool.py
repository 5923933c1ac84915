"""The pool against gymnasium's AsyncVectorEnv (shared memory) and Stable-Baselines3's SubprocVecEnv.

A trivial environment with a 64-pixel picture, so that what is measured is the way there and back; 16 environments, two
processes for us, as many as environments for the peers (they know no other way). The same pictures arrive (asserted).
Per step, all hand over a picture after every step. Per chunk of 8 steps, ours sends one message and renders where
somebody looks (at the end); the peers take 8 messages and render 8 times, since their interface has no chunks.
SB3 is used if it can be imported: `pip install stable-baselines3` into an environment of its own.
"""

from __future__ import annotations

import gymnasium
import numpy as np
import torch
from blank import BlankConfig, BlankGym
from side_by_side import report, row

from wamrl.envs.workers import Pool, PoolConfig
from wamrl.types import Start

ENVS, PROCESSES, CHUNK = 16, 2, 8


def starts() -> list[Start]:
    return [Start(split="demo", index=i) for i in range(ENVS)]


def ours(n_exec: int) -> tuple[Pool, np.ndarray]:
    pool = PoolConfig(
        env=BlankConfig(), n_envs=ENVS, n_workers=PROCESSES, n_exec=n_exec, frame_offsets=(n_exec,)
    ).build()  # fmt: skip
    pool.reset(starts())
    return pool, np.zeros((ENVS, n_exec, 4), np.float32)


def gymnasium_peer():
    envs = gymnasium.vector.AsyncVectorEnv([BlankGym] * ENVS, shared_memory=True)
    envs.reset(seed=[s.seed for s in starts()])
    return envs, lambda actions: envs.step(actions)[0]


def sb3_peer():
    from stable_baselines3.common.vec_env import SubprocVecEnv

    envs = SubprocVecEnv([BlankGym] * ENVS)
    for i, s in enumerate(starts()):
        envs._seeds[i] = s.seed
    envs.reset()
    return envs, lambda actions: envs.step(actions)[0]


def main() -> None:
    rows, peers = [], {"AsyncVectorEnv": gymnasium_peer}
    try:
        import stable_baselines3  # noqa: F401 only: is it here?

        peers["SubprocVecEnv"] = sb3_peer
    except ImportError:
        print("Stable-Baselines3 is not installed: not compared (pip install stable-baselines3)")
    flat, live = np.zeros((ENVS, 4), np.float32), torch.ones(ENVS, dtype=torch.bool)
    for name, make in peers.items():
        envs, step = make()
        for n_exec, target in ((1, 4.0), (CHUNK, 15.0)):
            pool, actions = ours(n_exec)
            theirs = [step(flat) for _ in range(n_exec)][-1]
            mine = pool.step(actions, live).obs.frames[:, -1, 0].numpy()
            assert np.array_equal(theirs - theirs[0, 0, 0, 0], mine - mine[0, 0, 0, 0]), "other pictures"
            rows.append(
                row(
                    f"{name}, {ENVS} environments, " + ("per step" if n_exec == 1 else f"per chunk of {n_exec} steps"),
                    ours=lambda pool=pool, a=actions: [pool.step(a, live) for _ in range(20)],
                    peer=lambda n=n_exec, step=step: [step(flat) for _ in range(20 * n)], per=20, target=target,
                )
            )  # fmt: skip
            pool.close()
        envs.close()
    report("pool", rows)


if __name__ == "__main__":
    main()
