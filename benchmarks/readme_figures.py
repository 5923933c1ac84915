"""The pictures that the README opens with, from finished `wamrl quickstart` runs, one per seed.

    python -m benchmarks.readme_figures RUN [RUN ...] [--out docs/figures]

`quickstart_curve.png`: success over online episodes, of all runs. `quickstart.webp` (animated) and
its still, `quickstart.png`: one held-out initial state before and after the online phase, from the
first of the runs that has a comparison in `videos/compare`. Which state that is, the run has
decided: of the first eight that were lost before and won after, the one where that is seen best
(`wamrl.runs.videos.write_comparison`). Runs that are older than these videos get one now, from
their checkpoints `base` and `final`.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wamrl import report
from wamrl.report.style import (
    BAND,
    BLUE,
    GREEN,
    GREY,
    PER_CENT,
    PINK,
    RED,
    SKY,
    count_axis,
    saved_figure,
)
from wamrl.report.video import compose_films, panel, text_image
from wamrl.runtime.log import read_metrics, resolved
from wamrl.stats.paired import wilson
from wamrl.types import SAMPLERS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAME = "quickstart"
LIMIT = 600 * 1024  # bytes of the animation
FRAME_MS, PAUSE_MS = 280, 2500
MOMENTS = 6  # of the film strip
INK, GOOD, BAD = (235, 235, 235), (110, 220, 120), (255, 120, 110)
SEEDS = (SKY, GREEN, PINK, "#999933", GREY)


@dataclass(frozen=True)
class Run:
    """A finished run folder."""

    folder: Path
    config: dict
    summary: dict
    evaluated: list[report.Point]  # by the deployed sampler, x: online episodes so far
    exploring: list[report.Point]  # on training states never tried before

    @classmethod
    def load(cls, folder: Path) -> Run:
        for name in ("summary.json", "config.json", "metrics.jsonl"):
            if not (folder / name).is_file():
                raise ValueError(
                    f"{folder} is not a finished run, it has no {name}: "
                    "run or resume `wamrl quickstart`"
                )
        curves, thin = report.run_curves(read_metrics(folder), SAMPLERS)
        found = [points for name, points in curves.items() if name not in thin]
        if len(found) != 2:
            raise ValueError(
                f"{folder} has logged no evaluation, or no exploration: "
                "`wamrl quickstart` logs both"
            )
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        summary = report.read_summary(folder / "summary.json")
        if not {"before", "after"} <= summary["arms"].keys():
            raise ValueError(
                f"{folder} compares no before and after: "
                "give runs of `wamrl quickstart` or `wamrl train`"
            )
        return cls(
            folder, config, summary, *(([p for p in points if p.episodes]) for points in found)
        )

    @property
    def seed(self) -> int:
        return self.config["seed"]


# --- the learning curve


def curve(path: Path, runs: list[Run]) -> None:
    """Thin: each seed with its Wilson band; thick: their mean; dashed: the mean of exploring."""
    with saved_figure(path, 8, 4.6, dots_per_inch=200) as figure:  # read at 800 px
        axes = figure.add_subplot()
        draw(axes, runs)
        axes.set(xlabel="online episodes so far", ylabel="success, %", title=title(runs))
        axes.set(ylim=PER_CENT, xlim=(0, None))
        count_axis(axes)
        figure.legend(title="bands: Wilson 95 % of a seed", loc="outside lower center", ncols=3)


def draw(axes: Axes, runs: list[Run]) -> None:
    """The lines of `curve`."""
    for run, colour in zip(runs, SEEDS * len(runs), strict=False):
        x = [p.x for p in run.evaluated]
        bands = np.array([wilson(p.successes, p.episodes) for p in run.evaluated])
        look = {"color": colour, "linewidth": 1.0, "marker": "o", "markersize": 3}
        name = f"evaluated, seed {run.seed}"
        axes.plot(x, rates(run.evaluated), **look, label=name)
        axes.fill_between(x, *(100 * bands.T), color=colour, alpha=BAND, linewidth=0)
    several = ", mean of the seeds" if len(runs) > 1 else ""
    explored = mean([run.exploring for run in runs])
    look = {"color": RED, "linewidth": 1.5, "linestyle": (0, (4, 1.5))}
    axes.plot(*explored, **look, label="exploring" + several)
    if len(runs) > 1:
        axes.plot(
            *mean([run.evaluated for run in runs]),
            color=BLUE,
            linewidth=3,
            label="evaluated" + several,
        )


def title(runs: list[Run]) -> str:
    """What was run, the numbers at both ends, and what a point and its band stand on."""
    arms = [run.summary["arms"] for run in runs]
    old, new = (100 * np.mean([a[name]["rate"] for a in arms]) for name in ("before", "after"))
    who = f"{len(runs)} seeds, mean" if len(runs) > 1 else f"seed {runs[0].seed}"
    outer = numbers({run.evaluated[i].episodes for run in runs for i in (0, -1)})
    inner = numbers({p.episodes for run in runs for p in run.evaluated[1:-1]})
    n = f"n = {outer}" + (f", {inner} of them between the ends" if inner else "")
    explored = [p.episodes for run in runs for p in run.exploring]
    ends = sorted({min(explored), max(explored)})
    n_explored = " to ".join(map(str, ends))
    config = runs[0].config
    task = config["env"].get("task", arms[0]["before"]["task"])
    return (
        f"{config['name']} ({task}), {who}: {old:.1f} % before, {new:.1f} % after\n"
        f"evaluated: deployed sampler, held-out initial states ({n})\n"
        f"exploring: training states never tried before (n = {n_explored} a point and seed)"
    )


def numbers(found: set[int]) -> str:
    return " or ".join(map(str, sorted(found)))


def rates(points: list[report.Point]) -> np.ndarray:
    """Success in per cent."""
    return np.array([100 * p.successes / p.episodes for p in points])


def mean(curves: list[list[report.Point]]) -> tuple[np.ndarray, np.ndarray]:
    """x and mean success in per cent, where all curves have points around."""
    low = max(points[0].x for points in curves)
    high = min(points[-1].x for points in curves)
    x = np.array(sorted({p.x for points in curves for p in points if low <= p.x <= high}))
    y = [np.interp(x, [p.x for p in points], rates(points)) for points in curves]
    return x, np.mean(y, axis=0)


# --- before and after


def films_of(run: Run) -> dict[str, report.Film] | None:
    """Of a state that was lost before and won after; None if the run has none."""
    videos = sorted((run.folder / "videos" / "compare").glob("start*.mp4"))
    if not videos and run.summary["paired"]["after - before"]["gained"]:
        videos = [v for v in [play_again(run)] if v]
    return report.read_comparison(videos[0]) if videos else None


def play_again(run: Run) -> Path | None:
    """`write_comparison` of a run that was made before there was one."""
    from wamrl.recipes.find import find_recipe
    from wamrl.runs.folder import open_model
    from wamrl.runs.videos import write_comparison
    from wamrl.runtime.files import config_difference

    cfg = replace(find_recipe(run.config["name"])(), seed=run.seed)
    cfg = replace(cfg, eval=replace(cfg.eval, imagine_steps=run.config["eval"]["imagine_steps"]))
    for part in ("env", "model", "flow"):
        if fault := config_difference(run.config[part], resolved(getattr(cfg, part)), part):
            raise ValueError(
                f"{run.folder} was not made by the recipe {cfg.name} as it is now: {fault}"
            )
    models = [open_model(cfg, run.folder / "checkpoints" / name) for name in ("base", "final")]
    arms = [run.summary["arms"][name] for name in ("before", "after")]
    models[0].sampler = arms[0]["sampler"]  # `base` is saved before one is chosen
    old, new = (dict(zip(arm["starts"], arm["success"], strict=True)) for arm in arms)
    states = [i for i in sorted(old.keys() & new.keys()) if new[i] and not old[i]]
    with cfg.build_pool() as pool:
        return write_comparison(cfg, *models, pool, states, run.folder / "videos" / "compare")


def animation(path: Path, films: dict[str, report.Film]) -> None:
    """A WebP of all frames that loops and rests at its end, as large as the limit allows.

    Of the same pictures, a GIF of 256 colours is four times larger.
    """
    from PIL import Image

    count = max(len(f.steps) for f in films.values())
    times = [FRAME_MS] * (count - 1) + [PAUSE_MS]
    side = min(films["before"].executed.shape[2:4])
    for factor in range(max(1, 256 // side), 0, -1):
        frames = [Image.fromarray(compose_films(films, i, factor)) for i in range(count)]
        options = {"save_all": True, "append_images": frames[1:], "duration": times, "loop": 0}
        data = io.BytesIO()
        frames[0].save(data, format="WEBP", quality=85, method=4, **options)
        if data.tell() <= LIMIT:
            break
    path.write_bytes(data.getvalue())


def strip(path: Path, films: dict[str, report.Film]) -> None:
    """The same as a still: a row of pictures for each of before, after x executed, imagined."""
    from PIL import Image

    shortest = min(len(f.steps) for f in films.values())
    moments = np.linspace(0, shortest - 1, MOMENTS).round().astype(int).tolist()[:-1]
    side = min(films["before"].executed.shape[2:4])
    factor = max(1, 128 // side)
    rows = []
    for name, film in films.items():
        shown = [*moments, len(film.steps) - 1]
        wide = panel(film.executed[0], factor).shape[1]
        captions = [f"step {film.steps[i]}" for i in shown]
        captions[-1] += ", end"
        rows.append(head(name, film.success, captions, wide))
        for part in ("executed", "imagined"):
            frames = getattr(film, part)
            rows.append(labelled(part, [panel(frames[i], factor) for i in shown]))
    Image.fromarray(np.concatenate(rows)).save(path, optimize=True)


LABEL, GAP = 112, 6  # pixels
PAPER = np.uint8(18)  # as behind the text


def head(name: str, success: bool, captions: list[str], wide: int) -> np.ndarray:
    """Above an episode's rows: what became of it, and the control step of each picture."""
    verb = "succeeds" if success else "fails"
    tint = GOOD if success else BAD
    pieces = [text_image(f"{name}: {verb}", LABEL + 2 * GAP, tint)]
    for text in captions:
        pieces.append(text_image(text, wide, INK))
        pieces.append(np.full((pieces[0].shape[0], GAP, 3), PAPER))
    return np.concatenate(pieces, axis=1)


def labelled(label: str, pictures: list[np.ndarray]) -> np.ndarray:
    high = pictures[0].shape[0]
    text = text_image(label, LABEL + 2 * GAP, INK)
    above = (high - text.shape[0]) // 2
    below = high - text.shape[0] - above
    pieces = [np.pad(text, [(above, below), (0, 0), (0, 0)], constant_values=PAPER)]
    for picture in pictures:
        pieces.append(picture)
        pieces.append(np.full((high, GAP, 3), PAPER))
    row = np.concatenate(pieces, axis=1)
    return np.pad(row, [(0, GAP), (0, 0), (0, 0)], constant_values=PAPER)


def make(folders: list[Path], out: Path) -> None:
    """All three pictures; ValueError, after the curve, where no run has a state to show."""
    runs = [Run.load(folder) for folder in folders]
    tasks = {json.dumps([run.config["name"], run.config["env"]]) for run in runs}
    if len(tasks) > 1 or len({run.seed for run in runs}) < len(runs):
        raise ValueError("the runs must be of one recipe and task, and each of another seed")
    out.mkdir(parents=True, exist_ok=True)
    curve(out / f"{NAME}_curve.png", runs)
    films = next((found for run in runs if (found := films_of(run))), None)
    if films is None:
        raise ValueError(
            "no initial state that was lost before and won after in "
            f"{', '.join(str(f) for f in folders)}: give a run that improved"
        )
    animation(out / f"{NAME}.webp", films)
    strip(out / f"{NAME}.png", films)
    for path in sorted(out.glob(f"{NAME}*")):
        print(f"{path}: {path.stat().st_size / 1024:.0f} KiB")


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("runs", nargs="+", type=Path, help="finished run folders, one per seed")
    p.add_argument("--out", type=Path, default=Path("docs/figures"))
    o = p.parse_args()
    try:
        make(o.runs, o.out)
    except ValueError as error:
        sys.exit(f"readme_figures: {error}")


if __name__ == "__main__":
    main()
