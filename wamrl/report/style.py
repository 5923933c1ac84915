"""The one look of all figures: fonts, colours, lines, where legends stand, how large a file is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from wamrl.runtime.files import atomic_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, distinguishable without red-green vision
BLUE = "#0072b2"
ORANGE = "#e69f00"
GREEN = "#009e73"
RED = "#d55e00"
PINK = "#cc79a7"
SKY = "#56b4e9"
GREY = "#888888"
COLOURS = (BLUE, RED, GREEN, PINK, ORANGE, SKY)  # of curves that have no colour of their own

PER_CENT = (-2, 102)  # limits of an axis of per cents, so that markers at its ends are whole
BAND = 0.16  # opacity of an interval
THIN = {"linewidth": 0.9, "color": "#555555"}  # of curves in the background
GUIDE = {"color": GREY, "linewidth": 1, "linestyle": ":"}  # a value to compare with

_RC = {
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.5,
    "lines.markersize": 4,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.title_fontsize": 9,
}


@contextmanager
def saved_figure(
    path: Path, width: float, height: float, dots_per_inch: int = 130
) -> Iterator[Figure]:
    """An empty figure of `width` x `height` inches to draw on; afterwards it is a PNG at `path`.

    Nothing is written if the block raises.
    """
    with new_figure(width, height, dots_per_inch) as figure, atomic_file(path) as draft:
        yield figure
        figure.draw_without_rendering()  # ticks depend on the layout, and the layout on the ticks
        figure.savefig(draft, format="png")


@contextmanager
def new_figure(width: float, height: float, dots_per_inch: int = 130) -> Iterator[Figure]:
    """An empty figure of `width` x `height` inches; within the block it gets the look of all."""
    # slow to import, and needs no display
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    look = _RC | {"axes.prop_cycle": matplotlib.cycler(color=COLOURS)}
    with matplotlib.rc_context(look):
        figure = Figure(figsize=(width, height), dpi=dots_per_inch, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure


def legend_below(axes: Axes, columns: int = 2, **options) -> None:
    """The legend under the label of the x axis, where it covers no data; none without curves."""
    handles, labels = axes.get_legend_handles_labels()
    handles = options.pop("handles", handles)
    labels = options.pop("labels", labels)
    if handles:
        where = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.16)}
        axes.legend(handles, labels, ncols=columns, **where, **options)


def legend_beside(axes: Axes) -> None:
    """The legend at the right of the axes, for a dozen curves; none without curves."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))


def count_axis(axes: Axes) -> None:
    """Whole numbers on the x axis."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
