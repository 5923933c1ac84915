"""The pictures of the README: made from run folders, and refused in one sentence."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import readme_figures
from tests.support import tiny
from wamrl import report
from wamrl.evaluate import evaluate
from wamrl.report.results import gained
from wamrl.report.video import compose_films
from wamrl.runs.videos import write_comparison
from wamrl.stats.paired import paired_difference
from wamrl.types import InitialState

STATES = 12


def made_film(success: bool, frames: int, seed: int, views: int = 1) -> report.Film:
    generator = np.random.default_rng(seed)
    shape = (frames, views, 16, 16, 3)
    executed, imagined = (generator.integers(0, 256, shape, np.uint8) for _ in range(2))
    steps = tuple(range(6, 6 * frames + 1, 6))
    return report.Film(
        executed=executed, imagined=imagined, steps=steps, length=steps[-1] + 2, success=success
    )


def made_run(root, seed: int = 0, *, solved: bool = True, name: str = "quickstart"):
    """A run folder with the files that the pictures are made of."""
    run = root / f"run-{name}-{seed}-{solved}"
    run.mkdir()
    config = {"name": name, "seed": seed, "env": {"task": "button-press"}}
    (run / "config.json").write_text(json.dumps(config))
    rows = []
    for step in range(5):
        row = {"step": step, "seconds": 1.0}
        if step:
            row |= {
                "rollout/episodes": 32,
                "rollout/success_fresh": 0.2 * step,
                "rollout/fresh": 16,
            }
        if step != 1:
            n = 20 if step in (0, 4) else 10
            row |= {"eval/success": 0.2 * step, "eval/episodes": n, "eval/sampler": step % 2}
        rows.append(json.dumps(row))
    (run / "metrics.jsonl").write_text("\n".join(rows) + "\n")
    before = np.zeros(20, bool)
    after = np.arange(20) < (16 if solved else 0)
    kind = {"task": "made", "stages": 1, "seed": seed, "error_over_copy": {4: 0.5}}
    arms = {
        name: report.arm(**kind, success=won, length=np.full(20, 9))
        for name, won in {"before": before, "after": after}.items()
    }
    pair = paired_difference(before, after)
    report.write_summary(run / "summary.json", arms, {"after - before": pair})
    if solved:
        folder = run / "videos" / "compare"
        folder.mkdir(parents=True)
        films = {"before": made_film(False, 8, 1), "after": made_film(True, 6, 2)}
        report.comparison(folder / "start0003.mp4", films)
    return run


def test_the_three_pictures(tmp_path, capsys):
    runs = [made_run(tmp_path, 0, solved=False), made_run(tmp_path, 1), made_run(tmp_path, 2)]
    out = tmp_path / "figures"
    readme_figures.make(runs, out)
    said = capsys.readouterr().out
    for name in ("quickstart.webp", "quickstart.png", "quickstart_curve.png"):
        assert name in said and (out / name).stat().st_size > 1000
    with Image.open(out / "quickstart_curve.png") as curve:
        assert curve.width == 1600
    with Image.open(out / "quickstart.webp") as moving:
        assert (moving.n_frames, moving.info["loop"]) == (8, 0)
        moving.seek(7)
        moving.load()
        assert moving.info["duration"] == readme_figures.PAUSE_MS
    assert (out / "quickstart.webp").stat().st_size <= readme_figures.LIMIT
    with Image.open(out / "quickstart.png") as still:
        assert still.width > readme_figures.MOMENTS * 128 and still.height > 4 * 128


def test_the_curve_says_what_it_stands_on(tmp_path):
    runs = [readme_figures.Run.load(made_run(tmp_path, seed)) for seed in (0, 1)]
    assert [(p.x, p.episodes) for p in runs[0].evaluated] == [
        (0, 20),
        (64, 10),
        (96, 10),
        (128, 20),
    ]
    text = readme_figures.title(runs)
    for part in ("2 seeds", "0.0 % before, 80.0 % after", "n = 20, 10 of them", "n = 16 a point"):
        assert part in text
    x, y = readme_figures.mean([runs[0].evaluated, runs[1].evaluated[1:]])
    assert x.tolist() == [64, 96, 128] and y == pytest.approx([40, 60, 80])


def test_refusals_are_one_sentence(tmp_path, monkeypatch, capsys):
    lost = made_run(tmp_path, 0, solved=False)
    won = made_run(tmp_path, 1)
    other = made_run(tmp_path, 2, name="hammer")
    (tmp_path / "empty").mkdir()
    broken = made_run(tmp_path, 3)
    next((broken / "videos" / "compare").iterdir()).write_bytes(b"no video")
    for runs, words in (
        ([lost], "no initial state that was lost before and won after"),
        ([tmp_path / "empty"], "not a finished run"),
        ([won, other], "of one recipe"),
        ([won, won], "another seed"),
        ([broken], "no comparison"),
    ):
        out = tmp_path / "refused"
        monkeypatch.setattr("sys.argv", ["readme_figures", *map(str, runs), "--out", str(out)])
        with pytest.raises(SystemExit) as stop:
            readme_figures.main()
        sentence = stop.value.code
        assert words in sentence and len(sentence.splitlines()) == 1
        assert not (out / "quickstart.png").exists()


@pytest.mark.parametrize("views", [1, 2])
def test_a_comparison_gives_its_films_back(tmp_path, views):
    films = {"before": made_film(False, 5, 1, views), "after": made_film(True, 3, 2, views)}
    report.comparison(tmp_path / "start0001.mp4", films)
    back = report.read_comparison(tmp_path / "start0001.mp4")
    assert list(back) == ["before", "after"]
    for name, film in films.items():
        found = back[name]
        assert (found.steps, found.length, found.success) == (film.steps, film.length, film.success)
        for part in ("executed", "imagined"):
            a = getattr(film, part).astype(int)
            b = getattr(found, part).astype(int)
            assert a.shape == b.shape and np.abs(a - b).mean() < 12  # h264; another frame: 85


def test_an_episode_that_has_ended_stays_and_says_how():
    films = {"before": made_film(False, 5, 1), "after": made_film(True, 3, 2)}
    running, ended, later = (compose_films(films, i) for i in (1, 2, 3))
    half = running.shape[1] // 2
    footer = slice(-28, None)
    assert np.array_equal(ended[:, half:], later[:, half:])
    assert not np.array_equal(running[footer, half:], ended[footer, half:])
    assert not np.array_equal(ended[:, :half], later[:, :half])


def test_a_run_shows_a_state_that_it_has_gained(tmp_path):
    """The films are what each model does from that state; a run that gained none shows none."""
    cfg = replace(tiny.CONFIG, eval=replace(tiny.CONFIG.eval, episodes=STATES))
    flow = cfg.flow.at(1.0)
    with cfg.build_pool() as pool:
        found = []
        for seed in range(6):
            model = tiny.lively(seed)
            model.sampler = "ode"
            found.append(
                (model, evaluate(model, pool, cfg.eval, flow, seed=cfg.seed, sampler="ode"))
            )
        pairs = [(a, b) for a in found for b in found if (b[1].success & ~a[1].success).any()]
        assert pairs, "no two of the models differ: the test needs other models"
        (base, old), (wam, new) = pairs[0]
        states = (new.success & ~old.success).nonzero().flatten().tolist()
        folder = tmp_path / "compare"
        folder.mkdir()
        (folder / "start9999.mp4").write_bytes(b"of an earlier end")
        path = write_comparison(cfg, base, wam, pool, states, folder)
        assert [path] == list(folder.iterdir()) and int(path.stem.removeprefix("start")) in states
        index = int(path.stem.removeprefix("start"))
        films = report.read_comparison(path)
        assert [film.success for film in films.values()] == [False, True]
        lengths = [
            int(r.length[r.starts.index(InitialState(split="eval", index=index))])
            for r in (old, new)
        ]
        assert [film.length for film in films.values()] == lengths
        assert write_comparison(cfg, base, wam, pool, [], folder) is None
        assert not list(folder.iterdir())
        both = (old.success & new.success).nonzero().flatten().tolist()
        assert write_comparison(cfg, base, wam, pool, both, folder) is None


def test_gained_states_are_paired_by_their_index():
    def arm(starts: list[int], success: list[bool]):
        class Arm:
            pass

        made = Arm()
        made.starts = torch.tensor(starts)
        made.success = torch.tensor(success)
        return made

    before = arm([0, 1, 3, 4], [False, True, False, False])
    after = arm([1, 2, 3, 4], [True, True, True, False])
    assert gained(before, after) == [3]
