"""Does the real lerobot read what wamrl writes, and wamrl what lerobot writes?

Two environments that know nothing of each other, hence four steps (docs/data.md):
    python benchmarks/lerobot_check.py export DIR   with wamrl: writes demonstrations
    python benchmarks/lerobot_check.py check DIR    with lerobot: reads, compares; converts v2.1
    python benchmarks/lerobot_check.py record DIR   with lerobot: writes datasets of its own
    python benchmarks/lerobot_check.py read DIR     with wamrl: reads lerobot's, converts them
    python benchmarks/lerobot_check.py check DIR    with lerobot again: reads the conversions too
Every NAME in DIR is a dataset, NAME.npz is what a reader must find.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

FPS = 20
MODES = {
    "ours-png": {"video": False},
    "ours-av1": {"codec": "libsvtav1"},
    "ours-h264": {"codec": "h264"},
    "ours-unknown": {"video": False},  # nobody knows which episodes succeeded
    "ours-av1-small-files": {
        "codec": "libsvtav1",
        "video_files_size_in_mb": 0.2,
        "data_files_size_in_mb": 0.03,
    },
}

# conversions of what lerobot recorded: source, and rows that an episode loses
AGAIN = {"again-copied": ("theirs-av1", 0), "again-stored": ("theirs-png", 1)}


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    error = np.square(a.astype(np.float64) - b).mean()
    return float("inf") if error == 0 else 10 * np.log10(255**2 / error)


def export(root: Path) -> None:
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tests.support.lerobot_made import write_v21
    from wamrl.data.demos import DemoConfig, collect
    from wamrl.data.lerobot import open_lerobot, write
    from wamrl.envs.metaworld.env import MetaWorldConfig

    env = MetaWorldConfig(task="button-press", horizon=80)
    views = env.build().spec.views
    known = collect(DemoConfig(env=env, episodes=24, n_workers=0))
    for name, options in MODES.items():
        begin = time.perf_counter()
        unknown = name == "ours-unknown"
        episodes = [replace(e, success=None) for e in known] if unknown else known
        write(root / name, iter(episodes), views=views, fps=FPS, robot_type="sawyer", **options)
        spent = time.perf_counter() - begin
        found = list(open_lerobot(root / name).episodes())
        worst = min(
            psnr(a, b)
            for e, f in zip(episodes, found, strict=True)
            for a, b in zip(e.frames, f.frames, strict=True)
        )
        same = all(
            np.array_equal(getattr(e, k), getattr(f, k))
            for e, f in zip(episodes, found, strict=True)
            for k in ("proprio", "actions", "executed", "success", "stages", "seed", "text")
        )
        _expect(root / name, found, views, original=episodes)
        size = sum(f.stat().st_size for f in (root / name).rglob("*") if f.is_file()) / 2**20
        images = sum(e.frames.shape[0] * e.frames.shape[1] for e in episodes)
        print(
            f"{name}: {len(found)} episodes, {images} images in {spent:.1f} s, {size:.2f} MB; "
            f"numbers and facts equal: {same}, "
            f"PSNR of all frames {psnr(_all(episodes), _all(found)):.1f} dB, of the worst "
            f"{worst:.1f} dB"
        )
    episodes = known
    for name, movie in (("v21-av1", True), ("v21-png", False)):
        write_v21(root / name, episodes, views, FPS, movie)
        # our reader drops the last action of an episode; what lerobot must find are all rows
        found = list(open_lerobot(root / name).episodes())
        _expect(root / name, found, views, original=episodes, rows=1)


def _all(episodes: list) -> np.ndarray:
    return np.concatenate([e.frames for e in episodes])


def _expect(
    path: Path, episodes: list, views: tuple[str, ...], original: list, rows: int = 0
) -> None:
    """NAME.npz: S rows per episode, or S + 1 with rows=1."""
    cut = slice(None) if rows else slice(None, -1)
    np.savez(
        path.with_suffix(".npz"),
        views=views,
        lengths=[len(e.actions) + rows for e in episodes],
        texts=[e.text for e in episodes],
        state=np.concatenate([e.proprio[cut] for e in episodes]),
        action=np.concatenate(
            [np.concatenate([e.actions, e.actions[-1:][:rows]]) for e in episodes]
        ),
        executed=np.concatenate([e.executed for e in episodes]),
        frames=np.concatenate([e.frames[cut] for e in episodes]),
        original=np.concatenate([e.frames[cut] for e in original]),
    )


def check(root: Path) -> None:
    import lerobot
    import torch

    print(f"lerobot {lerobot.__version__}, torch {torch.__version__.split('+')[0]}")
    for name in (*MODES, *AGAIN):
        if (root / f"{name}.npz").is_file():
            _check_one(root / name, np.load(root / f"{name}.npz"))
    for name in ("v21-av1", "v21-png"):
        from lerobot.scripts.convert_dataset_v21_to_v30 import convert_dataset

        with tempfile.TemporaryDirectory() as folder:
            shutil.copytree(root / name, Path(folder) / name)
            convert_dataset("local/check", root=Path(folder) / name, push_to_hub=False)
            _check_one(Path(folder) / name, np.load(root / f"{name}.npz"))


def _open(path: Path, **options):
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    return LeRobotDataset("local/check", root=path, video_backend="pyav", **options)


def _images(item: dict, keys: list[str]) -> np.ndarray:
    """(..., V, H, W, 3) uint8."""
    import torch

    stacked = torch.stack([item[k] for k in keys], dim=-4)
    return (stacked * 255).round().to(torch.uint8).movedim(-3, -1).numpy()


def _check_one(path: Path, want: dict) -> None:
    import torch

    data = _open(path)
    keys = [f"observation.images.{v}" for v in want["views"]]
    lengths, total = want["lengths"], len(want["state"])
    assert len(data) == total and data.num_episodes == len(lengths) and data.fps == FPS, "sizes"
    episode = np.repeat(np.arange(len(lengths)), lengths)
    got = np.empty_like(want["frames"])
    for row in range(total):
        item = data[row]
        got[row] = _images(item, keys)
        assert np.array_equal(item["observation.state"].numpy(), want["state"][row]), (
            f"state of row {row}"
        )
        assert np.array_equal(item["action"].numpy(), want["action"][row]), f"action of row {row}"
        if "complementary_info.executed" in item:
            assert np.array_equal(
                item["complementary_info.executed"].numpy(), want["executed"][row]
            ), f"executed {row}"
        assert (
            item["task"] == want["texts"][episode[row]] and item["episode_index"] == episode[row]
        ), f"facts of {row}"
    worst = np.abs(got.astype(int) - want["frames"]).max()
    deltas = [-2, -1, 0, 1, 3]
    shifted = _open(
        path, delta_timestamps={k: [d / FPS for d in deltas] for k in [*keys, "action"]}
    )
    first, last = np.cumsum([0, *lengths[:-1]]), np.cumsum(lengths) - 1
    rows = sorted({*range(0, total, 7), *first.tolist(), *last.tolist()})
    for row in rows:
        item, e = shifted[row], episode[row]
        near = np.clip(row + np.array(deltas), first[e], last[e])
        assert np.array_equal(_images(item, keys), got[near]), f"frames around row {row}"
        assert np.array_equal(item["action"].numpy(), want["action"][near]), (
            f"actions around row {row}"
        )
        assert np.array_equal(item["action_is_pad"].numpy(), near != row + np.array(deltas)), (
            f"padding of row {row}"
        )
    batch = next(iter(torch.utils.data.DataLoader(shifted, batch_size=16, shuffle=True)))
    assert batch[keys[0]].shape[:2] == (16, len(deltas)) and batch["action"].shape[:2] == (
        16,
        len(deltas),
    ), "batch"
    some = _open(path, episodes=[1, 3])
    assert len(some) == lengths[1] + lengths[3], "a choice of episodes"
    assert np.array_equal(_images(some[0], keys), got[first[1]]), "frames of a choice of episodes"
    for key, values in {"observation.state": want["state"], "action": want["action"]}.items():
        for stat, value in {
            "min": values.min(0),
            "max": values.max(0),
            "mean": values.mean(0),
        }.items():
            assert np.allclose(data.meta.stats[key][stat], value, atol=1e-5), f"stats of {key}"
        assert {"q01", "q99"} <= set(data.meta.stats[key]) or path.name.startswith("v21"), (
            "quantiles"
        )
    print(
        f"{path.name}: {total} rows of {len(lengths)} episodes: numbers, tasks, stats equal; "
        "frames differ from "
        f"wamrl's by at most {worst}; PSNR to the original {psnr(got, want['original']):.1f} dB; "
        f"{len(rows)} delta_timestamps windows, a DataLoader batch and a choice of episodes right"
    )


def record(root: Path) -> None:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    source = np.load(root / "ours-png.npz")
    keys = [f"observation.images.{v}" for v in source["views"]]
    for name, kind in (("theirs-png", "image"), ("theirs-av1", "video")):
        camera = {
            "dtype": kind,
            "shape": source["frames"].shape[2:],
            "names": ["height", "width", "channels"],
        }
        vector = {
            k: {"dtype": "float32", "shape": source[k].shape[1:], "names": None}
            for k in ("state", "action")
        }
        features = {
            "observation.state": vector["state"],
            "action": vector["action"],
            **dict.fromkeys(keys, camera),
        }
        features["next.success"] = {"dtype": "bool", "shape": (1,), "names": None}
        data = LeRobotDataset.create(
            "local/theirs",
            fps=FPS,
            features=features,
            root=root / name,
            use_videos=kind == "video",
            robot_type="sawyer",
        )
        row = 0
        for number, length in enumerate(source["lengths"]):
            for step in range(length):
                frame = {k: source["frames"][row, i] for i, k in enumerate(keys)}
                frame |= {
                    "observation.state": source["state"][row],
                    "action": source["action"][row],
                }
                frame["next.success"] = np.array([step == length - 1 and number % 3 == 0])
                data.add_frame(frame | {"task": str(source["texts"][number])})
                row += 1
            data.save_episode()
        data.finalize()
        opened = _open(root / name)
        frames = np.stack([_images(opened[i], keys) for i in range(len(opened))])
        np.savez(
            root / f"{name}.npz",
            frames=frames,
            **{k: source[k] for k in ("lengths", "texts", "state", "action", "views", "original")},
        )
        print(
            f"{name}: written and read by lerobot, PSNR {psnr(frames, source['original']):.1f} dB"
        )


def read(root: Path) -> None:
    from wamrl.data.lerobot import open_lerobot

    for name in ("theirs-png", "theirs-av1"):
        want, data = np.load(root / f"{name}.npz"), open_lerobot(root / name)
        lengths = want["lengths"]
        kept = np.ones(len(want["action"]), dtype=bool)
        # a foreign dataset lacks the frame after the last action
        kept[np.cumsum(lengths) - 1] = False
        assert [f.length + 1 for f in data.facts] == lengths.tolist() and data.views == tuple(
            want["views"]
        ), "sizes"
        assert [f.text for f in data.facts] == want["texts"].tolist(), "tasks"
        assert [f.success for f in data.facts] == [n % 3 == 0 for n in range(len(lengths))], (
            "success"
        )
        assert np.array_equal(data.proprio, want["state"]) and np.array_equal(
            data.actions, want["action"][kept]
        ), "numbers"
        rows = np.random.default_rng(0).permutation(len(want["state"]))
        worst = np.abs(data.frames(rows).astype(int) - want["frames"][rows]).max()
        print(
            f"{name}: {len(rows)} rows read by wamrl in random order: numbers, tasks, success "
            "equal; "
            f"frames differ from lerobot's by at most {worst}"
        )
    _convert(root)


def _convert(root: Path) -> None:
    """As they are, which is a copy; and by way of our own format, which drops the last actions."""
    from wamrl.cli import main

    lerobot_again = ["--format", "lerobot"]
    main(["data", "convert", str(root / "theirs-av1"), str(root / "again-copied"), *lerobot_again])
    store = str(root / "store")
    main(["data", "convert", str(root / "theirs-png"), store])
    main(["data", "convert", store, str(root / "again-stored"), "--image"])
    for name, (source, lost) in AGAIN.items():
        want = dict(np.load(root / f"{source}.npz"))
        kept = np.ones(len(want["action"]), dtype=bool)
        kept[np.cumsum(want["lengths"]) - 1] = not lost
        rows = {key: want[key][kept] for key in ("state", "action", "frames", "original")}
        rest = {"lengths": want["lengths"] - lost, "executed": rows["action"]}
        np.savez(root / f"{name}.npz", **(want | rows | rest))


if __name__ == "__main__":
    steps = {"export": export, "check": check, "record": record, "read": read}
    if len(sys.argv) != 3 or sys.argv[1] not in steps:
        sys.exit(__doc__)
    steps[sys.argv[1]](Path(sys.argv[2]))
