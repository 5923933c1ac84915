"""What the way to a policy server costs: openpi's client over loopback against `act` in a process
of its own, the same observation and the same noise.

The client and the server are processes of their own, as in use. The model is the quickstart's, with
fresh weights that are not zero: it computes as much as a trained one.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from openpi_client.websocket_client_policy import WebsocketClientPolicy

from benchmarks.side_by_side import finish, interleave, options, row, single
from wamrl.api.recipes import recipe
from wamrl.models.saved import save_wam
from wamrl.runs.phases import fresh_model
from wamrl.runtime.log import new_run
from wamrl.serve.policy import Policy
from wamrl.serve.saved import open_saved
from wamrl.serve.wire import pack, unpack


def saved_model(root: Path) -> Path:
    """A run folder of the quickstart that has learned nothing."""
    config = recipe("quickstart", {"threads": 1})
    wam = fresh_model(config)
    for layer in (wam.world.head, wam.actor.head):
        torch.nn.init.normal_(layer.weight, std=0.02)
    wam.sampler = "zero"
    run = new_run(root, "serve", config)
    save_wam(config.model, wam, run, "final")
    return run


def main() -> None:
    o = options()
    rounds = 10 if o.quick else 300
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as root:
        run = saved_model(Path(root))
        saved = open_saved(run)
        env = saved.config.env.build()
        env.reset(0)
        obs = {"observation/image": env.render()[0], "observation/state": env.proprio()}
        env.close()
        command = [sys.executable, "-m", "wamrl.cli", "serve", str(run), "--port", "0"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            line = next(line for line in server.stdout if "ws://" in line)
            client = WebsocketClientPolicy("127.0.0.1", int(re.search(r":(\d+) ", line)[1]))
            rows = measure(Policy(saved), client, obs, rounds)
        finally:
            server.terminate()
            server.wait()
    finish("serve", rows, o)


def measure(policy: Policy, client: WebsocketClientPolicy, obs: dict, rounds: int) -> list[dict]:
    """Rows: the whole, and what of it is not `act`."""
    same = np.abs(policy.act(obs) - client.infer(obs)["actions"]).max()
    assert same < 1e-4, f"both must decide the same: {same} apart"
    inside: list[float] = []

    def ask() -> None:
        inside.append(client.infer(obs)["server_timing"]["infer_ms"])

    seconds = interleave({"ours": ask, "peer": lambda: policy.act(obs)}, rounds, warmup=10)
    whole = 1e3 * np.array(seconds["ours"])
    way = whole - np.array(inside[-rounds:])
    share = way / np.array(inside[-rounds:])
    alone = interleave({"pack": lambda: unpack(pack(obs))}, rounds)["pack"]
    return [
        row("a request over loopback", seconds["ours"], seconds["peer"]),
        single("of it: transport", way.tolist(), "ms"),
        single("transport / act, both in the same request", share.tolist(), "of act"),
        single("an observation packed and unpacked", [1e3 * s for s in alone], "ms"),
    ]


if __name__ == "__main__":
    main()
