"""The squares of a scatter with matplotlib: the area of a point says how many prompts lie there."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from flipguard.curves.draw import COLOURS, DPI, INK, new_figure, our_style, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from flipguard.curves.scatter import Points
    from flipguard.records import Moved

SIDE = 3.6  # inches
LEAST, MOST = 9.0, 900.0  # points²: of one prompt among many, of all prompts at one place
STYLES: tuple[tuple[Moved, str, str, str], ...] = (
    ("tie", "o", "#999999", "as good"),
    ("positive_flip", "^", COLOURS[0], "better"),
    ("negative_flip", "v", COLOURS[1], "worse"),
)
"""How a pair went, its mark, its colour, its word; the last lie on top."""


def draw(parts: Sequence[Points], *, margin: float) -> bytes:
    """The picture, as the bytes of a PNG.

    Args:
        parts: one square each.
        margin: half the width of the band around the diagonal.
    """
    low, high = _limits(parts)
    with our_style():
        columns = min(3, len(parts))
        rows = math.ceil(len(parts) / columns)
        figure = new_figure(SIDE * columns, (SIDE + 0.35) * rows)
        for number, part in enumerate(parts):
            axes = figure.add_subplot(rows, columns, number + 1)
            _draw_square(axes, part, (low, high), margin)
            axes.set_xlabel("score before", color=INK)
            if number % columns == 0:
                axes.set_ylabel("score after", color=INK)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=DPI, pil_kwargs={"optimize": True})
    return buffer.getvalue()


def _limits(parts: Sequence[Points]) -> tuple[float, float]:
    scores = [score for part in parts for old, new, _ in part.counts for score in (old, new)]
    low, high = min(scores), max(scores)
    room = 0.09 * (high - low) or 0.09 * abs(low) or 1.0
    return low - room, high + room


def _draw_square(axes: Axes, part: Points, limits: tuple[float, float], margin: float) -> None:
    axes.set_title(
        f"{shortened(part.name)}, {part.n:,} prompts",
        loc="left",
        fontsize=10,
        fontweight="bold",
        parse_math=False,
        pad=19,
    )
    ends = list(limits)
    axes.fill_between(ends, [end - margin for end in ends], [end + margin for end in ends], color="#eeeeee", zorder=0)
    axes.plot(ends, ends, color="#aaaaaa", linewidth=0.9, zorder=1)
    for way, mark, colour, _ in STYLES:
        found = [(old, new, count) for (old, new, gone), count in part.counts.items() if gone == way]
        if found:
            areas = [max(LEAST, MOST * count / part.n) for *_, count in found]
            olds, news = [old for old, *_ in found], [new for _, new, _ in found]
            axes.scatter(
                olds, news, s=areas, marker=mark, color=colour, alpha=0.6, linewidth=0.4, edgecolor="white", zorder=2
            )
    axes.set(xlim=limits, ylim=limits)
    axes.set_box_aspect(1)
    axes.tick_params(length=0, colors=INK, labelsize=8.5)
    for way, _, colour, word in STYLES:
        if way != "tie":
            left = way == "positive_flip"
            axes.text(
                0.0 if left else 1.0,
                1.02,  # above the square, whose corners are where points lie
                f"{'▲' if left else '▼'} {word} {part.share(way):.1%} ({part.number(way):,})",
                transform=axes.transAxes,
                ha="left" if left else "right",
                color=colour,
                fontsize=8.5,
            )
