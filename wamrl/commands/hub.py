"""The verbs `push` and `pull`: models to and from the Hugging Face Hub.

Light to import: what is slow is imported when a verb is called.
"""

from __future__ import annotations

import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from wamrl.hub.repo import FILES, Repo, fetch, parse_repo, publish
from wamrl.runtime.files import atomic_folder
from wamrl.runtime.shown import Place, Word

RepoName = Annotated[str, tyro.conf.arg(metavar="REPO")]


@dataclass(frozen=True, kw_only=True)
class PushOptions:
    """Options of `push`."""

    path: tyro.conf.Positional[Path]  # a run folder, or a model folder such as its checkpoints/best
    repo: tyro.conf.Positional[RepoName]  # owner/name on the hub; it is made if it is not there
    private: bool = False  # only you can read it; a public one that is there already is refused
    revision: Word = ""  # a branch; it is made if it is not there (default: main)
    license: Word = ""  # of the weights, as the hub names it, such as mit (default: none is named)

    def validate(self) -> None:
        """ValueError where the name is none."""
        parse_repo(self.repo, revision=self.revision)


@dataclass(frozen=True, kw_only=True)
class PullOptions:
    """Options of `pull`."""

    repo: tyro.conf.Positional[RepoName]  # owner/name on the hub
    out: Place = None  # the folder to make (default: NAME, in the current folder)
    revision: Word = ""  # a branch, tag or commit (default: main)

    def validate(self) -> None:
        """ValueError where the name is none."""
        parse_repo(self.repo, revision=self.revision)


def push(o: PushOptions) -> None:
    """Publish a model with a card of its run's own numbers, in one commit."""
    from wamrl.hub import card
    from wamrl.models.saved import CONFIG, WEIGHTS, model_folder
    from wamrl.runtime.files import MANIFEST
    from wamrl.runtime.log import console

    repo = parse_repo(o.repo, revision=o.revision)
    folder = model_folder(o.path)
    model = card.describe(repo, folder)
    files: dict[str, Path | bytes] = {name: folder / name for name in (CONFIG, WEIGHTS, MANIFEST)}
    files["README.md"] = card.model_card(model, o.license).encode()
    if card.has_curve(model):
        files[card.CURVE] = model.run / card.CURVE
    console.print(f"model: {folder}", markup=False)
    if not model.config:
        said = "note: it does not say how its run was made, so whoever uses it needs the recipe"
        console.print(said, markup=False)
    page = publish(repo, files, private=o.private, message=f"Upload {model.name} of wamrl")
    console.print(f"{', '.join(files)} -> {page}", markup=False)
    console.print(f"fetch it with: wamrl pull {_named(repo)}", markup=False)


def pull(o: PullOptions) -> None:
    """Fetch a model into a new folder, whole or not at all."""
    from wamrl.runtime.log import console

    repo = parse_repo(o.repo, revision=o.revision)
    target = o.out or Path(repo.name)
    if target.exists():
        raise ValueError(f"{target} exists already: delete it or name another folder with --out")
    place = fetch(repo)
    with atomic_folder(target) as draft:
        for name in FILES["model"]:
            if (place / name).is_file():
                shutil.copyfile(place / name, draft / name)
    console.print(f"{repo} -> {target}", markup=False)
    console.print(_next(target), markup=False)


def _named(repo: Repo) -> str:
    return repo.id + (f" --revision {shlex.quote(repo.revision)}" if repo.revision else "")


def _next(folder: Path) -> str:
    """What to do with a model, to be typed as it stands; or why it needs more than that."""
    from wamrl.recipes.find import build_saved

    try:
        config = build_saved(folder)
    except ValueError as error:
        return f"note: {error}"
    where = shlex.quote(str(folder))
    if config is None:
        return f"note: {folder} does not say how its run was made: name its recipe with it"
    if not config.env.playable:
        return f"serve it with: wamrl serve {where}"
    return f"evaluate it with: wamrl eval --base {where}"
