"""The plots of one run's log: learning, reward, imagination, updates, time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from wamrl.page.blocks import Key, Plot
from wamrl.page.facts import PHASES, Rows, Run
from wamrl.page.plots import (
    FEW,
    FROM_ZERO,
    ORDER,
    PER_CENT,
    Traces,
    Values,
    band,
    bars,
    curve,
    dots,
    figure,
    guide,
    known,
    success_curves,
)

ITERATION = "iteration"
REWARDS = {"reconstruction": "blue", "gain": "pink"}
BOTH = {"executed": "blue", "imagined": "red"}


def series(rows: Rows, key: str) -> list[float | None]:
    """None in rows without the number."""
    return [row.get(key) for row in rows]


def success_plot(run: Run) -> Plot:
    """Every evaluated model with its interval; beneath it the samplers that are not deployed."""
    rows = []
    small = {}
    colours = {"before": "grey", "after": "blue"}
    for arm in run.arms.values():
        low, high = arm.interval
        colour = colours.get(arm.name, "blue")
        rows.append((arm.name, 100 * arm.rate, 100 * low, 100 * high, colour))
        others = {name: rate for name, rate in arm.rates.items() if name != arm.sampler}
        small[arm.name] = [(f"sampler {name}", 100 * rate) for name, rate in others.items()]
    keys = (
        Key(label="deployed sampler, bar: Wilson 95 %", colour="blue", mark="dot"),
        Key(label="the other samplers, same states", colour="blue", mark="hollow"),
    )
    title = "Success on held-out initial states"
    return dots(rows, title=title, x="success, %", small=small, keys=keys)


def learning_plot(run: Run) -> Plot | None:
    """Evaluated and exploring success over episodes; None if nothing is logged."""
    curves, thin = run.curves()
    if not curves:
        return None
    return success_curves(
        curves,
        thin=thin,
        colours=dict.fromkeys(thin, "grey") | {"exploring (fresh training states)": "orange"},
        title="Success over what was played",
        x="online episodes so far",
        note="Bands and bars: Wilson 95 %.",
    )


def reward_plots(rows: Rows) -> list[Plot]:
    """Does the reward tell success from failure, and is it being gamed?"""
    rows = [row for row in rows if "diag/mean/reconstruction" in row]
    if not rows:
        return []
    return [_auc(rows), *_gaming(rows), *(_by_outcome(rows, name) for name in REWARDS)]


def _auc(rows: Rows) -> Plot:
    x = series(rows, "step")
    traces: Traces = []
    keys = []
    for name, colour in REWARDS.items():
        whole = series(rows, f"diag/auc/{name}")
        low = series(rows, f"diag/auc_low/{name}")
        high = series(rows, f"diag/auc_high/{name}")
        early = series(rows, f"diag/auc_early/{name}")
        more = bars(x, whole, low, high) if known(whole) < FEW else {}
        traces = band(x, low, high, colour) + traces
        traces += curve(x, whole, colour, name, **more)
        traces += curve(x, early, colour, f"{name}, early chunks", dash="dot")
        keys += [
            Key(label=f"{name} (band: 95 %)", colour=colour, mark=_mark(whole)),
            Key(label=f"{name}, early chunks", colour=colour, mark="dashed"),
        ]
    drawn = figure(
        traces,
        x=ITERATION,
        y="AUC",
        yaxis={"range": [-0.03, 1.03], "tickvals": [0, 0.25, 0.5, 0.75, 1]},
        shapes=[guide(0.5)],
    )
    note = "1: every success scores above every failure. 0.5: the reward cannot tell them apart."
    title = "Does the reward tell success from failure?"
    keys = tuple(keys)
    return Plot(title=title, figure=drawn, keys=keys, note=_gaps(traces, note), wide=True)


def _gaming(rows: Rows) -> list[Plot]:
    """Reconstruction and success over the same iterations, alarms marked in both."""
    alarms = [row["step"] for row in rows if row.get("diag/alarm")]
    line = {"color": "@red", "width": 1.5}
    marks = [
        {"type": "line", "yref": "paper", "x0": s, "x1": s, "y0": 0, "y1": 1, "line": line}
        for s in alarms
    ]
    said = (
        f"Alarm (vertical line) in {len(alarms)} of {len(rows)} iterations: the reward may be "
        "gamed."
        if alarms
        else "The alarm (reconstruction rises while success falls) was never given."
    )
    fresh = any("rollout/success_fresh" in row for row in rows)
    key = "rollout/success_fresh" if fresh else "rollout/success"
    success = [None if v is None else 100 * v for v in series(rows, key)]
    x = series(rows, "step")
    reward = series(rows, "diag/mean/reconstruction")
    states = "fresh training states" if fresh else "training states"
    return [
        Plot(
            title="Is the reward being gamed? Reconstruction",
            figure=figure(
                curve(x, reward, "blue", "reconstruction"),
                x=ITERATION,
                y="mean reconstruction, raw",
                shapes=marks,
            ),
            note=said,
        ),
        Plot(
            title="Is the reward being gamed? Success",
            figure=figure(
                curve(x, success, "green", "success", unit=" %"),
                x=ITERATION,
                y="success, %",
                yaxis=PER_CENT,
                shapes=marks,
            ),
            note=f"Exploring, on {states}, over the same iterations.",
        ),
    ]


def _by_outcome(rows: Rows, name: str) -> Plot:
    curves = {
        f"diag/mean_success/{name}": ("successes", "green"),
        f"diag/mean_failure/{name}": ("failures", "red"),
    }
    title = f"Mean score by outcome: {name}"
    return _lines(rows, curves, title, "raw reward, mean over chunks", from_zero=False)


def imagination_plots(rows: Rows) -> list[Plot]:
    """Is what is imagined right, alive and sharp, and how far have the features drifted?"""
    rows = [row for row in rows if any(k.startswith(("world/copy_", "diag/")) for k in row)]
    if not rows:
        return []
    plots = []
    copied = _family(rows, "world/copy_ratio/", "{} control steps ahead")
    if copied:
        note = "Below 1 the world model predicts better than a copy of the last frame."
        title = "Error of the imagination, over copying"
        plots.append(_lines(rows, copied, title, "error / error of a copy", at=1, note=note))
    for name, unit in (
        ("motion", "MSE to the last frame"),
        ("sharpness", "variance of the Laplacian"),
    ):
        curves = {f"diag/{name}/{part}": (part, colour) for part, colour in BOTH.items()}
        plots.append(_lines(rows, curves, f"{name.capitalize()} of the frames", unit))
    drift = _family(rows, "diag/drift/", "{}")
    if drift:
        note = "Against the frozen base, on the same input and noise."
        unit = "|z - z₀|² / variance"
        plots.append(_lines(rows, drift, "Drift of the features", unit, note=note))
    return plots


def update_plots(run: Run) -> list[Plot]:
    """What the updates did: the policy's step, the losses."""
    rows = [row for row in run.rows if "rollout/episodes" in row]
    groups = (
        ("Policy step", "KL, nats per noisy transition", {"actor/kl": ("KL", "blue")}),
        (
            "Clipped transitions, explained variance",
            "share",
            {
                "actor/clip_fraction": ("clipped", "red"),
                "actor/explained_variance": ("explained variance", "green"),
            },
        ),
        (
            "Losses of the world-model update",
            "loss",
            {"world/video_loss": ("video", "blue"), "cotrain/action_loss": ("actions", "orange")},
        ),
        (
            "States that can teach",
            "share",
            {"rollout/mixed_outcome": ("states with both outcomes", "pink")},
        ),
    )
    plots = [
        _lines(rows, curves, title, unit)
        for title, unit, curves in groups
        if any(key in row for row in rows for key in curves)
    ]
    return plots


def sft_plots(rows: Rows) -> list[Plot]:
    """The losses while the model learned from demonstrations."""
    rows = [row for row in rows if "sft/action_loss" in row]
    if not rows:
        return []
    first = rows[0]["step"]
    moved = [row | {"step": row["step"] - first} for row in rows]
    curves = {"sft/action_loss": ("actions", "orange"), "sft/video_loss": ("video", "blue")}
    return [_lines(moved, curves, "Losses on demonstrations", "loss", x="gradient step")]


def time_plot(run: Run) -> Plot | None:
    """Seconds of each iteration by phase, stacked; None if nothing was timed."""
    rows = [row for row in run.rows if any(f"time/{phase}" in row for phase in PHASES)]
    if not rows:
        return None
    x = series(rows, "step")
    traces = []
    keys = []
    for (phase, what), colour in zip(PHASES.items(), ORDER, strict=False):
        if not known(y := series(rows, f"time/{phase}")):
            continue
        traces.append(
            {
                "type": "bar",
                "x": x,
                "y": y,
                "name": phase,
                "marker": {"color": f"@{colour}"},
                "hovertemplate": f"iteration %{{x}}, {phase}: %{{y:.1f}} s<extra></extra>",
            }
        )
        keys.append(Key(label=what, colour=colour, mark="band"))
    drawn = figure(traces, x=ITERATION, y="seconds", barmode="stack", bargap=0.15)
    return Plot(title="Time of each iteration", figure=drawn, keys=tuple(keys), wide=True)


def _family(rows: Rows, prefix: str, label: str) -> dict[str, tuple[str, str]]:
    """All metrics whose names begin so, for `_lines`."""
    keys = dict.fromkeys(key for row in rows for key in row if key.startswith(prefix))
    return {
        key: (label.format(key.removeprefix(prefix)), ORDER[i % len(ORDER)])
        for i, key in enumerate(keys)
    }


def _lines(
    rows: Rows,
    curves: Mapping[str, tuple[str, str]],
    title: str,
    unit: str,
    *,
    x: str = ITERATION,
    at: float | None = None,
    note: str = "",
    from_zero: bool = True,
) -> Plot:
    """One line per metric: key -> (label, colour)."""
    steps = series(rows, "step")
    traces: Traces = []
    keys = []
    for key, (label, colour) in curves.items():
        values: Values = series(rows, key)
        if known(values):
            traces += curve(steps, values, colour, label)
            keys.append(Key(label=label, colour=colour, mark=_mark(values)))
    shapes = [] if at is None else [guide(at)]
    axis = FROM_ZERO if from_zero else {}
    drawn = figure(traces, x=x, y=unit, yaxis=axis, shapes=shapes)
    return Plot(
        title=title,
        figure=drawn,
        keys=tuple(keys) if len(curves) > 1 else (),
        note=_gaps(traces, note),
    )


def _mark(values: Values) -> Literal["line", "dot"]:
    """As `curve` draws them: marks alone where they are too few for a line."""
    return "line" if known(values) >= FEW else "dot"


def _gaps(traces: Traces, note: str) -> str:
    """The note, and that numbers are missing where they are."""
    gap = ""
    if any(None in trace["y"] for trace in traces):
        gap = "Gaps: iterations in which the number is not defined."
    if not any(known(trace["y"]) for trace in traces):
        gap = "Empty: the number is defined in no iteration."
    return " ".join(part for part in (note, gap) if part)
