"""A hub of our own on 127.0.0.1: as much of the Hugging Face Hub's HTTP API as wamrl uses, for the
real `huggingface_hub` client. Weights and pictures go the way of Git LFS, as there.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from urllib.parse import unquote

import pytest

TOKEN = "hf_of_the_test"
LARGE = (".safetensors", ".png", ".mp4", ".parquet")


@dataclass
class Stored:
    """A repository: what every commit holds, and where the branches stand."""

    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, bytes], deleted: Sequence[str] = ()) -> str:
        whole = self.commits.get(self.branches.get(branch, ""), {}) | files
        whole = {name: data for name, data in whole.items() if name not in deleted}
        content = f"{len(self.commits)} {branch} {sorted(whole)}"
        sha = hashlib.sha1(content.encode()).hexdigest()
        self.commits[sha] = whole
        self.branches[branch] = sha
        return sha

    def at(self, revision: str) -> str | None:
        return revision if revision in self.commits else self.branches.get(revision)


@dataclass
class Hub:
    """What is stored, and how the hub behaves."""

    repos: dict[str, Stored] = field(default_factory=dict)  # "models/owner/name"
    blobs: dict[str, bytes] = field(default_factory=dict)  # by sha256
    asked: list[str] = field(default_factory=list)  # "GET /api/models/..."
    status: int | None = None  # what every question is answered with instead
    silent: Event | None = None  # until it is set, nothing is answered
    url: str = ""

    def add(self, name: str, files: dict[str, bytes], **options) -> Stored:
        """A repository as somebody else has made it."""
        stored = self.repos[name] = Stored(**options)
        stored.commit("main", files)
        return stored


class Handler(BaseHTTPRequestHandler):
    """One request."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length) if length else self._chunks()
        path = unquote(self.path.partition("?")[0])
        self.hub.asked.append(f"{self.command} {path}")
        if self.hub.silent is not None:
            self.hub.silent.wait()
        if self.hub.status is not None:
            return self._send(self.hub.status, {"error": "as the test wants it"})
        for pattern, method in ROUTES.items():
            found = re.fullmatch(pattern, f"{self.command} {path}")
            if found:
                return getattr(self, method)(**found.groupdict())
        self._send(404, {"error": "no such route"})

    def _chunks(self) -> bytes:
        """A body of unknown length."""
        body = b""
        while self.headers.get("Transfer-Encoding") == "chunked":
            size = int(self.rfile.readline(), 16)
            body += self.rfile.read(size)
            self.rfile.readline()
            if not size:
                break
        return body

    def _send(self, status: int, content: object = b"", **headers: str) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    @property
    def _known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _writable(self) -> bool:
        if not self._known:
            self._send(401, {"error": "Invalid username or password."})
        return self._known

    def _found(self, repo: str, revision: str | None = "main") -> tuple[Stored, str] | None:
        stored = self.hub.repos.get(repo)
        if stored is None or (stored.private and not self._known):
            self._send(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
            return None
        sha = stored.at(revision or "main")
        if sha is None:
            self._send(404, {"error": "Invalid rev id"}, X_Error_Code="RevisionNotFound")
            return None
        return stored, sha

    def info(self, repo: str, revision: str | None = None) -> None:
        if found := self._found(repo, revision):
            stored, sha = found
            files = [{"rfilename": name} for name in stored.commits[sha]]
            name = repo.partition("/")[2]
            about = {"id": name, "sha": sha, "private": stored.private, "tags": [], "likes": 0}
            self._send(200, about | {"downloads": 0, "disabled": False, "siblings": files})

    def tree(self, repo: str, revision: str) -> None:
        if found := self._found(repo, revision):
            stored, sha = found
            entries = []
            for name, data in stored.commits[sha].items():
                entry = {"type": "file", "path": name, "size": len(data), "oid": _git(data)}
                if name.endswith(LARGE):
                    oid = hashlib.sha256(data).hexdigest()
                    entry["lfs"] = {"size": len(data), "oid": oid, "pointerSize": 134}
                entries.append(entry)
            self._send(200, entries)

    def resolve(self, repo: str, revision: str, file: str) -> None:
        found = self._found(repo if repo.startswith("datasets/") else f"models/{repo}", revision)
        if not found:
            return None
        stored, sha = found
        data = stored.commits[sha].get(file)
        if data is None:
            return self._send(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound")
        if not file.endswith(LARGE):
            return self._send(200, data, ETag=f'"{_git(data)}"', X_Repo_Commit=sha)
        oid = hashlib.sha256(data).hexdigest()
        self.hub.blobs[oid] = data
        linked = {"X_Linked_Etag": f'"{oid}"', "X_Linked_Size": str(len(data))}
        # on another host, as there: the client must not send its token along
        there = f"{self.hub.url}/lfs/{oid}".replace("127.0.0.1", "localhost")
        self._send(302, Location=there, X_Repo_Commit=sha, ETag=f'"{_git(data)}"', **linked)

    def create(self) -> None:
        if self._writable():
            asked = json.loads(self.body)
            name = f"{asked['organization']}/{asked['name']}"
            if f"models/{name}" in self.hub.repos:
                return self._send(409, {"error": "You already created this repo"})
            private = asked.get("visibility") == "private" or bool(asked.get("private"))
            self.hub.add(f"models/{name}", {".gitattributes": b"* text\n"}, private=private)
            self._send(200, {"url": f"{self.hub.url}/{name}", "name": name, "id": name})

    def yaml(self) -> None:
        asked = json.loads(self.body)
        header = re.match(r"---\n.+?\n---\n", asked["content"], re.DOTALL)
        errors = [] if header else [{"message": "no header"}]
        self._send(200 if header else 400, {"errors": errors, "warnings": []})

    def branch(self, repo: str, branch: str) -> None:
        if self._writable() and (found := self._found(repo)):
            stored, sha = found
            stored.branches.setdefault(branch, sha)
            self._send(200, {})

    def preupload(self, repo: str, revision: str) -> None:
        if self._writable() and self._found(repo, revision):
            files = json.loads(self.body)["files"]
            modes = []
            for file in files:
                mode = "lfs" if file["path"].endswith(LARGE) else "regular"
                modes.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False})
            self._send(200, {"files": modes})

    def batch(self, repo: str) -> None:
        if self._writable():
            objects = json.loads(self.body)["objects"]
            for item in objects:
                href = f"{self.hub.url}/lfs/{item['oid']}"
                item["actions"] = {"upload": {"href": href}}
            self._send(200, {"transfer": "basic", "objects": objects})

    def put(self, oid: str) -> None:
        good = hashlib.sha256(self.body).hexdigest() == oid
        if good:
            self.hub.blobs[oid] = self.body
        self._send(200 if good else 400)

    def get(self, oid: str) -> None:
        assert "Authorization" not in self.headers
        self._send(200, self.hub.blobs[oid], ETag=f'"{oid}"')

    def commit(self, repo: str, revision: str) -> None:
        if not self._writable():
            return None
        if not self._found(repo, revision):
            return None
        files = {}
        deleted = []
        for line in self.body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.hub.blobs[value["oid"]]
            elif entry["key"] == "deletedFile":
                deleted.append(value["path"])
        sha = self.hub.repos[repo].commit(revision, files, deleted)
        name = repo.partition("/")[2]
        self._send(200, {"commitUrl": f"{self.hub.url}/{name}/commit/{sha}", "commitOid": sha})


_REPO = r"/api/(?P<repo>(models|datasets)/[\w.-]+/[\w.-]+)"
ROUTES = {
    rf"GET {_REPO}": "info",
    rf"GET {_REPO}/revision/(?P<revision>.+)": "info",
    rf"GET {_REPO}/tree/(?P<revision>[^/]+)": "tree",
    r"POST /api/repos/create": "create",
    r"POST /api/validate-yaml": "yaml",
    rf"POST {_REPO}/branch/(?P<branch>.+)": "branch",
    rf"POST {_REPO}/preupload/(?P<revision>.+)": "preupload",
    rf"POST {_REPO}/commit/(?P<revision>.+)": "commit",
    r"POST /(?P<repo>.+)\.git/info/lfs/objects/batch": "batch",
    r"PUT /lfs/(?P<oid>\w+)": "put",
    r"GET /lfs/(?P<oid>\w+)": "get",
    r"(GET|HEAD) /(?P<repo>(datasets/)?[\w.-]+/[\w.-]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)": (
        "resolve"
    ),
}


def _git(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@contextlib.contextmanager
def serving() -> Iterator[Hub]:
    """The hub, while the block lasts."""
    hub = Hub()
    handler = type("HandlerOfOne", (Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def use(hub: Hub, cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client of this process talks to `hub` alone, as somebody that it knows. The client reads
    its environment once, when it is imported, and others may have done that.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import close_session, disable_progress_bars

    close_session()
    disable_progress_bars()
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)


def environment(hub: Hub, cache) -> dict[str, str]:
    """The same for another process."""
    names = {"HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(cache), "HF_HOME": str(cache)}
    return names | {"HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
