"""Small multiples with matplotlib: names stand at their lines, in colours that colour-blind people tell apart."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from flipguard.errors import FlipGuardError

try:
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.ticker import MaxNLocator, PercentFormatter
except ModuleNotFoundError as error:
    raise FlipGuardError(f"needs the package {error.name!r}. Install it with: pip install 'flipguard[plot]'") from None

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from flipguard.curves.history import Run
    from flipguard.curves.plot import Panel

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#8C6D1F", "#56B4E9", "#5D3A9B", "#333333")
"""Okabe and Ito's, the light ones darkened so that a label in them can be read."""
INK, FAINT = "#333333", "#dddddd"
WIDTH, ROW, DPI = 8.6, 2.25, 130
LABEL_GAP = 0.105  # of a panel's height, between two labels
NAME = 22  # letters of a label; a longer name loses its middle


def draw(runs: Sequence[Run], panels: Sequence[Panel]) -> bytes:
    """The picture, as the bytes of a PNG.

    Args:
        runs: one line each, at most as many as there are colours.
        panels: one small picture each.
    """
    with our_style():
        columns = min(2, len(panels))
        rows = math.ceil(len(panels) / columns)
        size = (WIDTH * columns / 2, ROW * rows + 0.2)
        figure = new_figure(*size)
        for number, panel in enumerate(panels):
            axes = figure.add_subplot(rows, columns, number + 1)
            _draw_panel(axes, runs, panel)
            if number >= len(panels) - columns:
                axes.set_xlabel("step", color=INK)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", pil_kwargs={"optimize": True})
    return buffer.getvalue()


@contextmanager
def our_style() -> Iterator[None]:
    """The same look whatever the user's settings; a name in letters that the font has not is boxes, no warning."""
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        mpl.rcParams |= {"font.size": 9, "text.color": INK, "axes.edgecolor": FAINT}
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty picture of this size in inches, which needs no screen."""
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1)
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white", layout=layout)
    FigureCanvasAgg(figure)
    return figure


def _draw_panel(axes: Axes, runs: Sequence[Run], panel: Panel) -> None:
    axes.set_title(panel.title, loc="left", fontsize=10, fontweight="bold", parse_math=False)
    ends = []
    for run, colour in zip(runs, COLOURS, strict=False):
        trained, tested = (_finite(run.metrics.get(name, {})) for name in (panel.metric, f"eval_{panel.metric}"))
        _draw_line(axes, run.metrics.get(panel.metric, {}), colour)
        axes.plot(
            list(tested), list(tested.values()), ":o", color=colour, linewidth=1, markersize=4, markerfacecolor="white"
        )
        if series := trained or tested:
            step = max(series)
            ends.append((run.name, colour, step, series[step]))
    _style(axes, panel)
    _label(axes, ends)


def _draw_line(axes: Axes, series: dict[int, float], colour: str) -> None:
    """A line with gaps where a value is not finite; a value between two gaps is a dot."""
    steps = list(series)
    values = [value if math.isfinite(value) else math.nan for value in series.values()]
    alone = [
        number
        for number in range(len(values))
        if all(math.isnan(value) for value in [*values[max(0, number - 1) : number], *values[number + 1 : number + 2]])
    ]
    axes.plot(
        steps, values, color=colour, linewidth=1.8, solid_capstyle="round", marker="o", markersize=4, markevery=alone
    )


def _finite(series: dict[int, float]) -> dict[int, float]:
    return {step: value for step, value in series.items() if math.isfinite(value)}


def _style(axes: Axes, panel: Panel) -> None:
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="y", color=FAINT, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, colors=INK, labelsize=8.5)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
    axes.margins(x=0.02, y=0.08)
    low, high = axes.get_ylim()
    if panel.share:
        axes.set_ylim(bottom=min(0, low), top=high)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    if low < 0 < high:
        axes.axhline(0, color="#aaaaaa", linewidth=0.9, zorder=1)


def _label(axes: Axes, ends: list[tuple[str, str, int, float]]) -> None:
    """The name of each line beside its end, moved apart where lines end together."""
    low, high = axes.get_ylim()
    ends = sorted(ends, key=lambda end: end[3])
    heights = _apart([(value - low) / (high - low) for *_, value in ends], LABEL_GAP)
    for (name, colour, step, value), height in zip(ends, heights, strict=True):
        axes.annotate(
            shortened(name),
            xy=(step, value),
            xytext=(1.04, height),
            textcoords="axes fraction",
            color=colour,
            fontsize=8.5,
            va="center",
            annotation_clip=False,
            parse_math=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6, "alpha": 0.5, "shrinkA": 1, "shrinkB": 2},
        )


def _apart(heights: list[float], gap: float) -> list[float]:
    """Ascending heights, moved as little as it takes to keep `gap` between them, around their common middle."""
    placed: list[list[float]] = []  # groups of neighbours that touch
    for height in heights:
        placed.append([height])
        while len(placed) > 1 and _bottom(placed[-1], gap) - _top(placed[-2], gap) < gap:
            placed[-2:] = [placed[-2] + placed[-1]]
    return [_bottom(group, gap) + number * gap for group in placed for number in range(len(group))]


def _bottom(group: list[float], gap: float) -> float:
    return sum(group) / len(group) - gap * (len(group) - 1) / 2


def _top(group: list[float], gap: float) -> float:
    return _bottom(group, gap) + gap * (len(group) - 1)


def shortened(name: str) -> str:
    """A name that fits; what cannot be printed is a question mark."""
    name = "".join(letter if letter.isprintable() else "?" for letter in name)
    return name if len(name) <= NAME else f"{name[: NAME // 2 - 1]}…{name[-NAME // 2 :]}"
