"""Where a run's numbers, pictures and videos go beside metrics.jsonl: `--trackers`.

tensorboard   RUN/tensorboard, for `tensorboard --logdir runs`; numbers and pictures
wandb         RUN/wandb, offline unless WANDB_MODE says otherwise; `wandb sync` uploads it
trackio       runs/trackio, beside the run folder, unless TRACKIO_DIR says otherwise; `trackio show`

A further one is a class with three methods and a line in TRACKERS. metrics.jsonl is always written.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from wamrl.runtime.files import writing

TrackerName = Literal["tensorboard", "wandb", "trackio"]
DEFAULT: tuple[TrackerName, ...] = ("tensorboard",)
PROJECT = "wamrl"
# of a run folder, as far as they are there
PICTURES = ("learning_curve.png", "diagnostics.png")
VIDEOS = "videos/**/*.mp4"


class Tracker(ABC):
    """One service. What it is given goes to one run, the one that its folder is."""

    @abstractmethod
    def log(self, step: int, numbers: dict[str, float]) -> None:
        """Finite numbers of one step; steps of learning from demonstrations are negative."""

    @abstractmethod
    def file(self, step: int, name: str, path: Path) -> None:
        """A picture (PNG) or a video (MP4); left out where the service has no such thing."""

    @abstractmethod
    def close(self) -> None:
        """Write what is not written."""


class TensorBoard(Tracker):
    """Event files."""

    def __init__(self, run: Path, config: dict[str, Any], resume_step: int | None) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        purge = None if resume_step is None else resume_step + 1
        self._folder = run / "tensorboard"
        with writing(self._folder):
            _wait_for_a_later_name(self._folder)
            self._board = SummaryWriter(str(self._folder), purge_step=purge)

    def log(self, step: int, numbers: dict[str, float]) -> None:
        with writing(self._folder):
            for name, value in numbers.items():
                self._board.add_scalar(name, value, step)

    def file(self, step: int, name: str, path: Path) -> None:
        if path.suffix == ".png":
            from matplotlib.image import imread

            with writing(self._folder):
                self._board.add_image(name, imread(path)[..., :3], step, dataformats="HWC")

    def close(self) -> None:
        with writing(self._folder):
            self._board.close()


def _wait_for_a_later_name(folder: Path) -> None:
    """A second at most, so that a new event file comes after the earlier ones.

    TensorBoard reads them in the order of their names, which begin with the second in which they
    were opened. Within one second a resumed run's file may come first; then it purges nothing.
    """
    seconds = [int(path.name.split(".")[3]) for path in folder.glob("events.out.tfevents.*")]
    left = max(seconds, default=0) + 1 - time.time()
    if 0 < left <= 1:  # more: the clock has been set back, no wait helps
        time.sleep(left)


class Wandb(Tracker):
    """Weights & Biases. A resumed run goes on under the same id."""

    def __init__(self, run: Path, config: dict[str, Any], resume_step: int | None) -> None:
        import wandb

        self._wandb = wandb
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=run.name,
            id=re.sub(r"[^\w.-]", "-", run.name)[:128],
            resume="allow",
            dir=str(run),
            config=config,
            mode=os.environ.get("WANDB_MODE", "offline"),
            settings=wandb.Settings(silent=True, console="off"),
        )
        # its own counter never goes back, and ours begins below zero
        self._run.define_metric("*", step_metric="step")

    def log(self, step: int, numbers: dict[str, float]) -> None:
        self._run.log({"step": step} | numbers)

    def file(self, step: int, name: str, path: Path) -> None:
        picture = path.suffix == ".png"
        shown = self._wandb.Image(str(path)) if picture else self._video(path)
        self._run.log({"step": step, name: shown})

    def _video(self, path: Path) -> Any:
        return self._wandb.Video(str(path), format="mp4")

    def close(self) -> None:
        self._run.finish()


class Trackio(Tracker):
    """trackio's local database."""

    def __init__(self, run: Path, config: dict[str, Any], resume_step: int | None) -> None:
        os.environ.setdefault("TRACKIO_DIR", str(run.absolute().parent / "trackio"))
        import trackio

        self._trackio = trackio
        options = {"auto_log_gpu": False, "auto_log_cpu": False}
        project = os.environ.get("TRACKIO_PROJECT", PROJECT)
        trackio.init(project=project, name=run.name, config=config, resume="allow", **options)

    def log(self, step: int, numbers: dict[str, float]) -> None:
        self._trackio.log(numbers, step=step)

    def file(self, step: int, name: str, path: Path) -> None:
        kind = self._trackio.Image if path.suffix == ".png" else self._trackio.Video
        self._trackio.log({name: kind(str(path))}, step=step)

    def close(self) -> None:
        self._trackio.finish()


TRACKERS: dict[str, type[Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": Wandb,
    "trackio": Trackio,
}
assert tuple(TRACKERS) == get_args(TrackerName)


def check_trackers(names: Sequence[str]) -> None:
    """Before any work: ValueError of one sentence where a tracker is unknown or not installed."""
    from importlib.util import find_spec

    for name in names:
        if name not in TRACKERS:
            raise ValueError(f"trackers={name} is not possible: choose of {', '.join(TRACKERS)}")
        if find_spec(name) is None:
            raise ValueError(f"trackers={name} needs a package: pip install {name}")


class Trackers:
    """Several at once. Whichever service fails is left out from then on, and that is said."""

    def __init__(self, run: Path, names: Sequence[str], resume_step: int | None) -> None:
        config = json.loads((run / "config.json").read_text(encoding="utf-8"))
        self._open: dict[str, Tracker] = {}
        for name in dict.fromkeys(names):
            with self._going_on(name):
                self._open[name] = TRACKERS[name](run, config, resume_step)

    def log(self, step: int, numbers: dict[str, float]) -> None:
        """See `Tracker.log`."""
        for name, tracker in list(self._open.items()):
            with self._going_on(name):
                tracker.log(step, numbers)

    def file(self, step: int, name: str, path: Path) -> None:
        """See `Tracker.file`."""
        for tracker_name, tracker in list(self._open.items()):
            with self._going_on(tracker_name):
                tracker.file(step, name, path)

    def close(self) -> None:
        """Close them all."""
        for name, tracker in list(self._open.items()):
            with self._going_on(name):
                tracker.close()

    @contextlib.contextmanager
    def _going_on(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._open.pop(name, None)
            words = str(error).strip() or type(error).__name__
            told = f"the tracker {name} failed and gets no more of this run, which goes on: {words}"
            print(told, file=sys.stderr)


@contextlib.contextmanager
def open_trackers(
    run: Path, names: Sequence[str], resume_step: int | None = None
) -> Iterator[Trackers]:
    """Yields the trackers of a run folder, and closes each."""
    with contextlib.closing(Trackers(run, names, resume_step)) as trackers:
        yield trackers


def publish(run: Path, names: Sequence[str], step: int) -> None:
    """Give the trackers the pictures and videos that the run folder has; the first rank only."""
    from wamrl.runtime import dist  # torch, which `--help` does without

    if not dist.is_main() or not names:
        return
    found = [run / name for name in PICTURES if (run / name).is_file()]
    found += sorted(run.glob(VIDEOS))
    with open_trackers(run, names, resume_step=step) as trackers:
        for path in found:
            trackers.file(step, str(path.relative_to(run).with_suffix("")), path)
