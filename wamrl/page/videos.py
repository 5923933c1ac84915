"""The videos of a run folder, as many as a page should carry; failures first."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass

from wamrl.page.blocks import Text, Video, Videos
from wamrl.page.folder import RunFolder

_NAME = re.compile(r"start0*(\d+)(?:-(success|failure))?\.mp4")
_FOLDERS = {"after": 0, "": 1, "before": 2, "compare": 3}  # those that tell most first

_GROUPS = {
    "after": "the model after the run",
    "before": "the model before the run",
    "compare": "before and after the run, from the same state",
}


@dataclass(frozen=True, kw_only=True)
class _Facts:
    """Of the film itself."""

    fps: float
    frames: int
    width: int
    height: int
    instruction: str


def gallery(folder: RunFolder, megabytes: float) -> list[Text | Videos]:
    """Videos as blocks, failures first, and a sentence on those that are left out.

    megabytes: of MP4 files that the page may carry in all.
    """
    names = sorted(folder.files("videos/**/*.mp4"), key=_order)
    if not names:
        return [Text(text="There are no videos in this run folder.", tone="note")]
    left = megabytes * 1e6
    shown = []
    large = []
    broken = []
    for name in names:
        size = folder.file(name).stat().st_size
        if size > left:
            large.append(name)
            continue
        video = _video(folder, name)
        if video is None:
            broken.append(name)
            continue
        left -= size
        shown.append(video)
    blocks: list[Text | Videos] = [Videos(items=tuple(shown))] if shown else []
    if large:
        blocks.append(
            Text(
                text=f"{len(large)} of {len(names)} videos are not in this page, which carries up "
                f"to {megabytes:g} MB of them (--video-mb): {_listed(large)}.",
                tone="note",
            )
        )
    if broken:
        blocks.append(
            Text(text=f"Not readable as video and left out: {_listed(broken)}.", tone="note")
        )
    return blocks


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")


def _order(name: str) -> tuple[bool, int, str]:
    """Failures, then by what the folder is called."""
    return _outcome(name) != "failure", _FOLDERS.get(_group(name), 9), name


def _group(name: str) -> str:
    """videos/after/start0001.mp4 -> "after", videos/start0001.mp4 -> ""."""
    return name.removeprefix("videos/").rpartition("/")[0]


def _outcome(name: str) -> str:
    found = _NAME.fullmatch(name.rpartition("/")[2])
    return (found and found[2]) or ""


def _video(folder: RunFolder, name: str) -> Video | None:
    """None if it is no video of ours."""
    path = folder.file(name)
    facts = _facts(path)
    if facts is None:
        return None
    found = _NAME.fullmatch(path.name)
    title = f"initial state {found[1]}" if found else path.stem
    group = _GROUPS.get(_group(name), _group(name))
    return Video(
        title=title,
        detail=", ".join(part for part in (group, facts.instruction) if part),
        outcome=_outcome(name),
        data=base64.b64encode(path.read_bytes()).decode(),
        fps=facts.fps,
        frames=facts.frames,
        width=facts.width,
        height=facts.height,
    )


def _facts(path) -> _Facts | None:
    import av  # slow to import

    try:
        with av.open(str(path), format="mp4") as container:
            stream = container.streams.video[0]
            return _Facts(
                fps=float(stream.average_rate),
                frames=int(stream.frames),
                width=int(stream.width),
                height=int(stream.height),
                instruction=_instruction(container.metadata.get("comment", "")),
            )
    except (av.error.FFmpegError, IndexError, TypeError, ValueError, ZeroDivisionError):
        return None


def _instruction(comment: str) -> str:
    """What the robot was told, if the film says so."""
    try:
        facts = json.loads(comment)
    except ValueError:
        return ""
    told = facts.get("instruction") if isinstance(facts, dict) else None
    return told if isinstance(told, str) else ""
