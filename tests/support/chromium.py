"""A real headless Chromium, told what to do through its DevTools pipe; no package needed."""

from __future__ import annotations

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_QUIET = (
    "--headless=new",
    "--no-sandbox",  # tests may run as root; only pages of our own are opened
    "--disable-gpu",
    "--no-first-run",
    "--disable-extensions",
    "--disable-component-update",
    "--disable-background-networking",
    "--disable-sync",
    "--hide-scrollbars",
    "--mute-audio",
    "--remote-debugging-pipe",
)


def chromium() -> str | None:
    """Its path, if there is one here."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One tab. `requests` and `errors` are of everything since the last `open`."""

    def __init__(self, profile: Path, timeout: float = 120.0) -> None:
        self.timeout = timeout
        self.requests: list[str] = []
        self.errors: list[str] = []
        self._ids = itertools.count(1)
        self._rest = b""
        self._answers: dict[int, dict] = {}
        self._loaded = False
        read, self._write = os.pipe()
        self._read, write = os.pipe()
        # the browser reads at 3 and writes at 4; parked above first, since pipes may be there
        script = 'exec "$@" 3<&"$IN" 4>&"$OUT"'
        command = [
            "bash",
            "-c",
            script,
            "-",
            str(chromium()),
            *_QUIET,
            f"--user-data-dir={profile}",
        ]
        self._process = subprocess.Popen(
            command,
            pass_fds=(read, write),
            env=os.environ | {"IN": str(read), "OUT": str(write)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read)
        os.close(write)
        self._session = ""
        target = self("Target.createTarget", url="about:blank")["targetId"]
        attached = self("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._write)
        os.close(self._read)
        self._process.terminate()
        self._process.wait(timeout=30)

    def __call__(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a DevTools method; its result."""
        number = next(self._ids)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        self._until(lambda: number in self._answers)
        answer = self._answers.pop(number)
        assert "error" not in answer, (method, answer["error"])
        return answer["result"]

    def _until(self, done) -> None:
        end = time.monotonic() + self.timeout
        while not done():
            assert time.monotonic() < end, "Chromium does not answer"
            if select.select([self._read], [], [], 1.0)[0]:
                self._rest += os.read(self._read, 1 << 20)
                *whole, self._rest = self._rest.split(b"\0")
                for message in whole:
                    self._take(json.loads(message))

    def _take(self, message: dict) -> None:
        if "id" in message:
            self._answers[message["id"]] = message
            return
        event = message["params"]
        match message["method"]:
            case "Page.loadEventFired":
                self._loaded = True
            case "Network.requestWillBeSent":
                self.requests.append(event["request"]["url"])
            case "Runtime.exceptionThrown":
                self.errors.append(str(event["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if event["type"] in ("error", "warning", "assert"):
                self.errors.append(str(event["args"]))
            case "Log.entryAdded" if event["entry"]["level"] in ("error", "warning"):
                self.errors.append(event["entry"]["text"])

    def look(self, *, width: int, height: int = 900, dark: bool = False) -> None:
        """The size of the screen and the scheme; figures are waited for."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self("Emulation.setEmulatedMedia", features=[scheme])
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self("Emulation.setDeviceMetricsOverride", **size)
        if self._loaded:
            self.value(
                "new Promise((r) => setTimeout(r, 400)).then(() => window.drawn).then(() => 0)"
            )

    def open(self, page: Path, *, width: int, dark: bool = False) -> None:
        """Show a page from the disk, and wait for its figures."""
        self._loaded = False
        self.look(width=width, dark=dark)
        self.requests.clear()
        self.errors.clear()
        self("Page.navigate", url=page.absolute().as_uri())
        self._until(lambda: self._loaded)
        self.value("window.drawn.then(() => true)")

    def value(self, script: str) -> Any:
        """What JavaScript comes to, promises waited for."""
        options = {"expression": script, "awaitPromise": True, "returnByValue": True}
        found = self("Runtime.evaluate", **options)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def picture(self, path: Path, *, whole: bool = False) -> None:
        """A screenshot: of what is seen, or of the whole page."""
        shot = self("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))
