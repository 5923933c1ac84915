"""Places on the Hugging Face Hub: `hf://owner/name`, or at a revision `hf://owner/name@v1`.

Only what is written so goes to the network, so a mistyped path stays one. Everything that is said
to the hub goes through its own client, and what goes wrong there is one sentence.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Literal

Kind = Literal["model", "dataset"]

TIMEOUT_S = 20.0  # of the first question; a hub that does not answer it is not asked more
# What is fetched of a repository: what is read, and of a model what its page shows.
FILES: dict[Kind, tuple[str, ...]] = {
    "model": (
        "config.json",
        "model.safetensors",
        "manifest.json",
        "README.md",
        "learning_curve.png",
    ),
    "dataset": ("meta/*", "data/*", "videos/*", "images/*"),
}
_MARK = {"model": "manifest.json", "dataset": "meta/info.json"}
_WHAT = {"model": "model of wamrl", "dataset": "LeRobotDataset"}
# `Path` makes one slash of two
_PLACE = re.compile(r"hf:/+(?P<words>.*)", re.DOTALL)
_ID = re.compile(
    r"(?:(?P<kind>models|datasets)/)?(?P<id>\w[\w.-]*/\w[\w.-]*)(?:@(?P<revision>[\w./-]+))?",
    re.ASCII,
)


class HubError(ValueError):
    """The hub cannot be reached, refuses, or has something else; in a sentence."""


@dataclass(frozen=True)
class Repo:
    """A repository on the hub."""

    id: str  # owner/name
    kind: Kind = "model"
    revision: str | None = None  # a branch, tag or commit; None: main

    @property
    def name(self) -> str:
        """Without its owner."""
        return self.id.partition("/")[2]

    def __str__(self) -> str:
        return f"hf://{self.id}" + (f"@{self.revision}" if self.revision else "")


def parse_repo(text: str, kind: Kind = "model", revision: str = "") -> Repo:
    """ "owner/name", with or without `hf://`, a kind or a revision; ValueError if it is none.

    revision: in place of one in the text.
    """
    place = _PLACE.fullmatch(text)
    found = _ID.fullmatch(place["words"] if place else text)
    if found is None or ".." in text or "--" in found["id"]:
        raise ValueError(f"{text!r} names nothing on the hub: write hf://OWNER/NAME")
    if found["kind"] not in (None, f"{kind}s"):
        raise ValueError(f"{text} is not the name of a {kind}: give one of a {kind}")
    if revision and found["revision"]:
        raise ValueError(f"{text} names a revision already: leave out --revision {revision}")
    return Repo(found["id"], kind, revision or found["revision"])


def local(place: str | PathLike[str], kind: Kind = "model") -> Path:
    """Where `place` lies on this machine; what is on the hub (`hf://`) is brought here first.

    ValueError of one sentence if that is not possible.
    """
    path = Path(place)
    if not _PLACE.fullmatch(str(path)):
        return path
    return fetch(parse_repo(str(path), kind))


def fetch(repo: Repo) -> Path:
    """The folder in the hub's cache that holds what is read of a repository; a model is what its
    manifest says. What was there already is not fetched again, and will do when the hub is not
    reached. HubError of one sentence.
    """
    hub = client(repo)
    what = {"repo_type": repo.kind, "revision": repo.revision}
    with _in_words(repo):
        try:
            info = _api(hub).repo_info(repo.id, timeout=TIMEOUT_S, **what)
        except Exception as error:
            if _refused(error):
                raise
            folder = _cached(hub, repo, error)
        else:
            _require_fit(repo, [file.rfilename for file in info.siblings or ()])
            patterns = list(FILES[repo.kind])
            folder = hub.snapshot_download(repo.id, allow_patterns=patterns, **what)
    if repo.kind == "model":
        _require_sound(Path(folder))
    return Path(folder)


def publish(repo: Repo, files: Mapping[str, Path | bytes], *, private: bool, message: str) -> str:
    """One commit of these files to a model's repository, which is made if it is not there; what an
    earlier one has left of `FILES` is deleted. The address of its page. HubError of one sentence.
    """
    hub = client(repo)
    api = _api(hub)
    with _in_words(repo):
        try:
            public = not api.repo_info(repo.id, timeout=TIMEOUT_S).private
        except hub.errors.RepositoryNotFoundError:
            api.create_repo(repo.id, private=private or None, exist_ok=True)
            public = not private
        if private and public:
            raise HubError(
                f"{repo.id} is there already and everybody can read it: make it private on its "
                "page first, or leave out --private"
            )
        if repo.revision and repo.revision != "main":
            api.create_branch(repo.id, branch=repo.revision, exist_ok=True)
        there = {file.rfilename for file in api.repo_info(repo.id, revision=repo.revision).siblings}
        old = [name for name in FILES["model"] if name in there and name not in files]
        steps = [hub.CommitOperationAdd(name, content) for name, content in files.items()]
        steps += [hub.CommitOperationDelete(name) for name in old]
        api.create_commit(repo.id, steps, commit_message=message, revision=repo.revision)
    return f"{api.endpoint}/{repo.id}"


def client(repo: Repo) -> ModuleType:
    """`huggingface_hub`; HubError of one sentence if it is not installed."""
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ModuleNotFoundError as error:
        raise HubError(
            f"{repo} needs the package {error.name}: pip install huggingface_hub"
        ) from error
    return huggingface_hub


def _api(hub: ModuleType):
    return hub.HfApi(library_name="wamrl")


def _cached(hub: ModuleType, repo: Repo, error: Exception) -> str:
    """What an earlier visit has left; else `error` is raised again."""
    options = {"repo_type": repo.kind, "revision": repo.revision, "local_files_only": True}
    try:
        return hub.snapshot_download(repo.id, allow_patterns=list(FILES[repo.kind]), **options)
    except Exception:
        raise error from None


def _require_fit(repo: Repo, names: list[str]) -> None:
    """Before anything is fetched: HubError where it is something else, or leads out of itself."""
    for name in names:
        if ".." in PurePosixPath(name).parts or name.startswith("/") or not name.isprintable():
            raise HubError(f"{repo} lists {name!r}, which leads out of it: do not trust it")
    missing = _MARK[repo.kind]
    if missing not in names:
        raise HubError(f"{repo} is not a {_WHAT[repo.kind]}: it has no {missing}")


def _require_sound(folder: Path) -> None:
    from wamrl.models.saved import check_model  # torch

    try:
        check_model(folder)
    except ValueError as error:
        raise HubError(str(error)) from error


@contextlib.contextmanager
def _in_words(repo: Repo) -> Iterator[None]:
    """Whatever the client raises becomes a HubError. It has exceptions of its own, those of two
    HTTP libraries and of the storage behind it."""
    try:
        yield
    except HubError:
        raise
    except Exception as error:
        raise HubError(_sentence(repo, error)) from error


def _status(error: Exception) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _refused(error: Exception) -> bool:
    """Has the hub answered, and is its answer no?"""
    return _status(error) in (400, 401, 403, 404)


def _sentence(repo: Repo, error: Exception) -> str:
    from huggingface_hub import errors

    where = f"{repo} ({repo.kind})"
    login = "log in with `hf auth login`, or set HF_TOKEN"
    if isinstance(error, errors.GatedRepoError):
        return (
            f"{where} is given to those only who accept its terms: do so on its page, and {login}"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"there is no {where}, or it is private: check its name, or {login}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{where} has no such revision: name a branch, a tag or a commit"
    if _status(error) == 401:
        return f"the hub does not know who asks for {where}: {login}"
    if _status(error) == 403:
        return f"the hub does not allow you that with {where}: {login} as somebody who may"
    if isinstance(error, OSError) and error.filename:
        return (
            f"cannot write {error.filename} ({error.strerror}): free space, or set HF_HOME to "
            "another folder"
        )
    words = " ".join(str(error).split())[:200] or type(error).__name__
    return f"cannot reach {where}: {words}; try again when the hub answers"
