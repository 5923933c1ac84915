"""The server over loopback: the real `openpi-client`, several clients at once, and rude ones."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
import websockets
from websockets.sync.client import connect

from tests.support.command_line import refused
from tests.support.saved_runs import saved_run
from wamrl.commands.serve import ServeOptions, serve
from wamrl.serve.client import AsyncChunkBroker
from wamrl.serve.policy import Policy
from wamrl.serve.saved import open_saved
from wamrl.serve.server import PolicyServer, ServerConfig
from wamrl.serve.wire import pack, unpack


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return saved_run(tmp_path_factory.mktemp("runs"), model__history_offsets=(-4, 0))


@pytest.fixture(scope="module")
def saved(run):
    return open_saved(run)


@pytest.fixture(scope="module")
def obs(saved):
    return observations(saved, 3)


def observations(saved, n: int) -> list[dict]:
    env = saved.config.env.build()
    env.reset(0)
    found = []
    for _ in range(n):
        found.append({"observation/image": env.render()[0], "observation/state": env.proprio()})
        env.step(np.ones(2, np.float32))
    return found


@contextmanager
def served(saved, **config):
    with PolicyServer(saved, ServerConfig(port=0, **config)).in_background() as port:
        yield port


def client(port: int):
    """openpi's own."""
    policies = pytest.importorskip("openpi_client.websocket_client_policy")
    return policies.WebsocketClientPolicy("127.0.0.1", port)


def test_openpi_client_works_unchanged(saved, obs):
    expected = Policy(saved)
    with served(saved) as port:
        policy = client(port)
        metadata = policy.get_server_metadata()
        assert metadata["images"] == ["observation.images.top"]
        assert metadata["action_horizon"] == 8 and metadata["sampler"] == "ode"
        assert metadata["action_high"].tolist() == [1, 1]
        for number, one in enumerate(obs):  # with the history of this connection
            answer = policy.infer(one)
            assert np.array_equal(answer["actions"], expected.act(one))
            timing = answer["server_timing"]
            assert timing["infer_ms"] > 0 and ("prev_total_ms" in timing) == (number > 0)
        again = client(port)  # another connection: another episode
        expected.reset(1)
        assert np.array_equal(again.infer(obs[0])["actions"], expected.act(obs[0]))


def test_the_page_shows_what_works(saved, capsys):
    pytest.importorskip("openpi_client")
    page = (Path(__file__).parents[2] / "docs" / "serve.md").read_text(encoding="utf-8")
    known = {"picture": np.zeros((48, 64, 3), np.uint8), "state": np.zeros(4, np.float32)}
    with served(saved) as port:
        for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
            exec(compile(block.replace("8000", str(port)), "docs/serve.md", "exec"), known)
        known["robot"].close()
    assert known["answer"]["actions"].shape == (8, 2)
    assert known["action"]["actions"].shape == (2,)
    assert "observation.images.top" in capsys.readouterr().out


def test_an_episode_is_begun_and_the_clock_is_told_in_the_message(saved, obs):
    expected = Policy(saved)
    with served(saved) as port:
        policy = client(port)
        expected.act(obs[0])
        policy.infer(obs[0])
        told = policy.infer(obs[1] | {"executed": 2})["actions"]
        assert np.array_equal(told, expected.act(obs[1], 2))
        expected.reset()
        fresh = policy.infer(obs[1] | {"reset": True})["actions"]
        assert np.array_equal(fresh, expected.act(obs[1]))


def test_openpi_broker_gets_one_action_at_a_time(saved, obs):
    brokers = pytest.importorskip("openpi_client.action_chunk_broker")
    expected = Policy(saved)
    with served(saved, execute=2) as port:
        broker = brokers.ActionChunkBroker(client(port), action_horizon=2)
        got = [broker.infer(one)["actions"] for one in (obs[0], obs[1], obs[2])]
    first = expected.act(obs[0])
    # the server knows that two were executed: a history of 4 steps would differ else
    third = expected.act(obs[2], executed=2)
    assert np.array_equal(got, [first[0], first[1], third[0]])


def test_asynchronous_chunks(saved):
    """Asked two steps ahead: the chunk's first two actions are for steps that have passed."""
    many = observations(saved, 12)
    expected = Policy(saved)
    with served(saved) as port:
        broker = AsyncChunkBroker(client(port), execute=4, ahead=2)
        got = [broker.infer(one)["actions"] for one in many]
        first = expected.act(many[0])
        second = expected.act(many[4], executed=4)
        third = expected.act(many[8], executed=4)
        assert np.array_equal(got, [*first[:6], *second[2:6], *third[2:4]])
        broker.reset()
        expected.reset()
        assert np.array_equal(broker.infer(many[0])["actions"], expected.act(many[0])[0])
        broker.close()
        with pytest.raises(ValueError, match="execute . ahead = 9"):
            AsyncChunkBroker(client(port), execute=7, ahead=2).infer(many[0])
    with pytest.raises(ValueError, match="1 <= ahead <= execute"):
        AsyncChunkBroker(None, execute=4, ahead=0)


def test_a_robot_does_not_wait_for_asynchronous_chunks():
    """An answer that takes as long as four control steps."""
    gate = threading.Event()

    class Held:
        def infer(self, obs):
            if obs["t"] > 0:
                assert gate.wait(5), "somebody waits for this answer before it is needed"
            return {"actions": np.arange(8)[:, None] + 100 * obs["t"]}

    broker = AsyncChunkBroker(Held(), execute=4, ahead=4)
    got = [broker.infer({"t": t})["actions"].item() for t in range(8)]
    gate.set()
    got += [broker.infer({"t": t})["actions"].item() for t in range(8, 14)]
    broker.close()
    assert got == [*range(8), 404, 405, 406, 407, 804, 805]


def test_bad_messages_are_answered_and_the_server_goes_on(saved, obs):
    expected = Policy(saved)
    with served(saved) as port:
        policy = client(port)
        for bad, sentence in (
            ({}, "has no image of camera 'top'"),
            (obs[0] | {"observation/state": np.zeros(9)}, "has 9 numbers"),
            (obs[0] | {"executed": "x"}, "executed must be a whole number"),
            (obs[0] | {"reset": "x"}, "reset must be true or false"),
            ([1, 2], "is a dict, not list"),
        ):
            with pytest.raises(RuntimeError, match=sentence):  # how openpi's client tells errors
                policy.infer(bad)
        with connect(f"ws://127.0.0.1:{port}") as raw:
            raw.recv()
            for message in (b"\xc1", b"", "text", b"\x80" * 999, pack({"a": 1})):
                raw.send(message)
                assert isinstance(raw.recv(), str)
        assert np.array_equal(policy.infer(obs[0])["actions"], expected.act(obs[0]))


def test_what_fails_inside_is_logged_and_not_told(saved, obs, monkeypatch, capsys):
    def fail(*_):
        raise RuntimeError("/secret/path")

    with served(saved) as port:
        policy = client(port)
        with monkeypatch.context() as patch:
            patch.setattr(Policy, "act", fail)
            with pytest.raises(RuntimeError, match="the server has failed") as told:
                policy.infer(obs[0])
        assert "/secret" not in str(told.value)
        assert policy.infer(obs[0])["actions"].shape == (8, 2)
    assert "/secret/path" in capsys.readouterr().out


def test_large_messages_end_their_connection_only(saved, obs):
    with served(saved, max_mb=0.1) as port:
        polite = client(port)
        with connect(f"ws://127.0.0.1:{port}") as raw:
            raw.recv()
            raw.send(bytes(200_000))
            with pytest.raises(websockets.ConnectionClosedError) as closed:
                raw.recv()
            assert closed.value.rcvd.code == 1009
        assert polite.infer(obs[0])["actions"].shape == (8, 2)


def test_several_clients_at_once_have_their_own_histories(saved, obs):
    answers: dict[int, list] = {}
    with served(saved, clients=4) as port:
        policies = [client(port) for _ in range(4)]  # numbered in this order

        def ask(number: int) -> None:
            answers[number] = [policies[number].infer(one)["actions"] for one in obs]

        threads = [threading.Thread(target=ask, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with pytest.raises(websockets.InvalidStatus) as full:
            connect(f"ws://127.0.0.1:{port}")
        assert full.value.response.status_code == 503
    for number in range(4):
        expected = Policy(saved)
        expected.reset(number)
        assert np.array_equal(answers[number], [expected.act(one) for one in obs])


def test_health_and_web_pages(saved):
    with served(saved) as port:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz") as answer:
            assert answer.status == 200 and answer.read() == b"OK\n"
        with pytest.raises(websockets.InvalidStatus) as refused_page:
            connect(f"ws://127.0.0.1:{port}", origin="http://evil.example")
        assert refused_page.value.response.status_code == 403


def test_loopback_only_unless_told_otherwise(saved, monkeypatch):
    bound = []
    with served(saved) as port:
        bound = [line.split() for line in open("/proc/net/tcp") if f":{port:04X} " in line]
    assert {line[1].split(":")[0] for line in bound if line[3] == "0A"} == {"0100007F"}
    assert ServerConfig().host == "127.0.0.1"


def test_the_log_tells_clients_and_latency(saved, obs, capsys):
    with served(saved, log_every_s=0.1) as port:
        policy = client(port)
        policy.infer(obs[0])
        with pytest.raises(RuntimeError):
            policy.infer({})
        time.sleep(0.3)  # three times as long as between lines
        policy._ws.close()
    text = capsys.readouterr().out
    assert "client 0 from 127.0.0.1:" in text
    assert re.search(r"1 clients, 1 answers, 1 errors; act [\d.]+ ms, whole [\d.]+ ms", text)
    assert "client 0 has left: 1 answers" in text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_cleanly(run, obs, number):
    command = [sys.executable, "-m", "wamrl.cli", "serve", str(run), "--port", "0"]
    server = subprocess.Popen(
        command, stdout=-1, stderr=-1, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"}
    )
    try:
        line = server.stdout.readline()
        port = int(re.search(r"ws://127.0.0.1:(\d+)", line)[1])
        with connect(f"ws://127.0.0.1:{port}") as raw:
            raw.recv()
            raw.send(pack(obs[0]))
            assert unpack(raw.recv())["actions"].shape == (8, 2)
            server.send_signal(number)
            with pytest.raises(websockets.ConnectionClosedOK):
                raw.recv()
        out, err = server.communicate(timeout=20)
    finally:
        server.kill()
    assert server.returncode == 0 and not err, (server.returncode, err)
    assert "served 1 clients: 1 answers" in out


def test_only_one_thread_of_the_server_computes(saved, obs, run, monkeypatch):
    """Two with OpenMP threads each would keep one another from spinning."""
    seen = []
    monkeypatch.setattr(Policy, "act", lambda *_: seen.append(torch.get_num_threads()))
    before = torch.get_num_threads()
    with PolicyServer(saved, ServerConfig(port=0), threads=3).in_background() as port:
        with pytest.raises(RuntimeError):
            client(port).infer(obs[0])
    assert seen == [3] and torch.get_num_threads() == before
    made = []

    class Server:
        def __init__(self, saved, config, threads):
            made.append((threads, torch.get_num_threads()))

        def run(self):
            pass

    monkeypatch.setattr("wamrl.serve.server.PolicyServer", Server)
    torch.set_num_threads(2)
    try:
        serve(ServeOptions(run=run))
    finally:
        torch.set_num_threads(before)
    assert made == [(1, 1)], "the run of these tests asks for one thread"


def test_impossible_options_are_one_sentence(run, tmp_path):
    assert "choose 1 to 8" in refused("serve", run, "--execute", 9)
    assert "port=-1" in refused("serve", run, "--port", -1, code=2)
    assert "clients=0" in refused("serve", run, "--clients", 0, code=2)
    assert "is not in a run folder" in refused("serve", tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"cannot serve at 127.0.0.1:{port}" in refused("serve", run, "--port", port)
