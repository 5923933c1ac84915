"""Datasets that are broken, or made to hurt:
one sentence each, and nothing opened that lies elsewhere.
"""

import io
import json
import shutil
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.lerobot_made import edit_json, edit_parquet, episode, pa, pq, write_v21
from wamrl.data.lerobot import inspect, open_lerobot, write
from wamrl.data.lerobot.schema import fill, inside, read_info

CAMERA = "observation.images.top"
MP4 = f"videos/{CAMERA}/chunk-000/file-000.mp4"
DATA, META = "data/chunk-000/file-000.parquet", "meta/episodes/chunk-000/file-000.parquet"


@pytest.fixture(scope="session")
def originals(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("lerobot")
    episodes = [episode(6, n) for n in range(3)]
    for name, video in (("video", True), ("png", False)):
        write(root / name, episodes, views=("top",), fps=10, video=video)
        write_v21(root / f"v21-{name}", episodes, ("top",), movie=video)
    return root


@pytest.fixture
def copy(originals: Path, tmp_path: Path) -> Callable[[str], Path]:
    def make(name: str) -> Path:
        return Path(shutil.copytree(originals / name, tmp_path / name))

    return make


def refused(path: Path, *words: str) -> str:
    """Reading numbers and frames fails with one sentence that has these words."""
    with pytest.raises(ValueError) as caught:
        found = open_lerobot(path)
        for episode_ in found.episodes():
            assert np.isfinite(episode_.proprio).all()
    text = str(caught.value)
    assert "\n" not in text and ": " in text, text
    for word in words:
        assert word in text, text
    return text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"codebase_version": "v1.6"}, ("v1.6", "convert")),
        ({"codebase_version": None}, ("codebase_version",)),
        ({"codebase_version": "v2.1"}, ("files are of the other version",)),
        ({"fps": 0}, ("fps",)),
        ({"fps": 1e9}, ("fps",)),
        ({"fps": "10"}, ("fps",)),
        ({"fps": True}, ("fps",)),
        ({"total_frames": 10**15}, ("total_frames",)),
        ({"total_frames": 19}, ("19 frames", "18 frames")),
        ({"total_episodes": 2}, ("2 episodes",)),
        ({"total_episodes": 4}, ("4 episodes",)),
        ({"total_episodes": -1}, ("total_episodes",)),
        ({"chunks_size": 0}, ("chunks_size",)),
        ({"data_path": "../{chunk_index:03d}/{file_index:03d}"}, ("data_path",)),
        ({"data_path": "/etc/{chunk_index:03d}"}, ("data_path",)),
        ({"data_path": "data/{chunk_index.__class__}"}, ("data_path",)),
        ({"data_path": "data/{0.__class__}"}, ("data_path",)),
        ({"data_path": "data/{chunk_index!r}"}, ("data_path",)),
        ({"data_path": "data/{chunk_index:999999999d}"}, ("data_path",)),
        ({"data_path": "data/{chunk_index:{file_index}d}"}, ("data_path",)),
        ({"data_path": "data/{"}, ("data_path",)),
        ({"data_path": 3}, ("data_path",)),
        ({"data_path": None}, ("data_path",)),
        ({"data_path": "data/\0"}, ("data_path",)),
        ({"video_path": "..\\{video_key}"}, ("video_path",)),
        ({"video_path": None}, ("video_path",)),
        ({"video_path": "data/none-{file_index:03d}.mp4"}, ("missing",)),
        ({"features": {}}, ("features",)),
        ({"features": []}, ("features",)),
        ({"features": {"action": 3}}, ("action",)),
        ({"features": {"action": {"dtype": "float32", "shape": [10**9]}}}, ("action",)),
        ({"features": {"action": {"dtype": "float32", "shape": [-1]}}}, ("action",)),
        ({"features": {"../x": {"dtype": "video", "shape": [9, 9, 3]}}}, ("no name for a folder",)),
        ({"features": {"c": {"dtype": "video", "shape": [10**6, 10**6, 3]}}}, ("camera",)),
        ({"features": {"c": {"dtype": "image", "shape": [9, 9]}}}, ("camera",)),
        ({"features": {"action": {"dtype": "float32", "shape": [2]}}}, ("no camera",)),
    ],
)
def test_info_json(copy: Callable, changes: dict, words: tuple[str, ...]):
    path = copy("video")
    edit_json(path / "meta/info.json", **changes)
    refused(path, *words)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "[]",
        "{",
        "[" * 100_000,
        '{"fps": NaN}',
        "\ud800",
        " " * ((1 << 24) + 1),
        "9" * 10_000,
    ],
)
def test_info_json_that_is_none(copy: Callable, text: str | None):
    path = copy("video")
    (path / "meta/info.json").unlink()
    if text is not None:
        (path / "meta/info.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    refused(path, "info.json")


def feature(path: Path, key: str, **changes: object) -> None:
    features = json.loads((path / "meta/info.json").read_text())["features"]
    features[key] |= changes
    edit_json(path / "meta/info.json", features=features)


@pytest.mark.parametrize(
    ("column", "new", "words"),
    [
        ("action", lambda rows: [[np.nan, 0.0], *rows[1:]], ("NaN", "action")),
        (
            "observation.state",
            lambda rows: [*rows[:-1], [np.inf] * 3],
            ("NaN", "observation.state"),
        ),
        ("action", pa.array([[1.0]] * 18), ("lengths",)),
        ("action", pa.array([["a", "b"]] * 18), ("expected numbers",)),
        ("action", pa.array([[1e300, 0.0]] * 18), ("NaN",)),
        ("action", pa.array([None] + [[1.0, 2.0]] * 17), ("empty cells",)),
        ("action", pa.array([[1.0, None]] * 18), ("expected numbers",)),
        ("action", pa.array([1.0] * 18), ("expected 2",)),
        ("action", pa.array([b"x"] * 18), ("expected numbers",)),
        ("episode_index", pa.array([0] * 18), ("episode_index", "out of order")),
        ("frame_index", lambda rows: rows[::-1], ("frame_index",)),
        ("index", lambda rows: [v + 1 for v in rows], ("index",)),
        ("timestamp", lambda rows: [v * 2 for v in rows], ("timestamp",)),
        ("task_index", pa.array([7] * 18), ("task 7",)),
    ],
)
def test_columns(copy: Callable, column: str, new: object, words: tuple[str, ...]):
    path = copy("png")
    edit_parquet(path / DATA, **{column: new})
    refused(path, *words)


@pytest.mark.parametrize(
    ("column", "new", "words"),
    [
        ("length", [6, 6, 7], ("gap",)),
        ("length", [6, 0, 12], ("length",)),
        ("length", [6, 10**15, 6], ("length",)),
        ("episode_index", [0, 2, 1], ("episode 1 stands where 3",)),
        ("dataset_from_index", [0, 5, 12], ("overlaps",)),
        ("dataset_to_index", [6, 13, 18], ("overlaps",)),
        ("data/file_index", [0, -1, 0], ("file_index",)),
        ("data/file_index", [0, 10**12, 0], ("file_index",)),
        ("data/file_index", [0, 1, 0], ("missing",)),
        (f"videos/{CAMERA}/from_timestamp", [0.0, 0.1, 1.4], ("overlaps",)),
        (f"videos/{CAMERA}/from_timestamp", [0.0, float("nan"), 1.4], ("begins at",)),
        (f"videos/{CAMERA}/from_timestamp", [0.0, 0.7, 1e12], ("no frame",)),
        (f"videos/{CAMERA}/from_timestamp", [0.0, 0.7, 1.7], ("no frame",)),
        ("wamrl/version", [2, 2, 2], ("update wamrl",)),
        ("wamrl/stages", [None, None, None], ("lacks",)),
        ("wamrl/last_state", pa.array([[1.0]] * 3), ("another length",)),
        ("wamrl/last_state", pa.array([[np.nan] * 3] * 3), ("NaN",)),
    ],
)
def test_episode_metadata(copy: Callable, column: str, new: object, words: tuple[str, ...]):
    path = copy("video")
    edit_parquet(path / META, **{column: new})
    refused(path, *words)


@pytest.mark.parametrize("name", ["png", "v21-png"])
def test_missing_features_and_columns(copy: Callable, name: str):
    path = copy(name)
    data = next((path / "data").glob("*/*.parquet"))
    pq.write_table(pq.read_table(data).drop_columns(["action"]), data)
    refused(path, "action")
    feature(path, "action", dtype="string")
    refused(path, "action", "choose another")


@pytest.mark.parametrize("file", [DATA, META, "meta/tasks.parquet", MP4])
def test_files_that_are_missing_short_or_garbled(copy: Callable, file: str):
    path = copy("video")
    whole = (path / file).read_bytes()
    noise = np.random.default_rng(0).bytes(len(whole) // 2)
    garbled = whole[: len(whole) // 4] + noise + whole[len(whole) * 3 // 4 :]
    for content in (None, b"", whole[: len(whole) // 2], *([] if file == MP4 else [garbled])):
        (path / file).unlink()
        if content is not None:
            (path / file).write_bytes(content)
        refused(path)
        (path / file).touch()


@pytest.mark.parametrize("file", [DATA])
def test_a_flipped_bit_of_ours_does_not_pass(copy: Callable, file: str):
    path = copy("png")
    whole = (path / file).read_bytes()
    at = whole.index(b"\x89PNG") + 40  # within the first image
    (path / file).write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
    refused(path, "corrupt")


def test_a_playlist_is_not_a_video(copy: Callable):
    path = copy("video")
    secret = path.parent / "secret.mp4"
    shutil.copy(path / MP4, secret)
    (path / MP4).write_text(f"ffconcat version 1.0\nfile '{secret}'\n")
    refused(path, "corrupt")
    (path / MP4).write_text(f"#EXTM3U\n#EXTINF:1,\nfile://{secret}\n")
    refused(path, "corrupt")


def test_sizes_that_are_not_as_promised(copy: Callable):
    for name in ("video", "png", "v21-video"):
        path = copy(name)
        feature(path, CAMERA, shape=[8, 8, 3])
        refused(path, "info.json says 8 x 8")


def test_links_out_of_the_folder(copy: Callable):
    for name, file in (
        ("video", MP4),
        ("png", DATA),
        ("video", META),
        ("v21-png", "meta/episodes.jsonl"),
    ):
        path = copy(name)
        outside = path.parent / "outside"
        shutil.move(path / file, outside)
        (path / file).symlink_to(outside)
        refused(path, "leads out of the folder")
        shutil.rmtree(path)
    path = copy("video")
    (path / "inner.mp4").write_bytes((path / MP4).read_bytes())
    (path / MP4).unlink()
    (path / MP4).symlink_to(path / "inner.mp4")
    assert len(open_lerobot(path)) == 3  # links that stay inside are fine


def test_a_snapshot_in_the_cache_of_the_hub_is_made_of_links(copy: Callable):
    """To the blobs of its repository, or of the cache; any other link leads out."""
    whole = copy("video")
    cache = whole.parent / "cache"
    snapshot = cache / "datasets--lab--set" / "snapshots" / "c0ffee"
    shutil.move(whole, snapshot)
    for place in ("datasets--lab--set/blobs/1", "blobs/ab/2", "elsewhere"):
        (cache / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.move((snapshot / MP4).resolve(), cache / place)
        (snapshot / MP4).unlink(missing_ok=True)
        (snapshot / MP4).symlink_to(cache / place)
        if place == "elsewhere":
            refused(snapshot, "leads out of the folder")
        else:
            assert len(open_lerobot(snapshot)) == 3
    (cache / "blobs" / "3").symlink_to(cache / "elsewhere")
    (snapshot / MP4).unlink()
    (snapshot / MP4).symlink_to(cache / "blobs" / "3")
    refused(snapshot, "leads out of the folder")


def png_bomb(side: int) -> bytes:
    """A small PNG that says it is side x side."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(side * 3 + 1) * 64)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "cell", [png_bomb(50_000), b"", b"\x89PNG\r\n\x1a\n", b"GIF89a" + bytes(100), None]
)
def test_images_that_are_none(copy: Callable, cell: bytes | None):
    path = copy("png")
    edit_parquet(
        path / DATA, **{CAMERA: lambda rows: [*rows[:-1], {"bytes": cell, "path": "/etc/passwd"}]}
    )
    refused(path, "an image is not readable")


def test_small_files_that_unpack_to_much(copy: Callable, monkeypatch):
    """Dictionaries and runs: few bytes on disk, gigabytes in memory."""
    path = copy("png")
    picture = b"\x89PNG" + bytes(1 << 20)
    table = pq.read_table(path / DATA)
    many = pa.array([{"bytes": picture, "path": ""}] * 18, table.schema.field(CAMERA).type)
    pq.write_table(
        table.set_column(table.schema.get_field_index(CAMERA), CAMERA, many), path / DATA
    )
    monkeypatch.setattr("wamrl.data.lerobot.tables.read_batches.__defaults__", (1 << 16, 4 << 20))
    assert (path / DATA).stat().st_size < 1 << 18
    refused(path, "a row group of more than")
    edit_parquet(path / DATA, action=pa.array([[0.0] * 100_000] * 18))
    refused(path, "1800000 values")
    monkeypatch.undo()
    path = copy("video")
    edit_parquet(path / META, **{"wamrl/last_state": pa.array([[0.0] * 100_000] * 3)})
    refused(path, "300000 values")


def test_v21_lines(copy: Callable):
    for text, words in (
        ('{"episode_index": 0, "length": 7}\n' * 3, "stands where 1"),
        ('{"episode_index": 0, "length": "7"}\n', "length"),
        ("[1]\n", "corrupt"),
        ("{\n", "corrupt"),
        ("", "0 episodes"),
        ('{"episode_index": 0, "length": 7}\n', "1 episodes"),
    ):
        path = copy("v21-png")
        (path / "meta/episodes.jsonl").write_text(text)
        refused(path, words)
        (path / "meta/episodes.jsonl").unlink()
        refused(path, "is missing")
        shutil.rmtree(path)
    path = copy("v21-png")
    (path / "meta/tasks.jsonl").write_text('{"task_index": 0}\n')
    refused(path, "task")


def test_a_single_row_is_no_episode(copy: Callable, tmp_path: Path):
    write(tmp_path / "one", [episode(1), episode(4)], views=("top",), fps=10)
    assert len(open_lerobot(tmp_path / "one")) == 2  # ours has the frame behind it
    table = pq.read_table(tmp_path / "one" / META)
    pq.write_table(
        table.drop_columns([c for c in table.column_names if c.startswith("wamrl/")]),
        tmp_path / "one" / META,
    )
    refused(tmp_path / "one", "episode 0 has one row")


def test_no_dataset_at_all(tmp_path: Path):
    for path in (tmp_path, tmp_path / "none"):
        refused(path, "missing")
        with pytest.raises(ValueError):
            inspect(path)
    (tmp_path / "meta").write_text("")
    refused(tmp_path, "info.json")


def test_without_pyarrow(originals: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for action in (
        lambda: open_lerobot(originals / "png"),
        lambda: write(tmp_path / "d", [], views=("a",), fps=1),
    ):
        with pytest.raises(ValueError, match=r"\.\[data\]"):
            action()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_damage_is_refused_or_harmless(originals: Path, tmp_path_factory, data):
    """Some bytes of info.json or of the small tables overwritten: a ValueError, or a recording."""
    path = tmp_path_factory.mktemp("damaged") / "d"
    shutil.copytree(originals / "v21-png", path)
    names = ("meta/info.json", "meta/episodes.jsonl", "meta/tasks.jsonl")
    file = path / data.draw(st.sampled_from(names))
    content = bytearray(file.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    new = data.draw(st.binary(min_size=1, max_size=8))
    content[at : at + len(new)] = new
    file.write_bytes(content)
    try:
        assert open_lerobot(path).frames(np.arange(2)).dtype == np.uint8
    except ValueError as error:
        assert str(error)
    shutil.rmtree(path)


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_templates_fill_as_format_does(chunk: int, file: int):
    template = "a/{chunk_index:03d}/b-{file_index}{file_index:06d}.x"
    values = {"chunk_index": chunk, "file_index": file}
    assert fill(template, values) == template.format(**values)


@given(st.text(max_size=30))
def test_nothing_leads_out(tmp_path_factory, relative: str):
    root = tmp_path_factory.getbasetemp()
    try:
        assert inside(root, relative).resolve().is_relative_to(root.resolve())
    except ValueError:
        pass


def test_info_reads_what_it_should(originals: Path):
    info = read_info(originals / "video")
    assert (info.version, info.fps, info.episodes, info.frames) == ("v3.0", 10.0, 3, 18)
    assert [c.image_hw for c in info.cameras] == [(16, 24)]
    json.dump(inspect(originals / "v21-video"), io.StringIO())
