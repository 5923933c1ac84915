"""HDF5 files of strangers: nothing outside of the file is opened, nothing is unpickled, and sizes
are checked before anything is read.

h5py is imported inside functions only: it comes with `pip install -e '.[data]'`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from math import ceil, prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wamrl.data.lfs import advice

if TYPE_CHECKING:
    import h5py

MAX_DEMOS = 100_000  # episodes
MAX_ROWS = 1_000_000  # of an episode
MAX_SIDE = 4096  # pixels
MAX_NUMBERS = 1 << 29  # of all columns that are kept in memory
MAX_CHUNK = 1 << 29  # bytes
MAX_JPEG = 1 << 24  # bytes
MAX_TEXT = 1 << 22  # bytes
_BROKEN = (OSError, RuntimeError, KeyError, TypeError, IndexError, OverflowError, MemoryError)


@contextmanager
def sentences(path: Path) -> Iterator[None]:
    """Whatever HDF5 says about a broken file becomes a ValueError of one sentence."""
    try:
        yield
    except _BROKEN as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{path} is truncated or broken ({reason}): copy or download it again"
        ) from error


def open_file(path: Path) -> h5py.File:
    """The file, for reading. ValueError if h5py is missing, or there is no HDF5 file."""
    try:
        import h5py
    except ImportError as error:
        raise ValueError(
            "HDF5 files need h5py, which is not installed: run pip install -e '.[data]' "
            "in the clone of wamrl"
        ) from error
    if not path.is_file():
        raise ValueError(f"there is no file {path}: name an HDF5 file of robomimic or LIBERO")
    if not h5py.is_hdf5(path):
        what = advice(path, "give one of robomimic or LIBERO")
        raise ValueError(f"{path} is not an HDF5 file: {what}")
    with sentences(path):
        return h5py.File(path, "r")


def names(group: h5py.Group, limit: int = 10_000) -> list[str]:
    """Names of the members of a group; ValueError where there are more than `limit`."""
    if len(group) > limit:
        raise ValueError(
            f"{_place(group)} has {len(group)} members, at most {limit} are read: split the file"
        )
    return list(group)


def member(group: h5py.Group, name: str) -> h5py.Group | h5py.Dataset | None:
    """What lies in the group itself under `name`, None if there is nothing;
    links to elsewhere are refused.
    """
    import h5py

    if not group.id.links.exists(name.encode()):
        return None
    if group.id.links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:
        raise ValueError(
            f"{_place(group)}/{name} is a link to elsewhere: copy the data into the file"
        )
    return group[name]


def subgroup(group: h5py.Group, name: str) -> h5py.Group:
    """The group `name` in the group itself; ValueError if there is none."""
    import h5py

    found = member(group, name)
    if not isinstance(found, h5py.Group):
        kind = "missing" if found is None else "not a group"
        raise ValueError(f"{_place(group)}/{name} is {kind}: give a file of robomimic or LIBERO")
    return found


def by_number(found: Iterable[str]) -> list[str]:
    """In the order of the numbers that they end in, before an ending such as .hdf5."""
    ends = {name: re.search(r"(\d{1,18})(\.[a-z]\w*)?$", name) for name in found}
    return sorted(ends, key=lambda name: (int(ends[name][1]) if ends[name] else -1, name))


def datasets(group: h5py.Group, depth: int = 3, prefix: str = "") -> dict[str, h5py.Dataset]:
    """By their paths in the group; links to elsewhere are left out."""
    import h5py

    found = {}
    for key in names(group):
        try:
            part = member(group, key)
        except ValueError:  # what nobody asks for is in nobody's way
            continue
        if isinstance(part, h5py.Dataset):
            found[prefix + key] = part
        elif depth > 1:
            found |= datasets(part, depth - 1, f"{prefix}{key}/")
    return found


def column(
    group: h5py.Group, name: str, rows: int | None = None, widest: int = MAX_SIDE
) -> h5py.Dataset:
    """A dataset whose declared size is sane and really there; `rows`: how many it must have;
    widest: of what comes after the rows.
    """
    import h5py

    found = member(group, name)
    where = f"{_place(group)}/{name}"
    if not isinstance(found, h5py.Dataset):
        known = ", ".join(names(group)[:20]) or "nothing"
        raise ValueError(
            f"{where} is missing or no dataset: there is {known}; choose by --views, --state-keys, "
            "--action-key, --success-key"
        )
    if found.is_virtual or found.external:
        raise ValueError(f"{where} lies in another file: copy the data into this one")
    if (
        not 1 <= found.ndim <= 4
        or not 1 <= found.shape[0] <= MAX_ROWS
        or max(found.shape[1:], default=1) > widest
    ):
        raise ValueError(
            f"{where} declares the impossible shape {found.shape}: write the file again"
        )
    if rows is not None and found.shape[0] != rows:
        raise ValueError(
            f"{where} has {found.shape[0]} rows, but the episode has {rows} actions: write the "
            "file again"
        )
    if found.chunks is None:
        whole = found.id.get_storage_size() >= found.nbytes
    else:
        whole = found.id.get_num_chunks() == prod(
            ceil(n / c) for n, c in zip(found.shape, found.chunks, strict=True)
        )
        if prod(found.chunks) * found.dtype.itemsize > MAX_CHUNK:
            raise ValueError(
                f"{where} is stored in chunks of {found.chunks}, too large to read: write it again"
            )
    if not whole:
        raise ValueError(
            f"{where} declares shape {found.shape}, but not all of it was written: write the file "
            "again"
        )
    return found


def numbers(group: h5py.Group, name: str, rows: int | None = None) -> h5py.Dataset:
    """A `column` of numbers, (n,) or (n, k)."""
    found = column(group, name, rows)
    if found.dtype.kind not in "fiub" or found.ndim > 2 or 0 in found.shape:
        raise ValueError(
            f"{_place(group)}/{name} is {found.dtype} {found.shape}: numbers (n,) or (n, k) are "
            "needed"
        )
    return found


def pictures(group: h5py.Group, name: str, rows: int) -> h5py.Dataset:
    """A `column` of pictures, uint8 (n, H, W, 3)."""
    found = column(group, name, rows)
    if found.dtype != np.uint8 or found.ndim != 4 or found.shape[3] != 3 or 0 in found.shape:
        raise ValueError(
            f"{_place(group)}/{name} is {found.dtype} {found.shape}: pictures uint8 (n, H, W, 3) "
            "are needed"
        )
    return found


def jpegs_or_pictures(group: h5py.Group, name: str, rows: int | None = None) -> h5py.Dataset:
    """A `column` of pictures, uint8 (n, H, W, 3), or of JPEGs, uint8 (n, L) or bytes (n,)."""
    found = column(group, name, rows, MAX_JPEG)
    pictures = found.dtype == np.uint8 and found.ndim == 4 and found.shape[3] == 3
    jpegs = found.dtype == np.uint8 and found.ndim == 2
    texts = found.dtype.kind == "S" and found.ndim == 1
    if not (pictures or jpegs or texts) or 0 in found.shape or found.dtype.itemsize > MAX_JPEG:
        raise ValueError(
            f"{_place(group)}/{name} is {found.dtype} {found.shape}: pictures uint8 (n, H, W, 3), "
            "or JPEGs uint8 (n, L) are needed"
        )
    return found


def read_numbers(dataset: h5py.Dataset) -> np.ndarray:
    """float32 (n, k), finite."""
    with np.errstate(over="ignore"):
        values = dataset[()].astype(np.float32).reshape(dataset.shape[0], -1)
    if not np.isfinite(values).all():
        row = int((~np.isfinite(values)).any(1).argmax())
        raise ValueError(
            f"{dataset.name.lstrip('/')} holds NaN or infinity, first in row {row}: leave that "
            "episode out"
        )
    return values


def read_names(dataset: h5py.Dataset) -> list[str]:
    """A dataset of short strings."""
    import h5py

    if (
        dataset.ndim != 1
        or not h5py.check_string_dtype(dataset.dtype)
        or dataset.nbytes > MAX_NUMBERS
    ):
        raise ValueError(
            f"{dataset.name.lstrip('/')} is {dataset.dtype} {dataset.shape}: names of episodes are "
            "needed"
        )
    return [n.decode("utf-8", "replace") for n in dataset[()].tolist()]


def facts(group: h5py.Group, name: str) -> dict:
    """The JSON object in an attribute; {} if there is none."""
    if not (text := attribute(group, name, "")):
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{_place(group)}: its {name} is not readable JSON: write the file again"
        ) from error
    if not isinstance(found, dict):
        raise ValueError(f"{_place(group)}: its {name} is not a JSON object: write the file again")
    return found


def attribute(group: h5py.Group, name: str, default: str | int) -> str | int:
    """A text or a whole number, as the default is; the default if there is none."""
    if name not in group.attrs:
        return default
    value: Any = group.attrs[name] if group.attrs.get_id(name).shape == () else None
    value = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    value = int(value) if isinstance(value, np.integer) else value
    if type(value) is not type(default) or (isinstance(value, str) and len(value) > MAX_TEXT):
        kind = "number" if isinstance(default, int) else f"text of at most {MAX_TEXT} letters"
        raise ValueError(f"{_place(group)}: its {name} is not a {kind}: write the file again")
    return value


def _place(group: h5py.Group) -> str:
    return f"{Path(group.file.filename).name}:{group.name.rstrip('/')}"
