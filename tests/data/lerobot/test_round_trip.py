"""Episodes -> LeRobotDataset v3.0 -> Recording:
what comes back, and that the files are as lerobot wants them.
"""

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.lerobot_made import edit_parquet, episode, pq, psnr, write_v21
from wamrl.data.lerobot import inspect, open_lerobot, write
from wamrl.data.lerobot import stats as lerobot_stats
from wamrl.data.lerobot.video import Writer, pick_codec
from wamrl.data.recording import InMemory
from wamrl.types import Episode

FACTS = ("success", "stages", "seed", "text")
NUMBERS = ("proprio", "actions", "executed")
# dB of every frame: smooth pictures, the chroma subsampled
PSNR = {"libsvtav1": 32.0, "h264": 30.0}


def check_equal(mine: Episode, found: Episode) -> None:
    for name in NUMBERS:
        array = getattr(found, name)
        assert array.dtype == np.float32 and np.array_equal(array, getattr(mine, name)), name
    for name in FACTS:
        assert getattr(found, name) == getattr(mine, name) and type(getattr(found, name)) is type(
            getattr(mine, name)
        )


@pytest.mark.parametrize("views", [1, 2])
def test_png_comes_back_bit_by_bit(tmp_path: Path, views: int):
    episodes = [episode(steps, n, views) for n, steps in enumerate((5, 1, 9))]
    names = ("front", "wrist")[:views]
    write(tmp_path / "d", iter(episodes), views=names, fps=10, video=False)
    found = open_lerobot(tmp_path / "d")
    assert found.views == names and found.image_hw == (16, 24) and found.notes == []
    for mine, other in zip(episodes, found.episodes(), strict=True):
        check_equal(mine, other)
        assert np.array_equal(mine.frames, other.frames)


@pytest.mark.parametrize("codec", ["libsvtav1", "h264"])
def test_video_comes_back_within_the_codec(tmp_path: Path, codec: str):
    episodes = [episode(4 + n, n, views=2) for n in range(12)]
    write(tmp_path / "d", iter(episodes), views=("front", "wrist"), fps=10, codec=codec)
    found = open_lerobot(tmp_path / "d")
    for mine, other in zip(episodes, found.episodes(), strict=True):
        check_equal(mine, other)
        for frame in range(len(mine.frames)):
            assert psnr(mine.frames[frame], other.frames[frame]) > PSNR[codec]


def test_odd_sizes_as_av1_or_png_only(tmp_path: Path):
    episodes = [episode(6, n, hw=(15, 23)) for n in range(2)]
    write(tmp_path / "av1", episodes, views=("top",), fps=10, codec="libsvtav1")
    assert (
        psnr(episodes[1].frames, open_lerobot(tmp_path / "av1").episode(1).frames)
        > PSNR["libsvtav1"]
    )
    with pytest.raises(ValueError, match="h264 needs even sizes"):
        write(tmp_path / "h264", episodes, views=("top",), fps=10, codec="h264")
    assert [p.name for p in tmp_path.iterdir()] == ["av1"]


@pytest.mark.parametrize("video", [False, True])
def test_files_roll_over_and_rows_come_in_any_order(tmp_path: Path, video: bool):
    episodes = [episode(3 + n % 4, n) for n in range(25)]
    write(
        tmp_path / "d",
        episodes,
        views=("top",),
        fps=10,
        video=video,
        chunks_size=2,
        data_files_size_in_mb=0.008,
        video_files_size_in_mb=0.002,
    )
    for folder in ("data", "meta/episodes", *(["videos/observation.images.top"] if video else [])):
        names = [
            p.relative_to(tmp_path / "d" / folder) for p in (tmp_path / "d" / folder).glob("*/*")
        ]
        assert len(names) > 2 and Path("chunk-001") in {n.parent for n in names}, folder
    found = open_lerobot(tmp_path / "d")
    whole = np.concatenate([e.frames for e in found.episodes()])
    if not video:
        assert np.array_equal(whole, np.concatenate([e.frames for e in episodes]))
    rows = np.random.default_rng(0).integers(0, len(whole), 200)  # with repeats
    assert np.array_equal(found.frames(rows), whole[rows])
    assert found.frames(rows[:0]).shape == (0, 1, 16, 24, 3)
    with pytest.raises(IndexError):
        found.frames(np.array([len(whole)]))


def test_the_tables_are_as_lerobot_wants_them(tmp_path: Path):
    episodes = [episode(4, 0, action_dim=1), episode(3, 1, action_dim=1)]
    write(
        tmp_path / "d",
        episodes,
        views=("top",),
        fps=10,
        robot_type="arm",
        state_names=("x", "y", "z"),
    )
    info = json.loads((tmp_path / "d/meta/info.json").read_text())
    assert (
        info["codebase_version"] == "v3.0"
        and info["robot_type"] == "arm"
        and info["splits"] == {"train": "0:2"}
    )
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (2, 7, 2)
    assert info["features"]["observation.state"] == {
        "dtype": "float32",
        "shape": [3],
        "names": ["x", "y", "z"],
    }
    data = pq.read_table(tmp_path / "d/data/chunk-000/file-000.parquet").to_pydict()
    assert data["frame_index"] == [0, 1, 2, 3, 0, 1, 2] and data["index"] == list(range(7))
    assert data["next.done"] == [False] * 3 + [True, False, False, True]
    assert data["next.success"] == [False] * 6 + [True]
    # of one number: no list
    assert data["action"] == np.concatenate([e.actions for e in episodes])[:, 0].tolist()
    assert np.allclose(data["timestamp"], np.array(data["frame_index"]) / 10)
    meta = pq.read_table(tmp_path / "d/meta/episodes/chunk-000/file-000.parquet").to_pydict()
    key = "videos/observation.images.top"
    # 5 frames, 4 rows
    assert meta[f"{key}/from_timestamp"] == [0.0, 0.5] and meta[f"{key}/to_timestamp"] == [0.4, 0.8]
    assert meta["dataset_from_index"] == [0, 4] and meta["dataset_to_index"] == [4, 7]
    assert np.shape(meta["stats/observation.images.top/mean"][0]) == (3, 1, 1) and meta[
        "stats/action/count"
    ] == [
        [4],
        [3],
    ]
    pandas = json.loads(pq.read_schema(tmp_path / "d/meta/tasks.parquet").metadata[b"pandas"])
    assert pandas["index_columns"] == ["task"]
    stats = json.loads((tmp_path / "d/meta/stats.json").read_text())
    assert set(stats["action"]) == {
        "min",
        "max",
        "mean",
        "std",
        "count",
        "q01",
        "q10",
        "q50",
        "q90",
        "q99",
    }
    everything = np.concatenate([e.proprio[:-1] for e in episodes])
    for name in ("min", "max", "mean", "std"):
        assert np.allclose(
            stats["observation.state"][name], getattr(everything, name)(0), atol=1e-6
        )


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(1, 5))
def test_merged_statistics_are_those_of_the_whole(lengths: list[int], dim: int):
    rng = np.random.default_rng(sum(lengths))
    parts = [rng.normal(size=(n, dim)) for n in lengths]
    merged = lerobot_stats.merge([lerobot_stats.of_column(p) for p in parts])
    whole = lerobot_stats.of_column(np.concatenate(parts))
    assert merged["count"] == whole["count"]
    for name in ("min", "max", "mean", "std"):
        assert np.allclose(merged[name], whole[name])


def test_stats_of_a_recording():
    recording = InMemory([episode(4, 0, views=2), episode(7, 1, views=2)], views=("a", "b"))
    found = lerobot_stats.stats(recording)
    assert list(found)[-2:] == ["observation.images.a", "observation.images.b"]
    assert np.allclose(found["action"]["q50"], np.median(recording.actions, axis=0))
    blue = recording.frames(np.arange(13))[:, 1, :, :, 2].mean() / 255
    assert np.isclose(found["observation.images.b"]["mean"][2, 0, 0], blue)


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    hw=st.tuples(st.integers(8, 20), st.integers(8, 20)),
    dim=st.integers(1, 3),
    text=st.text(max_size=20),
)
def test_any_episodes_come_back(
    tmp_path_factory, lengths: list[int], hw: tuple[int, int], dim: int, text: str
):
    episodes = [episode(s, n, hw=hw, action_dim=dim) for n, s in enumerate(lengths)]
    episodes = [Episode(**(vars(e) | {"text": text})) for e in episodes]
    place = tmp_path_factory.mktemp("any") / "d"
    write(place, episodes, views=("top",), fps=25, video=False)
    for mine, other in zip(episodes, open_lerobot(place).episodes(), strict=True):
        check_equal(mine, other)
        assert np.array_equal(mine.frames, other.frames)


@pytest.mark.parametrize("movie", [False, True])
def test_v21_drops_the_last_action_and_invents_no_frame(tmp_path: Path, movie: bool):
    episodes = [episode(s, n, views=2) for n, s in enumerate((5, 8))]
    write_v21(tmp_path / "d", episodes, ("front", "wrist"), movie=movie)
    found = open_lerobot(tmp_path / "d")
    assert [f.length for f in found.facts] == [5, 8] and [f.text for f in found.facts] == [
        "task 0",
        "task 1",
    ]
    assert (
        all(f.success is None and f.seed == -1 for f in found.facts)
        and "which of 2 episodes succeeded: they are unknown" in found.notes[0]
    )
    for mine, other in zip(episodes, found.episodes(), strict=True):
        assert np.array_equal(mine.proprio, other.proprio) and np.array_equal(
            mine.actions, other.actions
        )
        assert np.array_equal(other.executed, other.actions)
        assert psnr(mine.frames, other.frames) > (PSNR["libsvtav1"] if movie else 1e9)


def foreign(path: Path, **options) -> list[Episode]:
    """A v3.0 dataset without our columns."""
    episodes = [episode(s, n, views=2) for n, s in enumerate((5, 8))]
    write(path, episodes, views=("front", "wrist"), fps=10, **options)
    meta = path / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(meta)
    pq.write_table(
        table.drop_columns([c for c in table.column_names if c.startswith("wamrl/")]), meta
    )
    return episodes


@pytest.mark.parametrize("video", [False, True])
def test_foreign_v30(tmp_path: Path, video: bool):
    episodes = foreign(tmp_path / "d", video=video)
    found = open_lerobot(tmp_path / "d", views=("wrist",))
    assert found.views == ("wrist",) and [f.length for f in found.facts] == [4, 7]
    assert [f.success for f in found.facts] == [False, True] and found.notes == []  # next.success
    for mine, other in zip(episodes, found.episodes(), strict=True):
        assert np.array_equal(mine.proprio[:-1], other.proprio) and np.array_equal(
            mine.executed[:-1], other.executed
        )
        assert psnr(mine.frames[:-1, 1:], other.frames) > (PSNR["libsvtav1"] if video else 1e9)
    assert [f.success for f in open_lerobot(tmp_path / "d", success=False).facts] == [False, False]
    assert [f.success for f in open_lerobot(tmp_path / "d", success="next.done").facts] == [
        True,
        True,
    ]


def test_merged_with_a_foreign_one_is_foreign(tmp_path: Path):
    write(tmp_path / "d", [episode(5, 0), episode(6, 1)], views=("top",), fps=10)
    edit_parquet(
        tmp_path / "d/meta/episodes/chunk-000/file-000.parquet",
        **{"wamrl/version": [1, None], "wamrl/stages": [0, None]},
    )
    assert [f.length for f in open_lerobot(tmp_path / "d").facts] == [4, 5]


def test_choices_of_the_reader(tmp_path: Path):
    foreign(tmp_path / "d", video=False)
    found = open_lerobot(
        tmp_path / "d", state_keys=("observation.state", "action"), image_hw=(8, 12)
    )
    assert found.proprio.shape == (13, 5) and found.image_hw == (8, 12)
    whole = open_lerobot(tmp_path / "d").frames(np.arange(3))
    means = whole.reshape(3, 2, 8, 2, 12, 2, 3).mean((3, 5))
    assert np.abs(found.frames(np.arange(3)) - means).max() <= 0.5
    other = open_lerobot(tmp_path / "d", action_key="complementary_info.executed")
    assert np.array_equal(other.actions, open_lerobot(tmp_path / "d").executed)
    for wrong in (
        {"views": ("left",)},
        {"state_keys": ("nope",)},
        {"action_key": "observation.images.front"},
    ):
        with pytest.raises(ValueError, match="choose"):
            open_lerobot(tmp_path / "d", **wrong)


def test_an_existing_path_is_refused_and_a_failure_leaves_nothing(tmp_path: Path):
    write(tmp_path / "d", [episode(3)], views=("top",), fps=10)
    with pytest.raises(ValueError, match="exists already"):
        write(tmp_path / "d", [episode(3)], views=("top",), fps=10)

    def failing():
        yield episode(3)
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError):
        write(tmp_path / "e", failing(), views=("top",), fps=10)
    bad = Episode(**(vars(episode(3, 1)) | {"actions": np.full((3, 2), np.nan, dtype=np.float32)}))
    for episodes, message in (
        ([], "no episode"),
        ([episode(3), bad], "NaN"),
        ([episode(3), episode(3, views=2)], "frames"),
    ):
        with pytest.raises(ValueError, match=message):
            write(tmp_path / "e", episodes, views=("top",), fps=10)
    for options in (
        {"fps": 0},
        {"fps": 12.5},
        {"codec": "raw"},
        {"views": ("../x",)},
        {"views": ()},
        {"gop": 0},
    ):
        with pytest.raises(ValueError):
            write(tmp_path / "e", [episode(3)], **({"views": ("top",), "fps": 10} | options))
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


def test_inspect(tmp_path: Path):
    write(tmp_path / "d", [episode(3, n) for n in range(3)], views=("top",), fps=10)
    found = inspect(tmp_path / "d")
    assert (found["episodes"], found["frames"], found["successes"]) == (3, 9, 1)
    assert found["codecs"] == {"observation.images.top": "av1"} and found["tasks"] == {
        "task 0": 2,
        "task 1": 1,
    }
    assert found["lengths"] == {"min": 3, "mean": 3, "max": 3} and all(found["bytes"].values())
    json.dump(found, io.StringIO())


@pytest.mark.parametrize("codec", ["av1", "h264"])
def test_rare_key_frames(tmp_path: Path, codec: str):
    """As in many a foreign dataset: long groups of pictures, frames that depend on later ones."""
    episodes = [episode(30, n) for n in range(3)]
    write(tmp_path / "d", episodes, views=("top",), fps=10, codec=codec, gop=40)
    found = open_lerobot(tmp_path / "d")
    for rows in (np.arange(93)[::-1], np.random.default_rng(0).permutation(93)):
        for row, frame in zip(rows, found.frames(rows), strict=True):
            mine = episodes[row // 31].frames[row % 31]
            assert psnr(mine, frame) > 28, row
    whole = found.frames(np.arange(93))
    for row in np.random.default_rng(1).integers(0, 93, 30):
        assert np.array_equal(found.frames(np.array([row]))[0], whole[row])


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="Linux only")
def test_the_encoder_leaves_us_no_real_time_priority(tmp_path: Path):
    """SVT-AV1 as root gives it to who opens it; then nothing else on the machine gets a core."""
    codec = pick_codec("auto")
    writer = Writer(tmp_path / "film.mp4", fps=10, hw=(64, 64), codec=codec, gop=2, crf=30)
    writer.add(np.zeros((3, 64, 64, 3), np.uint8))
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
    writer.close()
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
