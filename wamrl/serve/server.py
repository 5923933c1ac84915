"""A policy over websockets, in openpi's protocol: its `openpi-client` works as it is.

A client connects and gets the server's metadata. Each message of its own is an observation, a dict
in msgpack (`wire.py`), answered by {"actions": float32 (N, A), "server_timing": {..}}; a text
instead of bytes is an error, and the connection goes on. Every connection is an episode of its own;
in its messages `reset` (true) begins another one, and `executed` counts the control steps since the
last message where those are not a whole chunk. GET /healthz answers "OK".
"""

from __future__ import annotations

import asyncio
import contextlib
import http
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from wamrl.runtime.log import console
from wamrl.runtime.ranges import check_ranges
from wamrl.serve.config import ServerConfig
from wamrl.serve.policy import Policy
from wamrl.serve.saved import Saved
from wamrl.serve.wire import pack, unpack

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_REMEMBERED = 1000  # latencies
_LONGEST_ERROR = 500  # characters


@dataclass
class _Latencies:
    """Of one client, or of all."""

    act: deque[float] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))  # seconds
    whole: deque[float] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    answers: int = 0
    errors: int = 0

    def add(self, act: float, whole: float) -> None:
        self.answers += 1
        self.act.append(act)
        self.whole.append(whole)

    def __str__(self) -> str:
        text = f"{self.answers} answers, {self.errors} errors"
        if self.answers:
            act = 1e3 * np.median(self.act)
            whole, late = 1e3 * np.quantile(self.whole, [0.5, 0.95])
            text += f"; act {act:.1f} ms, whole {whole:.1f} ms (median), {late:.1f} ms (95 %)"
        return text


class _Session:
    """One connection: its policy, its latencies."""

    def __init__(self, saved: Saved, number: int, execute: int) -> None:
        self.policy = Policy(saved)
        self.policy.reset(number)
        self.latencies = _Latencies()
        self._execute = execute

    def answer(self, message: bytes) -> tuple[np.ndarray, float]:
        """Actions (N, A), and the seconds that deciding took; ValueError for a bad message."""
        obs = unpack(message)
        if not isinstance(obs, dict):
            raise ValueError(f"an observation is a dict, not {type(obs).__name__}")
        again = obs.pop("reset", False)
        executed = obs.pop("executed", None)
        if not isinstance(again, bool | np.bool_):
            raise ValueError("reset must be true or false")
        if executed is not None and (isinstance(executed, bool) or not _whole(executed)):
            raise ValueError("executed must be a whole number of control steps")
        begin = time.perf_counter()
        if again:
            self.policy.reset()
        actions = self.policy.act(obs, None if executed is None else int(executed))
        return actions[: self._execute], time.perf_counter() - begin


def _whole(value: object) -> bool:
    return isinstance(value, int | np.integer)


class PolicyServer:
    """Serves one model to several clients; they take turns at it.

    Example: `PolicyServer(open_saved(path), ServerConfig(port=8000)).run()`
    """

    def __init__(self, saved: Saved, config: ServerConfig, threads: int = 1) -> None:
        """threads: of torch. ValueError of one sentence for an impossible configuration."""
        check_ranges(config)
        config.require_chunk(saved.wam.spec.chunk)
        self._saved = saved
        self._config = config
        self._execute = config.execute or saved.wam.spec.chunk
        self._sessions: dict[ServerConnection, _Session] = {}
        self._count = 0  # of clients so far
        self._all = _Latencies()
        # a thread of its own, so that pings are answered meanwhile; torch counts threads by thread
        self._model = ThreadPoolExecutor(
            1, "model", initializer=torch.set_num_threads, initargs=(threads,)
        )

    @property
    def metadata(self) -> dict[str, Any]:
        """What every client is told first."""
        spec = self._saved.spec
        low, high = spec.bounds
        return {
            "server": "wamrl",
            "environment": spec.name,
            "instructions": list(spec.instructions or (spec.instruction,)),
            "images": [f"observation.images.{view}" for view in spec.views],
            "image_hw": list(spec.image_hw),
            "state_dim": spec.proprio_dim,
            "action_dim": spec.action_dim,
            "action_low": low,
            "action_high": high,
            "action_horizon": self._execute,
            "sampler": self._saved.sampler,
        }

    def run(self) -> None:
        """Serve until SIGINT or SIGTERM. ValueError of one sentence if the port cannot be had."""
        asyncio.run(self._run_until_signal())

    @contextlib.contextmanager
    def in_background(self) -> Iterator[int]:
        """Serve in a thread within the block; yields the port."""
        opened: deque[int | BaseException] = deque()
        known = threading.Event()
        loop = asyncio.new_event_loop()
        stop = asyncio.Event()

        def tell(found: int | BaseException) -> None:
            opened.append(found)
            known.set()

        def work() -> None:
            try:
                loop.run_until_complete(self._serve(stop, tell))
            except BaseException as error:
                tell(error)
            finally:
                loop.close()

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        known.wait()
        if isinstance(opened[0], BaseException):
            raise opened[0]
        try:
            yield opened[0]
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join()
        if isinstance(opened[-1], BaseException):
            raise opened[-1]

    async def _run_until_signal(self) -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        await self._serve(stop, lambda port: None)

    async def _serve(self, stop: asyncio.Event, opened: Callable[[int], None]) -> None:
        config = self._config
        try:
            server = await serve(
                self._client,
                config.host,
                config.port,
                process_request=self._admit,
                origins=[None],  # no web page may ask: a browser names its origin
                compression=None,
                max_size=int(config.max_mb * 1e6),
                max_queue=1,
            )
        except OSError as error:
            raise ValueError(
                f"cannot serve at {config.host}:{config.port} ({error.strerror or error}): choose "
                "another --port or --host"
            ) from error
        with self._model:
            async with server:
                self._tell_address(server, opened)
                await self._log_until(stop)
        console.print(f"served {self._count} clients: {self._all}", markup=False)

    def _tell_address(self, server: Server, opened: Callable[[int], None]) -> None:
        port = server.sockets[0].getsockname()[1]
        console.print(
            f"serving {self._saved.path} at ws://{self._config.host}:{port} (stop: Ctrl-C)",
            markup=False,
        )
        if self._config.host not in _LOOPBACK:
            console.print("whoever reaches this machine may ask: nobody is asked who they are")
        opened(port)

    async def _log_until(self, stop: asyncio.Event) -> None:
        """Clients and latency now and then, as long as somebody asks."""
        said = 0
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):  # it is time to look
                await asyncio.wait_for(stop.wait(), self._config.log_every_s)
            if self._all.answers + self._all.errors != said and not stop.is_set():
                said = self._all.answers + self._all.errors
                console.print(f"{len(self._sessions)} clients, {self._all}", markup=False)

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        if request.path == "/healthz":
            return connection.respond(http.HTTPStatus.OK, "OK\n")
        if len(self._sessions) >= self._config.clients:
            full = f"{self._config.clients} clients are served already: come back later\n"
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, full)
        return None

    async def _client(self, connection: ServerConnection) -> None:
        session = _Session(self._saved, self._count, self._execute)
        name = f"client {self._count}"
        self._count += 1
        self._sessions[connection] = session
        host, port = connection.remote_address[:2]
        console.print(f"{name} from {host}:{port}", markup=False)
        try:
            await connection.send(pack(self.metadata))
            await self._answer_all(connection, session, name)
        except ConnectionClosed as closed:
            if closed.sent is not None and closed.sent.reason:
                console.print(f"{name}: {closed.sent.reason}", markup=False)
        finally:
            del self._sessions[connection]
            console.print(f"{name} has left: {session.latencies}", markup=False)

    async def _answer_all(self, connection: ServerConnection, session: _Session, name: str) -> None:
        loop = asyncio.get_running_loop()
        before = None  # seconds of the answer before this one
        async for message in connection:
            begin = time.perf_counter()
            try:
                if isinstance(message, str):
                    raise ValueError("a text is no observation: send msgpack, in bytes")
                actions, seconds = await loop.run_in_executor(self._model, session.answer, message)
            except Exception as error:
                self._all.errors += 1
                session.latencies.errors += 1
                await connection.send(_sentence(error, name))
                continue
            timing = {"infer_ms": 1e3 * seconds}
            if before is not None:
                timing["prev_total_ms"] = 1e3 * before
            await connection.send(pack({"actions": actions, "server_timing": timing}))
            before = time.perf_counter() - begin
            session.latencies.add(seconds, before)
            self._all.add(seconds, before)


def _sentence(error: Exception, name: str) -> str:
    """For the client; what is our fault goes into the log, and not to whoever asks."""
    if isinstance(error, ValueError):
        text = str(error)[:_LONGEST_ERROR]
    else:
        console.print(f"{name}: {''.join(traceback.format_exception(error))}", markup=False)
        text = "the server has failed at this message: its log says why"
    return text
