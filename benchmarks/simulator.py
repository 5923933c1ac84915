"""Real MetaWorld through the pool,
against the bare simulator and renderer in the same number of processes.

The bare side has no plumbing at all: each process steps its own environments in a plain loop, draws
the frames at the same offsets, reads the proprioception, and tells nobody until the whole round is
over. Both sides wait for their slowest process. Afterwards both must show the same last picture in
every environment.
"""

from __future__ import annotations

import multiprocessing as mp
from contextlib import ExitStack
from multiprocessing.connection import Connection

import numpy as np
import torch

from benchmarks.by_hand import begin, step
from benchmarks.side_by_side import finish, interleave, options, row
from wamrl.envs.metaworld.env import MetaWorldConfig
from wamrl.pool.pool import PoolConfig
from wamrl.types import InitialState

CHUNK, OFFSETS = 12, (6, 12)  # as in the recipes; the frame at 12 is the next observation too
# the untrained actions below never press the button
ENV = MetaWorldConfig(task="button-press", horizon=100_000)


def actions_of(slot: int, chunks: int) -> np.ndarray:
    """Random but the same on both sides, float32 (chunks, CHUNK, 4):
    small moves with an open hand.
    """
    return np.random.default_rng(slot).uniform(-0.3, 0.3, (chunks, CHUNK, 4)).astype(np.float32)


def bare(pipe: Connection, slots: range, chunks: int) -> None:
    """A process of the bare side: on `True` reset, on `False` run a round;
    answers with the last frames.
    """
    envs = {slot: ENV.build() for slot in slots}
    while (reset := pipe.recv()) is not None:
        if reset:
            for slot, env in envs.items():
                env.reset(InitialState(split="train", index=slot).seed)
            pipe.send(None)
            continue
        frames = {}
        for c in range(chunks):
            for slot, env in envs.items():
                for k, action in enumerate(actions_of(slot, chunks)[c], start=1):
                    env.step(action)
                    if k in OFFSETS:
                        frames[slot] = env.render()
                env.proprio()
        pipe.send(frames)


def start_bare(n: int, workers: int, chunks: int, stack: ExitStack) -> list[Connection]:
    context, edges = mp.get_context("spawn"), [n * i // workers for i in range(workers + 1)]
    pipes = []
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        ours, theirs = context.Pipe()
        process = context.Process(target=bare, args=(theirs, range(low, high), chunks), daemon=True)
        process.start()
        stack.callback(process.join, 5)
        stack.callback(ours.send, None)
        pipes.append(ours)
    return pipes


def ask(pipes: list[Connection], reset: bool) -> list:
    for pipe in pipes:
        pipe.send(reset)
    return [pipe.recv() for pipe in pipes]


def measure(n: int, workers: int, chunks: int, rounds: int) -> dict:
    config = PoolConfig(n_envs=n, n_workers=workers)
    starts = [InitialState(split="train", index=i) for i in range(n)]
    actions = torch.from_numpy(np.stack([actions_of(i, chunks) for i in range(n)], 1))
    last = {}
    with ExitStack() as stack:
        pipes = start_bare(n, workers, chunks, stack)
        pool = stack.enter_context(config.build(ENV, n_exec=CHUNK, frame_offsets=OFFSETS))

        def through_the_pool() -> None:
            for c in range(chunks):
                last["ours"] = step(pool, actions[c]).obs.frames[:, -1].numpy()

        def plain_loop() -> None:
            merged = {k: v for part in ask(pipes, reset=False) for k, v in part.items()}
            last["peer"] = np.stack([merged[i] for i in range(n)])

        seconds: dict[str, list[float]] = {"ours": [], "peer": []}
        for i in range(-1, rounds):
            begin(pool, starts, CHUNK)
            ask(pipes, reset=True)
            sides = {"ours": through_the_pool, "peer": plain_loop}
            order = dict(reversed(sides.items())) if i % 2 else sides
            for name, found in interleave(order, 1, warmup=0).items():
                seconds[name] += found if i >= 0 else []
            assert np.array_equal(last["ours"], last["peer"]), (
                "pool and plain loop ended in different pictures"
            )
    what = f"MetaWorld, {n} environments, {workers} process{'es' * (workers > 1)}"
    return row(
        what,
        seconds["ours"],
        seconds["peer"],
        scale=1e3 / (n * chunks * CHUNK),
        unit="ms per control step",
    )


if __name__ == "__main__":
    o = options()
    chunks, rounds = (2, 2) if o.quick else (8, 10)
    finish("simulator", [measure(8, workers, chunks, rounds) for workers in (2, 1)], o)
