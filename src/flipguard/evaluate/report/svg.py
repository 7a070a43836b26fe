"""Intervals drawn from plain numbers: markup with classes for colours, so that the page decides about light and dark.

They are drawn in percent of the width, without a viewBox: they stretch while their text keeps its size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from flipguard.evaluate.report.formatting import exact
from flipguard.evaluate.report.text import clean


def safe(value: str) -> str:
    """Data as SVG text or attribute value."""
    return escape(clean(value))


@dataclass(frozen=True, slots=True)
class Axis:
    """A range of values and where each lies, in percent of the width; the rest is room for labels."""

    low: float
    high: float

    def at(self, value: float) -> str:
        """The place of a value, kept within the drawing."""
        span = (self.high - self.low) or 1.0
        share = min(max((value - self.low) / span, 0.0), 1.0)
        return f"{3 + 93 * share:.2f}%"

    def ticks(self, most: int = 6) -> list[float]:
        """Round values within the range, at most about `most`."""
        step = _round_step((self.high - self.low) / most)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [round(number * step, 12) for number in range(first, last + 1)]


def _round_step(rough: float) -> float:
    """The next step of 1, 2 or 5 times a power of ten."""
    if rough <= 0 or not math.isfinite(rough):
        return 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)


def share_axis(values: Iterable[float | None]) -> Axis:
    """From 0 to a little above the largest share, never beyond 100 %."""
    largest = max((value for value in values if value is not None), default=0.0)
    return Axis(0.0, min(1.0, max(1.12 * largest, 0.01)))


def _open(name: str, height: int, title: str, description: str = "") -> str:
    """The start of a drawing as wide as its place, named for those who do not see it."""
    words = f"<desc>{safe(description)}</desc>" if description else ""
    return (
        f'<svg class="{name}" width="100%" height="{height}" role="img" aria-label="{safe(title)}" '
        f'focusable="false"><title>{safe(title)}</title>{words}'
    )


def _line(name: str, start: str, end: str, top: float, bottom: float) -> str:
    return f'<line class="{name}" x1="{start}" x2="{end}" y1="{top:g}" y2="{bottom:g}"/>'


@dataclass(frozen=True, slots=True)
class Interval:
    """A share with both ends of its interval; value is None where nothing is known."""

    value: float | None
    low: float
    high: float


def strip(nfr: Interval, *, upper: float, limit: float | None, floor: Interval | None, title: str) -> str:
    """The NFR on its axis: interval, one-sided upper bound, the limit it is held against, the A/A floor."""
    axis = share_axis([nfr.high, upper, limit, floor.high if floor else None])
    height = 100 if floor else 78
    base = height - 22
    parts = [_open("strip", height, title)]
    if limit is not None:
        rest = 96 - float(axis.at(limit)[:-1])
        parts.append(f'<rect class="beyond" x="{axis.at(limit)}" y="16" width="{rest:.2f}%" height="{base - 16}"/>')
    for tick in axis.ticks():
        parts.append(_line("grid", axis.at(tick), axis.at(tick), 16, base))
        parts.append(f'<text class="tick" x="{axis.at(tick)}" y="{height - 5}">{exact(tick)}</text>')
    parts.append(_line("axis", axis.at(axis.low), axis.at(axis.high), base, base))
    if nfr.value is not None:
        parts.append(_whisker(axis, nfr, 36))
        parts.append(_line("upper", axis.at(nfr.value), axis.at(upper), 36, 36))
        parts.append(f'<svg class="over" x="{axis.at(upper)}" y="36"><path class="bound" d="M0-9v18l-8-9z"/></svg>')
        parts.append(f'<circle class="dot" cx="{axis.at(nfr.value)}" cy="36" r="6.5"/>')
    if floor and floor.value is not None:
        parts.append(_line("floor", axis.at(floor.low), axis.at(floor.high), 62, 62))
        parts.append(f'<circle class="floor-dot" cx="{axis.at(floor.value)}" cy="62" r="4.5"/>')
    if limit is not None:
        parts.append(_line("limit", axis.at(limit), axis.at(limit), 14, base))
        side = "end" if float(axis.at(limit)[:-1]) > 50 else "start"
        parts.append(f'<text class="limit-label {side}" x="{axis.at(limit)}" y="11">limit {exact(limit)}</text>')
    return "".join(parts) + "</svg>"


def _whisker(axis: Axis, share: Interval, middle: int) -> str:
    return _line("interval", axis.at(share.low), axis.at(share.high), middle, middle)


def forest_row(share: Interval, axis: Axis, *, reference: float | None, tone: str, title: str) -> str:
    """One row of a forest plot: interval, estimate, and a line where the whole lies."""
    parts = [_open(f"forest {safe(tone)}", 26, title), _line("base", axis.at(axis.low), axis.at(axis.high), 13, 13)]
    if reference is not None:
        parts.append(_line("reference", axis.at(reference), axis.at(reference), 0, 26))
    if share.value is not None:
        parts.append(_whisker(axis, share, 13))
        parts.append(f'<circle class="dot" cx="{axis.at(share.value)}" cy="13" r="5"/>')
    return "".join(parts) + "</svg>"


def forest_axis(axis: Axis) -> str:
    """The scale above the rows of a forest plot."""
    parts = ['<svg class="forest-axis" width="100%" height="16" aria-hidden="true" focusable="false">']
    parts += [f'<text class="tick" x="{axis.at(tick)}" y="12">{exact(tick)}</text>' for tick in axis.ticks(3)]
    return "".join(parts) + "</svg>"


def stacked(shares: Sequence[tuple[str, float]], title: str) -> str:
    """One bar cut into shares, each with its own class."""
    parts, at = [_open("stacked", 30, title)], 0.0
    for name, share in shares:
        if share > 0:
            gap = 0.25 if share > 0.01 else 0.0
            parts.append(
                f'<rect class="{safe(name)}" x="{100 * at:.3f}%" y="0" width="{100 * share - gap:.3f}%" height="30"/>'
            )
        at += share
    return "".join(parts) + "</svg>"
