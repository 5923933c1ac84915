"""`wamrl data convert | inspect | stats`:
recordings from one format to another, and what is in them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import tyro
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from wamrl.data import episodes as store
from wamrl.data import lerobot
from wamrl.data.lerobot.reader import LeRobotRecording
from wamrl.data.lerobot.stats import stats as stats_of
from wamrl.data.lerobot.summary import size_of
from wamrl.data.recording import Recording
from wamrl.data.sources import kind, open_dataset
from wamrl.runtime.log import console


@dataclass(frozen=True, kw_only=True)
class Convert:
    """Write a recording in another format. DST must not exist yet."""

    src: tyro.conf.Positional[Path]
    """Our own folder, a run with demos, a LeRobotDataset (v3.0, v2.1) or an HDF5 file."""
    dst: tyro.conf.Positional[Path]
    format: Literal["auto", "lerobot", "wamrl"] = "auto"
    """auto: wamrl from LeRobot, else LeRobot v3.0."""
    fps: int | None = None
    """Control steps per second; needed unless SRC is a LeRobotDataset."""
    image: bool = False
    """PNG, without loss, instead of video. Small images lose much as video."""
    codec: Literal["auto", "av1", "h264"] = "auto"
    crf: int = 30
    """Quality of the video; lower is better."""
    robot_type: str = ""
    views: tuple[str, ...] | None = None
    """Cameras of SRC, unless it is our own; None: all."""
    image_hw: tuple[int, int] | None = None
    """Resize the images of SRC, unless it is our own; height and width in pixels."""


@dataclass(frozen=True, kw_only=True)
class Inspect:
    """Episodes, features, tasks, sizes."""

    path: tyro.conf.Positional[Path]


@dataclass(frozen=True, kw_only=True)
class Stats:
    """min, max, mean, std and quantiles of every number."""

    path: tyro.conf.Positional[Path]
    images: bool = True
    """Of the cameras too, from 100 frames."""


def run(args: list[str]) -> None:
    """`wamrl data ARGS`."""
    verbs = {"convert": (Convert, convert), "inspect": (Inspect, inspect), "stats": (Stats, stats)}
    if args[:1] in (["-h"], ["--help"]):
        for name, (options, _) in verbs.items():
            print(f"wamrl data {name:<8} {(options.__doc__ or '').partition(chr(10))[0]}")
        print("\nwamrl data VERB --help shows the options of each.")
        return
    if not args or args[0] not in verbs:
        raise ValueError(
            f"which one? wamrl data {' | '.join(verbs)}; --help shows the options of each"
        )
    options, action = verbs[args[0]]
    action(
        tyro.cli(
            options,
            args=args[1:],
            prog=f"wamrl data {args[0]}",
            config=(tyro.conf.FlagCreatePairsOff,),
        )
    )


def place(path: Path) -> Path:
    """`path`, or the demonstrations in it if it is a run folder."""
    return path / "demos" if kind(path) is None and kind(path / "demos") else path


def convert(o: Convert) -> None:
    """From one format to the other; ValueError of one sentence if that is not possible."""
    src = place(o.src)
    target = o.format if o.format != "auto" else "wamrl" if kind(src) == "lerobot" else "lerobot"
    if kind(src) == "wamrl" and (o.views or o.image_hw):
        raise ValueError(
            f"{src} is our own: its views and image size stay as they are, leave --views and "
            "--image-hw out"
        )
    recording = open_dataset(src, views=o.views, image_hw=o.image_hw)
    if target == "wamrl":
        spec = (
            store.load_spec(src) if kind(src) == "wamrl" else spec_of(recording, src.resolve().name)
        )
        store.save_recording(recording, spec, o.dst)
    else:
        lerobot.write(
            o.dst,
            recording.episodes(),
            views=recording.views,
            fps=_fps(o, recording),
            video=not o.image,
            codec=o.codec,
            crf=o.crf,
            robot_type=o.robot_type
            or (recording.info.robot_type if _is_lerobot(recording) else ""),
        )
    steps = sum(fact.length for fact in recording.facts)
    console.print(
        f"wrote {o.dst}: {len(recording)} episodes of {steps} control steps", markup=False
    )
    _print_notes(recording)


def spec_of(recording: Recording, name: str) -> dict:
    """What our own store wants to know of the environment, as far as the recording tells."""
    return {
        "name": name,
        "instruction": recording.facts[0].text,
        "views": list(recording.views),
        "image_hw": list(recording.image_hw),
        "action_dim": recording.actions.shape[1],
        "proprio_dim": recording.proprio.shape[1],
        "horizon": max(fact.length for fact in recording.facts),
        "stages": max(1, *(fact.stages for fact in recording.facts)),
    }


def inspect(o: Inspect) -> None:
    found = summary(o.path)
    table = Table(title=_text(f"{o.path}: {found['format']}"), show_header=False)
    for key, value in found.items():
        if key not in ("format", "features"):
            table.add_row(key, _text(value))
    console.print(table)
    features = Table("feature", "dtype", "shape")
    for key, feature in found["features"].items():
        features.add_row(
            _text(key), _text(feature["dtype"]), " x ".join(map(str, feature["shape"]))
        )
    console.print(features)


def summary(path: Path) -> dict:
    """`wamrl.data.lerobot.inspect`, or as much of it as another format tells."""
    path = place(path)
    if kind(path) == "lerobot":
        return lerobot.inspect(path)
    recording = open_dataset(path)
    lengths = [fact.length for fact in recording.facts]
    hw = list(recording.image_hw)
    features = {
        "proprio": {"dtype": "float32", "shape": [recording.proprio.shape[1]]},
        "actions": {"dtype": "float32", "shape": [recording.actions.shape[1]]},
        "executed": {"dtype": "float32", "shape": [recording.executed.shape[1]]},
    }
    return {
        "format": "HDF5" if kind(path) == "hdf5" else "wamrl's own",
        "episodes": len(recording),
        "frames": len(recording.proprio),
        "features": features
        | {view: {"dtype": "uint8", "shape": [*hw, 3]} for view in recording.views},
        "views": list(recording.views),
        "tasks": dict(Counter(fact.text for fact in recording.facts)),
        "successes": sum(fact.success for fact in recording.facts),
        "lengths": {"min": min(lengths), "mean": sum(lengths) / len(lengths), "max": max(lengths)},
        "bytes": {path.name: size_of(path)},
    }


def stats(o: Stats) -> None:
    recording = open_dataset(place(o.path))
    found = stats_of(recording, images=o.images)
    for key, entry in found.items():
        names = [name for name in entry if name != "count"]
        table = Table(
            title=_text(f"{key} ({int(entry['count'][0])})"),
            box=SIMPLE_HEAD,
            title_justify="left",
            padding=0,
        )
        for name in ("", *names):
            table.add_column(name, justify="right", no_wrap=True)
        for number, values in enumerate(
            zip(*(np.ravel(entry[name]) for name in names), strict=True)
        ):
            label = "RGB"[number] if entry["mean"].ndim == 3 else str(number)
            table.add_row(label, *(f"{value:.3g}" for value in values))
        console.print(table)
    _print_notes(recording)


def _fps(o: Convert, recording: Recording) -> int:
    fps = o.fps or (recording.fps if _is_lerobot(recording) else None)
    if fps is None:
        raise ValueError(
            f"{o.src} does not know its rate: give --fps, the control steps per second"
        )
    if fps != int(fps):
        raise ValueError(f"{o.src} has {fps} control steps per second: give --fps, a whole number")
    return int(fps)


def _is_lerobot(recording: Recording) -> bool:
    return isinstance(recording, LeRobotRecording)


def _print_notes(recording: Recording) -> None:
    for note in recording.notes if _is_lerobot(recording) else []:
        console.print(f"note: {note}", markup=False)


def _text(value: object) -> str:
    if isinstance(value, dict):
        return "\n".join(f"{_text(key)}: {_text(item)}" for key, item in value.items())
    if isinstance(value, list):
        return "\n".join(map(_text, value))
    if isinstance(value, str):  # of a stranger: neither markup nor control characters
        return escape("".join(c if c.isprintable() else "?" for c in value))
    return f"{value:.1f}" if isinstance(value, float) else f"{value:,}"
