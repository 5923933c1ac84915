"""Figures as the plotting library's JSON. Colours are names, since a page is light or dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wamrl.page.blocks import Key, Plot
from wamrl.report import Point
from wamrl.report.style import BAND, BLUE, GREEN, GREY, ORANGE, PINK, RED, SKY
from wamrl.stats.paired import wilson

# Of curves and marks; style.py's, distinguishable without red-green vision, on paper and on slate.
PALETTE = {
    "blue": BLUE,
    "red": RED,
    "green": GREEN,
    "pink": PINK,
    "orange": ORANGE,
    "sky": SKY,
    "grey": GREY,
}
ORDER = tuple(PALETTE)
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "pentagon", "star")
FEW = 3  # points that a line needs: two are a before and an after, and no curve
MOST_TICKS = 8  # that fit on a phone
Values = Sequence[float | None]
Traces = list[dict[str, Any]]


def figure(traces: Traces, *, x: str, y: str, height: int = 260, **layout: Any) -> dict[str, Any]:
    """x, y: labels of the axes, with units. layout: more of the library's own."""
    axis = {"automargin": True, "zeroline": False, "exponentformat": "power"}
    base: dict[str, Any] = {
        "height": height,
        "showlegend": False,
        "hovermode": "closest",
        "margin": {"l": 56, "r": 16, "t": 10, "b": 48},
        "xaxis": axis | {"title": {"text": x, "standoff": 8}} | _whole_ticks(traces),
        "yaxis": axis | {"title": {"text": y, "standoff": 8}},
        "shapes": [],
    }
    for key, value in layout.items():
        base[key] = base[key] | value if isinstance(base.get(key), dict) else value
    return {"data": traces, "layout": base}


def _whole_ticks(traces: Traces) -> dict[str, Any]:
    """Of an x axis that counts a few things, such as iterations: a tick at each, none between."""
    there = [x for trace in traces for x in trace["x"]]
    few = there and max(there) - min(there) <= MOST_TICKS
    return {"dtick": 1} if few and all(float(x).is_integer() for x in there) else {}


def known(values: Values) -> int:
    """How many are numbers."""
    return sum(value is not None for value in values)


def curve(
    x: Values, y: Values, colour: str, name: str, *, dash: str = "solid", unit: str = "", **more
) -> Traces:
    """A line with a mark at each point and a gap where the number is missing; marks alone where
    there are too few for a line.
    """
    look = {"color": f"@{colour}"}
    mode = "lines+markers" if known(y) >= FEW else "markers"
    if len(y) > 60 and mode != "markers":
        mode = "lines"
    return [
        {
            "type": "scatter",
            "x": list(x),
            "y": list(y),
            "mode": mode,
            "name": plain(name),
            "line": look | {"width": 2, "dash": dash},
            "marker": look | {"size": 5 if mode != "markers" else 8},
            "connectgaps": False,
            "hovertemplate": f"{hover_name(name)}: %{{y:.4~g}}{unit}<extra></extra>",
        }
        | more
    ]


def band(x: Values, low: Values, high: Values, colour: str) -> Traces:
    """An interval behind a line; none where a number is missing."""
    whole = [p for p in zip(x, low, high, strict=True) if None not in p]
    if len(whole) < FEW:
        return []
    there = [p[0] for p in whole]
    return [
        {
            "type": "scatter",
            "x": there + there[::-1],
            "y": [p[1] for p in whole] + [p[2] for p in whole][::-1],
            "fill": "toself",
            "fillcolor": f"@{colour}/{BAND}",
            "line": {"width": 0},
            "mode": "lines",
            "hoverinfo": "skip",
        }
    ]


def bars(x: Values, y: Values, low: Values, high: Values, axis: str = "error_y") -> dict[str, Any]:
    """`more` of a trace: its interval as a bar at each point."""
    size = x if axis == "error_x" else y
    ends = list(zip(size, low, high, strict=True))
    missing = [None in p for p in ends]
    return {
        axis: {
            "type": "data",
            "symmetric": False,
            "array": [0 if gap else p[2] - p[0] for p, gap in zip(ends, missing, strict=True)],
            "arrayminus": [0 if gap else p[0] - p[1] for p, gap in zip(ends, missing, strict=True)],
            "thickness": 2,
            "width": 0,
        }
    }


def guide(y: float) -> dict[str, Any]:
    """A shape: the value to compare with."""
    line = {"color": "@grey", "width": 1, "dash": "dot"}
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": y, "y1": y, "line": line}


PER_CENT = {"range": [-3, 103], "tickmode": "array", "tickvals": [0, 25, 50, 75, 100]}
COUNTS = {"rangemode": "tozero", "tickformat": "~s"}
FROM_ZERO = {"rangemode": "tozero"}


def success_curves(
    curves: Mapping[str, Sequence[Point]],
    *,
    thin: Sequence[str] = (),
    colours: Mapping[str, str] | None = None,
    title: str,
    x: str,
    note: str = "",
) -> Plot:
    """Success over x with Wilson's 95 % bands; `thin` ones dashed and without."""
    traces: Traces = []
    keys = []
    for i, (name, points) in enumerate(curves.items()):
        colour = (colours or {}).get(name, ORDER[i % len(ORDER)])
        here = [p for p in points if p.episodes]
        at = [p.x for p in here]
        rates = [100 * p.successes / p.episodes for p in here]
        ends = [wilson(p.successes, p.episodes) for p in here]
        low = [100 * e[0] for e in ends]
        high = [100 * e[1] for e in ends]
        few = len(here) < FEW
        if name in thin:
            traces = curve(at, rates, colour, name, dash="dot", unit=" %") + traces
        else:
            traces = band(at, low, high, colour) + traces
            more = bars(at, rates, low, high) if few else {}
            traces += curve(at, rates, colour, name, unit=" %", **more)
        if name not in thin:
            keys.append(Key(label=name, colour=colour, mark="dot" if few else "line"))
    if thin:
        label = "each sampler, whichever was deployed (hover says which)"
        keys.append(Key(label=label, colour="grey", mark="dashed"))
    drawn = figure(traces, x=x, y="success, %", height=330, yaxis=PER_CENT, xaxis=COUNTS)
    return Plot(title=title, figure=drawn, keys=tuple(keys), note=note, wide=True)


def dots(
    rows: Sequence[tuple[str, float, float, float, str]],
    *,
    title: str,
    x: str,
    small: Mapping[str, Sequence[tuple[str, float]]] | None = None,
    keys: tuple[Key, ...] = (),
    note: str = "",
) -> Plot:
    """A dot with its 95 % interval in each row: (name, value, low, high, colour), in per cent.

    small: by row, further values with what they are, drawn hollow beneath it.
    """
    height = len(rows)
    traces: Traces = []
    for i, (name, value, low, high, colour) in enumerate(rows):
        y = height - i
        traces += curve(
            [value], [y], colour, name, **bars([value], [y], [low], [high], axis="error_x")
        )
        ends = f"95 % interval {low:.1f} to {high:.1f}"
        hover = f"{hover_name(name)}: {value:.1f} %, {ends}<extra></extra>"
        traces[-1] |= {"hovertemplate": hover, "marker": {"color": f"@{colour}", "size": 11}}
        for what, rate in (small or {}).get(name, ()):
            traces += curve([rate], [y - 0.27], colour, name)
            hollow = {"size": 7, "symbol": "circle-open", "color": f"@{colour}"}
            hover = f"{hover_name(name)}, {hover_name(what)}: {rate:.1f} %<extra></extra>"
            traces[-1] |= {"marker": hollow, "hovertemplate": hover}
    text = {"x": 0, "xref": "paper", "xanchor": "left", "showarrow": False, "yanchor": "middle"}
    names = [
        text | {"y": height - i + 0.38, "text": plain(row[0]), "font": {"color": "@soft"}}
        for i, row in enumerate(rows)
    ]
    drawn = figure(traces, x=x, y="", height=90 + 56 * height, xaxis=PER_CENT, annotations=names)
    drawn["layout"]["yaxis"] = {"range": [0.4, height + 0.6], "visible": False}
    drawn["layout"]["margin"] |= {"l": 14, "r": 14}
    return Plot(title=title, figure=drawn, keys=keys, note=note, wide=True)


def plain(text: str) -> str:
    """As the plotting library, which reads some tags, shall show it: letter by letter."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def hover_name(text: str) -> str:
    """The same within a template, where `%{...}` would be filled in."""
    return plain(text).replace("%", "&#37;")
