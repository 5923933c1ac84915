"""What the way to a policy server costs: openpi's client over loopback against `act` in this
process, on the same observation.

The way alone is measured with a server that decides nothing; the whole with `wamrl serve` in a
process of its own, as in use. The model is the quickstart's, with fresh weights that are not zero:
it computes as much as a trained one.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from openpi_client.websocket_client_policy import WebsocketClientPolicy

from benchmarks.side_by_side import finish, interleave, options, row
from wamrl.api.recipes import recipe
from wamrl.models.saved import save_wam
from wamrl.runs.demonstrations import env_spec
from wamrl.runs.phases import fresh_model
from wamrl.runtime.log import new_run
from wamrl.serve.config import ServerConfig
from wamrl.serve.policy import Policy
from wamrl.serve.saved import Saved, open_saved
from wamrl.serve.server import PolicyServer
from wamrl.serve.wire import pack, unpack


def saved_model(root: Path) -> Path:
    """A run folder of the quickstart that has learned nothing."""
    config = recipe("quickstart", {"threads": 1})
    wam = fresh_model(config)
    for layer in (wam.world.head, wam.actor.head):
        torch.nn.init.normal_(layer.weight, std=0.02)
    wam.sampler = "zero"
    run = new_run(root, "serve", config)
    save_wam(config.model, env_spec(config), wam, run, "final")
    return run


@contextmanager
def served(run: Path) -> Iterator[int]:
    """`wamrl serve` in a process of its own; yields the port."""
    command = [sys.executable, "-m", "wamrl.cli", "serve", str(run), "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        line = next(line for line in server.stdout if "ws://" in line)
        yield int(re.search(r":(\d+) ", line)[1])
    finally:
        server.terminate()
        server.wait()


def observation(saved: Saved) -> dict:
    env = saved.config.env.build()
    env.reset(0)
    seen = {"observation/image": env.render()[0], "observation/state": env.proprio()}
    env.close()
    return seen


def main() -> None:
    o = options()
    rounds = 10 if o.quick else 300
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as root:
        run = saved_model(Path(root))
        saved = open_saved(run)
        obs = observation(saved)
        policy = Policy(saved)
        act = policy.act
        with served(run) as port:
            client = WebsocketClientPolicy("127.0.0.1", port)
            apart = np.abs(act(obs) - client.infer(obs)["actions"]).max()
            assert apart < 1e-4, f"both must decide the same: {apart} apart"
            sides = {"ours": lambda: client.infer(obs), "peer": lambda: act(obs)}
            whole = interleave(sides, rounds, warmup=10)
        nothing = np.zeros((saved.wam.spec.chunk, saved.spec.action_dim), np.float32)
        with PolicyServer(saved, ServerConfig(port=0)).in_background() as port:
            client = WebsocketClientPolicy("127.0.0.1", port)
            with patch.object(Policy, "act", lambda *_: nothing):
                sides = {"ours": lambda: client.infer(obs), "peer": lambda: act(obs)}
                way = interleave(sides, rounds, warmup=10)
                sides = {"ours": lambda: unpack(pack(obs)), "peer": lambda: act(obs)}
                packed = interleave(sides, rounds // 10)
    rows = [
        row("the way alone", way["ours"], way["peer"]),
        row("of it: an observation packed and unpacked", packed["ours"], packed["peer"]),
        row("the whole, two processes", whole["ours"], whole["peer"]),
    ]
    finish("serve", rows, o)


if __name__ == "__main__":
    main()
