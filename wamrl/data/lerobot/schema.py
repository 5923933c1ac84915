"""meta/info.json, checked before anything else is opened: a dataset may come from anybody."""

from __future__ import annotations

import json
import math
import re
import string
from dataclasses import dataclass, replace
from pathlib import Path

from wamrl.data.lfs import advice

V21 = "v2.1"
V30 = "v3.0"
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
BROKEN = "copy or download it again, or name another dataset"  # bytes that cannot be read
WRONG = "correct it, or name another dataset"  # what can be read, and makes no sense

MAX_FPS = 1000
MAX_SIDE = 8192  # pixels
MAX_DIM = 65536
MAX_EPISODES = 10_000_000
MAX_FRAMES = 1_000_000_000
MAX_JSON_BYTES = 1 << 24
MAX_FEATURES = 1000
_PLACEHOLDERS = {
    V30: {"chunk_index", "file_index", "video_key"},
    V21: {"episode_chunk", "episode_index", "video_key"},
}
_CAMERA_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One column, or one camera."""

    key: str
    dtype: str  # "float32", ..., "image" or "video"
    shape: tuple[int, ...]  # as in info.json
    names: object = None
    info: dict  # of a video: codec, pixel format, ...
    fault: str = ""  # why it cannot be used, if it cannot

    @property
    def is_camera(self) -> bool:
        """Does it hold colour pictures?"""
        return self.dtype in ("image", "video") and not self.is_depth and not self.fault

    @property
    def dim(self) -> int:
        """Numbers per row; a scalar, of shape () or (1,), is one."""
        return math.prod(self.shape)

    @property
    def labels(self) -> tuple[str, ...] | None:
        """A name for every number of a row, as a list or below one key; None if there are none."""
        names = self.names
        if isinstance(names, dict) and len(names) == 1:
            (names,) = names.values()
        named = isinstance(names, list) and len(names) == self.dim
        return tuple(map(str, names)) if named else None

    @property
    def is_depth(self) -> bool:
        """Does it hold a depth map, which is no picture to imagine?"""
        return bool(self.info.get("is_depth_map") or self.info.get("video.is_depth_map"))

    @property
    def image_hw(self) -> tuple[int, int]:
        """(H, W) of a camera, whose shape is (H, W, 3) or (3, H, W)."""
        first = self.names[0] if isinstance(self.names, list) and self.names else None
        channels_first = first in ("channel", "channels") or (first is None and self.shape[-1] != 3)
        return self.shape[1:] if channels_first else self.shape[:2]


@dataclass(frozen=True, kw_only=True)
class Info:
    """info.json. Every number is within its limits, every path template is harmless."""

    root: Path
    version: str  # V21 or V30
    fps: float
    episodes: int
    frames: int
    chunks_size: int
    data_path: str
    video_path: str | None
    robot_type: str
    features: dict[str, Feature]

    def file(self, template: str, **values: int | str) -> Path:
        """The file that a path template names; ValueError if it lies outside of the folder."""
        return inside(self.root, fill(template, values))

    def feature(self, key: str) -> Feature:
        """The column or camera of that name; ValueError names those there are."""
        if key not in self.features:
            raise ValueError(
                f"{self.root} has no feature {key!r}: choose from {', '.join(self.features)}"
            )
        feature = self.features[key]
        if feature.fault:
            raise ValueError(f"{self.root}: {key} cannot be used: {feature.fault}")
        return feature

    @property
    def cameras(self) -> list[Feature]:
        """Its cameras, in the order of info.json; depth maps are none."""
        return [f for f in self.features.values() if f.is_camera]


def fill(template: str, values: dict[str, int | str]) -> str:
    """`template.format(**values)`, without what else `format` can do."""
    out = ""
    for text, name, spec, _ in string.Formatter().parse(template):
        out += text
        if name is not None:
            value = values[name]
            out += (
                f"{value:0{int(spec[:-1] or 0)}d}"
                if isinstance(value, int) and spec
                else str(value)
            )
    return out


def inside(root: Path, relative: str) -> Path:
    """root/relative; ValueError if that is outside of root, also by way of a symbolic link, or a
    named pipe or the like, which would keep us waiting.

    A snapshot in the Hugging Face Hub's cache, CACHE/datasets--OWNER--NAME/snapshots/COMMIT, is
    made of links to the `blobs` of its repository or of the cache: these are inside.
    """
    path = root / relative
    try:
        whole = root.resolve()
        rooms = [whole]
        if whole.parent.name == "snapshots" and whole.parents[1].name.startswith("datasets--"):
            rooms += [whole.parents[1] / "blobs", whole.parents[2] / "blobs"]
        within = any(path.resolve().is_relative_to(room) for room in rooms)
        special = path.exists() and not path.is_file() and not path.is_dir()
    except (OSError, RuntimeError, ValueError):  # a loop of links, a NUL
        within = special = False
    if special:
        raise ValueError(f"{path} is no file: {BROKEN}")
    if within:
        return path
    raise ValueError(
        f"{root}: {relative!r} leads out of the folder: copy it with `cp -rL`, or do not trust it"
    )


def read_json(path: Path, limit: int = MAX_JSON_BYTES) -> object:
    """A JSON file of at most `limit` bytes."""
    try:
        if (size := path.stat().st_size) > limit:
            raise ValueError(f"it has {size} bytes, at most {limit} are read")
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: is this a LeRobot dataset? {BROKEN}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not readable ({error}): {advice(path, BROKEN)}") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"it holds {name}")


def read_info(root: Path) -> Info:
    """`root`/meta/info.json;
    ValueError of one sentence for anything that is missing, foreign or absurd.
    """
    where = f"{root}/meta/info.json"
    raw = read_json(inside(root, "meta/info.json"))
    if not isinstance(raw, dict):
        raise ValueError(f"{where} is not a JSON object: {WRONG}")
    version = raw.get("codebase_version")
    if version not in (V21, V30):
        raise ValueError(
            f"{where} has codebase_version {version!r}, this wamrl reads {V21} and {V30}: convert "
            "it with lerobot"
        )
    _check_layout(root, version)
    fps = raw.get("fps")
    if type(fps) not in (int, float) or not 0 < fps <= MAX_FPS:
        raise ValueError(
            f"{where}: fps is {fps!r}, expected a number above 0 and at most {MAX_FPS}: correct it"
        )
    templates = {
        name: _template(raw.get(name), name, version, where) for name in ("data_path", "video_path")
    }
    if templates["data_path"] is None:
        raise ValueError(f"{where}: data_path is missing: {WRONG}")
    return Info(
        root=root,
        version=version,
        fps=float(fps),
        features=_features(raw.get("features"), where),
        episodes=_count(raw, "total_episodes", MAX_EPISODES, where),
        frames=_count(raw, "total_frames", MAX_FRAMES, where),
        chunks_size=_count(raw, "chunks_size", MAX_EPISODES, where, 1000),
        robot_type=str(raw.get("robot_type") or ""),
        **templates,
    )


def _check_layout(root: Path, version: str) -> None:
    """The files must be of the version that info.json says."""
    old = root / "meta/episodes.jsonl"
    new = root / "meta/episodes"
    mine, other = (old, new) if version == V21 else (new, old)
    if not mine.exists():
        what = "its files are of the other version" if other.exists() else "it is missing"
        raise ValueError(
            f"{root} says {version}, which needs {mine.relative_to(root)}, but {what}: {BROKEN}"
        )


def _count(raw: dict, key: str, most: int, where: str, default: int | None = None) -> int:
    value = raw.get(key, default)
    if type(value) is not int or not 1 <= value <= most:
        raise ValueError(
            f"{where}: {key} is {value!r}, expected an integer from 1 to {most}: {WRONG}"
        )
    return value


def _template(template: object, name: str, version: str, where: str) -> str | None:
    """Only the known placeholders, only whole numbers, only downwards."""
    if template is None:
        return None
    try:
        fields = [(f, s, c) for _, f, s, c in string.Formatter().parse(template) if f is not None]
    except (TypeError, ValueError):
        fields = [("not a template", "", None)]
    known = all(
        f in _PLACEHOLDERS[version] and not c and re.fullmatch(r"(0?\dd)?", s) for f, s, c in fields
    )
    if (
        not known
        or template.startswith("/")
        or ".." in template
        or "\\" in template
        or "\0" in template
    ):
        allowed = ", ".join(sorted(_PLACEHOLDERS[version]))
        raise ValueError(
            f"{where}: {name} {template!r} must be a path below the folder, made of {allowed}: "
            "correct it"
        )
    return template


def _features(raw: object, where: str) -> dict[str, Feature]:
    if not isinstance(raw, dict) or not 0 < len(raw) <= MAX_FEATURES:
        raise ValueError(
            f"{where}: features must be an object of 1 to {MAX_FEATURES} entries: {WRONG}"
        )
    return {key: _feature(key, ft) for key, ft in raw.items()}


def _feature(key: str, raw: object) -> Feature:
    """As info.json has it; what is wrong with it matters to those only who want to use it."""
    raw = raw if isinstance(raw, dict) else {}
    shape = raw.get("shape")
    whole = isinstance(shape, list) and all(type(n) is int and n >= 1 for n in shape)
    info = raw.get("info") or raw.get("video_info")
    feature = Feature(
        key=key,
        dtype=str(raw.get("dtype")),
        shape=tuple(shape) if whole else (),
        names=raw.get("names"),
        info=info if isinstance(info, dict) else {},
    )
    fault = "it has no proper dtype and shape" if not whole else _fault(feature)
    return replace(feature, fault=fault)


def _fault(feature: Feature) -> str:
    """Why a feature cannot be used; empty if it can."""
    shape = feature.shape
    if feature.dtype not in ("image", "video"):
        return f"its shape is {shape}, at most {MAX_DIM} numbers" if feature.dim > MAX_DIM else ""
    if feature.is_depth:
        return "it holds depth, not colours"
    if len(shape) != 3 or max(shape) > MAX_SIDE or 3 not in (shape[0], shape[-1]):
        return f"its shape is {shape}, not RGB of at most {MAX_SIDE} pixels"
    if not _CAMERA_KEY.fullmatch(feature.key):
        return "it is no name for a folder"
    return ""
