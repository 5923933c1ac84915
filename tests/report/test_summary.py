import json
import math

import av
import numpy as np
import pytest
from matplotlib.image import imread
from scipy.stats import binom

from wamrl.report import (
    Point,
    arm,
    learning_curve,
    paired_difference,
    ratio_text,
    read_summary,
    run_curves,
    side_by_side,
    wilson,
    write_summary,
)


def test_wilson_against_the_formula():
    for k, n in ((0, 10), (7, 10), (78, 100), (100, 100)):
        z, p = 1.959963984540054, k / n
        middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        expected = ((middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n))
        assert wilson(k, n) == pytest.approx(expected, abs=1e-12)
    assert wilson(0, 0) == (0, 1)
    with pytest.raises(ValueError, match="11 successes in 10"):
        wilson(11, 10)


def test_paired_difference_counts_and_tests():
    before = np.array([0] * 20 + [1] * 5 + [1] * 40 + [0] * 35, bool)
    after = np.array([1] * 20 + [0] * 5 + [1] * 40 + [0] * 35, bool)
    pair = paired_difference(before, after)
    assert (pair.gained, pair.lost, pair.episodes, pair.method) == (20, 5, 100, "BCa")
    assert pair.difference == pytest.approx(0.15) == pytest.approx(pair.after - pair.before)
    assert pair.p_value == pytest.approx(2 * binom.cdf(5, 25, 0.5))
    normal = 1.96 * math.sqrt((25 / 100 - 0.15**2) / 100)
    assert (pair.low, pair.high) == pytest.approx((0.15 - normal, 0.15 + normal), abs=0.02)
    back = paired_difference(after, before)
    assert back.difference == -pair.difference and back.high < 0
    assert pair == paired_difference(before, after)  # the same resamples


def test_the_interval_covers_as_often_as_it_says():
    rng, hits = np.random.default_rng(0), 0
    for trial in range(60):
        before = rng.random(80) < 0.5
        # true difference 0.3 * (0.8 - 0.5)
        after = np.where(rng.random(80) < 0.3, rng.random(80) < 0.8, before)
        pair = paired_difference(before, after, seed=trial)
        hits += pair.low <= 0.09 <= pair.high
    assert hits >= 51  # 57 expected, sd 1.7


def test_degenerate_and_impossible_pairs():
    for change in ((0, 0), (0, 1), (1, 0)):
        pair = paired_difference(np.full(5, change[0]), np.full(5, change[1]))
        assert (
            pair.method == "degenerate"
            and pair.low == pair.high == pair.difference == change[1] - change[0]
        )
        assert pair.p_value == (1 if change == (0, 0) else 2 / 32)
    few = paired_difference(np.zeros(3), np.array([0, 0, 1]))
    assert math.isfinite(few.low) and few.low <= few.difference <= few.high
    for before, after in (([1, 0], [1]), ([], [])):
        with pytest.raises(ValueError, match="no pairs"):
            paired_difference(np.array(before), np.array(after))


def test_a_ratio_that_was_not_measured_is_a_dash():
    assert ratio_text({4: 0.7, 8: math.nan, "12": None}) == "+4: 0.70, +8: -, +12: -"


def test_summary_round_trip(tmp_path):
    success = np.array([True, False, True, True])
    kind = {"task": "point", "stages": 1, "seed": 0}
    base = arm(
        **kind,
        success=success,
        length=np.array([3, 9, 4, 4]),
        error_over_copy={4: 0.7, 8: math.nan},
    )
    none = arm(**kind, success=success[:0], length=success[:0], error_over_copy={})
    pair = paired_difference(success, ~success)
    write_summary(
        tmp_path / "summary.json",
        {"base": base, "none": none},
        {"base->none": pair},
        machine=np.int64(2),
    )
    back = read_summary(tmp_path / "summary.json")
    assert back["arms"]["base"] == base | {
        "wilson95": list(wilson(3, 4)),
        "error_over_copy": {"4": 0.7, "8": None},
    }
    assert (
        back["arms"]["base"]["mean_length"] == 5
        and back["arms"]["none"]["rate"] is None
        and back["machine"] == 2
    )
    assert (
        back["paired"]["base->none"]["gained"] == 1
        and "NaN" not in (tmp_path / "summary.json").read_text()
    )
    assert json.loads(json.dumps(back)) == back and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(ValueError, match="run the evaluation again"):
        read_summary(tmp_path / "other.json")


def _decode(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        return [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(stream)]


def test_video_shows_both_halves_in_their_place(tmp_path):
    left, right = (np.zeros((3, 2, 63, 64, 3), np.uint8) for _ in range(2))
    left[..., 0], right[..., 2] = 220, 220  # imagined red, executed blue
    left[1:], right[1:] = 90, 90
    real = np.array([True, True, False])
    side_by_side(
        tmp_path / "v.mp4", right, left, captions=["+4", "+8", "+12"], outcome="success", real=real
    )
    first, second, third = _decode(tmp_path / "v.mp4")
    height, width, _ = first.shape
    assert height % 2 == width % 2 == 0 and width >= 2 * 256
    for row in (height // 4, 3 * height // 4):  # a row per view
        red, blue = first[row, width // 4], first[row, 3 * width // 4]
        assert red[0] > 180 and red[2] < 60 and blue[2] > 180 and blue[0] < 60
        assert abs(second[row, width // 4] - second[row, 3 * width // 4]).max() < 8
        assert abs(third[row, 3 * width // 4] - 90).min() > 15  # no executed frame: greyed
    for text in (first[:28, : width // 2], first[:28, width // 2 :], first[-28:]):
        assert text.max() > 180
    green = first[-28:].reshape(-1, 3).astype(int)
    assert (green[:, 1] - green[:, 0]).max() > 60
    assert [p.name for p in tmp_path.iterdir()] == ["v.mp4"]


def test_video_complaints(tmp_path):
    frames = np.zeros((2, 1, 8, 8, 3), np.uint8)
    for left, right, more in (
        (frames, frames[:1], {}),
        (frames[:0], frames[:0], {}),
        (frames, frames.astype(float), {}),
        (frames, frames, {"captions": ["a"]}),
    ):
        with pytest.raises(ValueError):
            side_by_side(tmp_path / "v.mp4", left, right, **more)
    assert not list(tmp_path.iterdir())


def test_learning_curve_draws_every_curve(tmp_path):
    points = [Point(x=i, successes=3 * i, episodes=30) for i in range(8)]
    single = [Point(x=4, successes=5, episodes=10), Point(x=5, successes=0, episodes=0)]
    learning_curve(
        tmp_path / "c.png", {"rollouts": points, "eval": single, "none": []}, title="point"
    )
    picture = imread(tmp_path / "c.png")
    assert picture.shape[0] > 400 and picture.shape[1] > 700
    with pytest.raises(ValueError, match="no episode"):
        learning_curve(tmp_path / "d.png", {"none": []})


def row(step: int, episodes: int = 0, **values) -> dict:
    line = {"step": step} | ({"rollout/episodes": episodes} if episodes else {})
    return line | {name.replace("__", "/"): value for name, value in values.items()}


def evaluated(sampler: float, success: float, n: float = 10.0, **others) -> dict:
    rates = {f"eval/success/{name}": rate for name, rate in others.items()}
    return {"eval/sampler": sampler, "eval/success": success, "eval/episodes": n} | rates


LOG = [
    row(0) | {"heldout/copy_ratio/4": 0.5},
    row(0) | evaluated(1.0, 0.25, 4.0, explore=0.0, ode=0.25, zero=0.5),
    row(1, 32, rollout__success_fresh=0.5, rollout__fresh=20.0),
    row(2, 30, rollout__success_fresh=None, rollout__fresh=0.0)
    | evaluated(1.0, 0.5, ode=0.5, zero=0.1),
    row(3, 32, rollout__success_fresh=0.75, rollout__fresh=4.0),
    row(3) | evaluated(1.0, 1.0, 4.0, explore=0.5, ode=1.0, zero=0.0),
]


def test_the_curves_of_a_run_stand_where_its_episodes_were():
    """An evaluation comes after its iteration's episodes;
    these show what those before them have taught.
    """
    curves, thin = run_curves(LOG, ("explore", "ode", "zero"))
    assert thin == ("sampler 'explore'", "sampler 'zero'")
    main = "evaluated, sampler 'ode' (held-out states)"
    assert list(curves) == [main, *thin, "exploring (fresh training states)"]
    assert curves[main] == [
        Point(x=0, successes=1, episodes=4),
        Point(x=62, successes=5, episodes=10),
        Point(x=94, successes=4, episodes=4),
    ]
    assert [p.x for p in curves["sampler 'explore'"]] == [0, 94]
    exploring = curves["exploring (fresh training states)"]
    assert exploring == [
        Point(x=0, successes=10, episodes=20),
        Point(x=62, successes=3, episodes=4),
    ]


def test_where_the_deployed_sampler_changed_all_three_are_drawn():
    changed = [*LOG[:-1], row(3) | evaluated(2.0, 0.0, 4.0, explore=0.5, ode=1.0, zero=0.0)]
    curves, thin = run_curves(changed, ("explore", "ode", "zero"))
    assert thin == ("sampler 'explore'", "sampler 'ode'", "sampler 'zero'")
    assert next(iter(curves)) == "evaluated, deployed sampler (held-out states)"


def test_a_log_without_evaluations_shows_exploration():
    curves, _ = run_curves(LOG[2:3], ("explore", "ode", "zero"))
    assert list(curves) == ["exploring (fresh training states)"]


def test_thin_lines_have_no_band(tmp_path):
    """Of two curves with wide intervals, the one drawn thin leaves its surroundings white."""
    points = [Point(x=i, successes=5, episodes=10) for i in range(3)]
    tinted = {}
    for thin in ((), ("a",)):
        path = tmp_path / f"{len(thin)}.png"
        learning_curve(path, {"a": points}, thin=thin)
        picture = imread(path)[..., :3]
        tinted[thin] = float((picture.max(-1) - picture.min(-1) > 0.05).mean())
    assert tinted[()] > 0.1 > 0.01 > tinted[("a",)]
