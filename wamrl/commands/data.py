"""`wamrl data convert | inspect | stats`:
recordings from one format to another, and what is in them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from annotated_types import Ge, Le
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from wamrl.data import episodes as store
from wamrl.data import lerobot
from wamrl.data.hdf5.summary import contents
from wamrl.data.keys import DataKeys
from wamrl.data.lerobot.files import Films
from wamrl.data.lerobot.schema import MAX_FPS, V30
from wamrl.data.lerobot.stats import stats as stats_of
from wamrl.data.lerobot.summary import count_successes, size_of, spread
from wamrl.data.recording import Recording
from wamrl.data.sources import kind, open_dataset
from wamrl.hub.repo import local
from wamrl.runtime.files import copy_folder
from wamrl.runtime.log import console
from wamrl.runtime.ranges import Pixels, check_ranges
from wamrl.runtime.shown import Word

_Keys = Annotated[DataKeys, tyro.conf.arg(name="")]  # its fields are options of their own


@dataclass(frozen=True, kw_only=True)
class Convert:
    """Write a recording in another format. DST must not exist yet."""

    src: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="SRC")]]
    """Our own folder, a run with demos, a LeRobotDataset (v3.0, v2.1) or an HDF5 file."""
    dst: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="DST")]]
    """The folder to make."""
    format: Literal["auto", "lerobot", "wamrl"] = "auto"
    """auto: wamrl from LeRobot, else LeRobot v3.0."""
    fps: Annotated[
        Annotated[int, Ge(1), Le(MAX_FPS)] | None,
        tyro.conf.arg(metavar="INT", help_behavior_hint=""),
    ] = None
    """Control steps per second; needed unless SRC knows."""
    image: bool = False
    """PNG, without loss, instead of video. Small images lose much as video."""
    codec: Literal["auto", "av1", "h264"] = "auto"
    """Of the video; auto: av1 where it can be encoded here."""
    crf: Annotated[int, Ge(0), Le(63)] = 30
    """Quality of the video; lower is better."""
    robot_type: Word = ""
    """What LeRobot's info.json calls the robot."""
    keys: _Keys = DataKeys()
    image_hw: Annotated[
        tuple[Pixels, Pixels] | None,
        tyro.conf.arg(metavar="INT INT", help_behavior_hint=""),
    ] = None
    """Resize the images of SRC, unless it is our own; height and width in pixels."""


@dataclass(frozen=True, kw_only=True)
class Inspect:
    """Episodes, features, tasks, sizes."""

    path: tyro.conf.Positional[Path]
    """A dataset, a run with demos, or hf://owner/name."""
    keys: _Keys = DataKeys()


@dataclass(frozen=True, kw_only=True)
class Stats:
    """min, max, mean, std and quantiles of every number."""

    path: tyro.conf.Positional[Path]
    """A dataset, a run with demos, or hf://owner/name."""
    keys: _Keys = DataKeys()
    images: bool = True
    """Of the cameras too, from 100 frames."""


def understood(args: list[str]) -> Callable[[], None]:
    """What `wamrl data ARGS` asks for, ready to be called; ValueError of one sentence if nothing
    does.
    """
    verbs = {"convert": (Convert, convert), "inspect": (Inspect, inspect), "stats": (Stats, stats)}
    if args[:1] in (["-h"], ["--help"]):
        lines = [
            f"wamrl data {name:<8} {(options.__doc__ or '').partition(chr(10))[0]}"
            for name, (options, _) in verbs.items()
        ]
        return partial(print, "\n".join(lines), "\nwamrl data VERB --help shows the options.")
    if not args or args[0] not in verbs:
        raise ValueError(
            f"which one? wamrl data {' | '.join(verbs)}; --help shows the options of each"
        )
    options, action = verbs[args[0]]
    found = tyro.cli(
        options,
        args=args[1:],
        prog=f"wamrl data {args[0]}",
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    check_ranges(found)
    return partial(action, found)


def place(path: Path) -> Path:
    """`path`, or the demonstrations in it if it is a run folder; `hf://owner/name` is fetched."""
    path = local(path, "dataset")
    return path / "demos" if kind(path) is None and kind(path / "demos") else path


def convert(o: Convert) -> None:
    """From one format to the other; ValueError of one sentence if that is not possible."""
    src = place(o.src)
    target = o.format if o.format != "auto" else "wamrl" if kind(src) == "lerobot" else "lerobot"
    if kind(src) == "wamrl" and o.image_hw:
        raise ValueError(f"{src} is our own: its image size stays as it is, leave --image-hw out")
    if o.dst.resolve().is_relative_to(src.resolve()):
        raise ValueError(f"{o.dst} lies in {src}: name a folder outside of what is converted")
    recording = open_dataset(src, image_hw=o.image_hw, keys=o.keys)
    done = "wrote"
    if _needs_no_change(o, recording, target, kind(src)):
        copy_folder(src, o.dst)
        done = "copied, since nothing changes:"
    elif target == "wamrl":
        spec = (
            store.load_spec(src) if kind(src) == "wamrl" else spec_of(recording, src.resolve().name)
        )
        store.save_recording(recording, spec, o.dst)
    else:
        films = _films(o, recording)
        done = "wrote (videos copied as they are)" if films else done
        lerobot.write(
            o.dst,
            recording.episodes(),
            views=recording.views,
            fps=_fps(o, recording),
            films=films,
            video=not o.image,
            codec=o.codec,
            crf=o.crf,
            robot_type=o.robot_type or recording.origin.robot_type,
            state_names=recording.origin.state_names,
            action_names=recording.origin.action_names,
        )
    steps = sum(fact.length for fact in recording.facts)
    console.print(
        f"{done} {o.dst}: {len(recording)} episodes of {steps} control steps", markup=False
    )
    _print_notes(recording, kept=not done.startswith("wrote"))


def _needs_no_change(
    o: Convert, recording: Recording, target: str, found: Literal["wamrl", "lerobot", "hdf5"]
) -> bool:
    """Would the copy say the same? Then pictures are not encoded a second time."""
    if target != found:
        return False
    if found == "wamrl":
        return True
    wanted = {"image"} if o.image else {"video"}
    origin = recording.origin
    return (
        o.keys == DataKeys()
        and o.image_hw is None
        and (o.codec, o.crf) == (Convert.codec, Convert.crf)
        and o.fps in (None, origin.fps)
        and o.robot_type in ("", origin.robot_type)
        and recording.info.version == V30
        and {camera.dtype for camera in recording.cameras} == wanted
    )


def _films(o: Convert, recording: Recording) -> list[Films]:
    """The videos that need not be encoded again."""
    same = not o.image and (o.codec, o.crf) == (Convert.codec, Convert.crf)
    if not isinstance(recording, lerobot.LeRobotRecording) or not same:
        return []
    return recording.films() if o.fps in (None, recording.origin.fps) else []


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
    found = summary(o.path, o.keys)
    table = Table(title=_text(f"{o.path}: {found['format']}"), show_header=False)
    for key, value in found.items():
        if key not in ("format", "features", "notes"):
            table.add_row(key, _text(value))
    console.print(table)
    features = Table("feature", "dtype", "shape")
    for key, feature in found["features"].items():
        features.add_row(
            _text(key), _text(feature["dtype"]), " x ".join(map(str, feature["shape"]))
        )
    console.print(features)
    for note in found["notes"]:
        console.print(f"note: {_plain(note)}", markup=False)


def summary(path: Path, keys: DataKeys) -> dict:
    """`wamrl.data.lerobot.inspect`, or as much of it as another format tells."""
    path = place(path)
    match kind(path):
        case "lerobot":
            return lerobot.inspect(path, **keys.options())
        case "hdf5":
            return _hdf5_summary(path, keys)
    recording = open_dataset(path, keys=keys)
    hw = list(recording.image_hw)
    features = {
        "proprio": {"dtype": "float32", "shape": [recording.proprio.shape[1]]},
        "actions": {"dtype": "float32", "shape": [recording.actions.shape[1]]},
        "executed": {"dtype": "float32", "shape": [recording.executed.shape[1]]},
    }
    features |= {view: {"dtype": "uint8", "shape": [*hw, 3]} for view in recording.views}
    return {"format": "wamrl's own", "features": features, **_described(recording, path)}


def _hdf5_summary(path: Path, keys: DataKeys) -> dict:
    """What lies there, and what it is as a recording, if its keys are those that one expects."""
    found = {"format": "HDF5", "notes": []} | contents(path)
    try:
        return found | _described(open_dataset(path, keys=keys), path)
    except ValueError as error:
        found["notes"].append(f"cannot be trained on as it is: {error}")
        return found | {"bytes": {path.name: size_of(path)}}


def _described(recording: Recording, path: Path) -> dict:
    return {
        "episodes": len(recording),
        "frames": len(recording.proprio),
        "views": list(recording.views),
        "tasks": dict(Counter(fact.text for fact in recording.facts)),
        **count_successes(recording),
        "lengths": spread([fact.length for fact in recording.facts]),
        "bytes": {path.name: size_of(path)},
        "notes": list(recording.notes),
    }


def stats(o: Stats) -> None:
    recording = open_dataset(place(o.path), keys=o.keys)
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
    fps = o.fps or recording.origin.fps
    if fps is None:
        raise ValueError(
            f"{o.src} does not know its rate: give --fps, the control steps per second"
        )
    if fps != int(fps):
        raise ValueError(f"{o.src} has {fps} control steps per second: give --fps, a whole number")
    return int(fps)


def _print_notes(recording: Recording, kept: bool = True) -> None:
    """kept: everything came along, nothing was lost on the way."""
    notes = list(recording.notes)
    if recording.origin.others and not kept:
        notes.append(f"these are not carried along: {', '.join(recording.origin.others)}")
    for note in notes:
        console.print(f"note: {_plain(note)}", markup=False)


def _plain(text: str) -> str:
    """Of a stranger: no control characters."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _text(value: object) -> str:
    if isinstance(value, dict):
        return "\n".join(f"{_text(key)}: {_text(item)}" for key, item in value.items())
    if isinstance(value, list):
        return "\n".join(map(_text, value))
    if isinstance(value, str):  # nor markup
        return escape(_plain(value))
    return f"{value:.1f}" if isinstance(value, float) else f"{value:,}"
