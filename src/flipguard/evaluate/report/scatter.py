"""The old score against the new one, as a square drawing."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from flipguard.evaluate.comparison import Outcome
from flipguard.evaluate.report.formatting import OUTCOMES, score
from flipguard.evaluate.report.svg import Axis, safe

Point = tuple[float, float, Outcome]

MAX_POINTS: Final = 4_000
_PLACES: Final = 400
_SIDE, _LEFT, _TOP, _BELOW = 440, 58, 12, 46  # the plot, and the room around it for labels
_DRAWN: Final[tuple[Outcome, ...]] = ("tie", "inconsistent", "positive_flip", "negative_flip")  # the last lies on top


def repeats(points: Sequence[Point]) -> bool:
    """Whether scores repeat so much, on a scale of one to ten say, that each place is drawn once, by its number."""
    most, places = min(_PLACES, len(points) // 2), set[Point]()
    for point in points:
        places.add(point)
        if len(places) > most:
            return False
    return True


def thinned(points: Sequence[Point], most: int = MAX_POINTS) -> list[Point]:
    """At most `most` points, the same ones every time: every k-th flip and every k-th of the others.

    Points that repeat so much that they are drawn as one are all kept.
    """
    if repeats(points):
        return list(points)
    others = [point for point in points if point[2] in {"tie", "inconsistent"}]
    flips = [point for point in points if point[2] in {"negative_flip", "positive_flip"}]
    if len(others) + len(flips) <= most:
        return others + flips
    flips = _every(flips, max(most // 2, most - len(others)))
    return _every(others, most - len(flips)) + flips


def _every(points: list[Point], most: int) -> list[Point]:
    return points[:: math.ceil(len(points) / most)] if len(points) > most else points


@dataclass(frozen=True, slots=True)
class _Square:
    """Where scores lie on the drawing."""

    low: float
    high: float

    def right(self, value: float) -> float:
        return _LEFT + _SIDE * (value - self.low) / (self.high - self.low)

    def up(self, value: float) -> float:
        return _TOP + _SIDE * (self.high - value) / (self.high - self.low)


def _square(points: Sequence[Point]) -> _Square:
    """Both axes alike, with a little room around the points."""
    values = [value for x, y, _ in points for value in (x, y)]
    low, high = min(values, default=0.0), max(values, default=1.0)
    room = 0.04 * (high - low) or 0.5 * abs(high) or 0.5
    return _Square(low - room, high + room)


def _marker(place: tuple[float, float], outcome: Outcome, size: float) -> str:
    """A mark as a piece of a path: a triangle down or up for flips, a disc for the rest."""
    x, y = place
    half, tall = 4.5 * size, 8 * size
    if outcome == "negative_flip":
        return f"M{x - half:.1f} {y - 3 * size:.1f}h{2 * half:.3g}l{-half:.3g} {tall:.3g}z"
    if outcome == "positive_flip":
        return f"M{x - half:.1f} {y + 3 * size:.1f}h{2 * half:.3g}l{-half:.3g} {-tall:.3g}z"
    r = 2.5 * size
    return f"M{x - r:.1f} {y:.1f}a{r:.3g} {r:.3g} 0 1 0 {2 * r:.3g} 0a{r:.3g} {r:.3g} 0 1 0 {-2 * r:.3g} 0z"


def _marks(square: _Square, points: Sequence[Point], outcome: Outcome) -> str:
    """All points of one outcome as one path; where scores repeat, as a mark per place, its area the number there."""
    counts = Counter(point for point in points if point[2] == outcome)
    grouped = repeats(points)
    most = max(Counter(points).values(), default=1)
    pieces = []
    for (x, y, kind), number in counts.items():
        place = square.right(x), square.up(y)
        if grouped:
            path = _marker(place, kind, 0.8 + 2.7 * math.sqrt(number / most))
            pieces.append(f'<path class="p-{outcome}" d="{path}"><title>{number} × {OUTCOMES[outcome]}</title></path>')
        else:
            pieces.append(_marker(place, kind, 1.0))
    if grouped or not pieces:
        return "".join(pieces)
    return f'<path class="p-{outcome}" d="{"".join(pieces)}"><title>{OUTCOMES[outcome]}</title></path>'


def _grid(square: _Square) -> list[str]:
    parts = [f'<rect class="ground" x="{_LEFT}" y="{_TOP}" width="{_SIDE}" height="{_SIDE}"/>']
    for tick in Axis(square.low, square.high).ticks():
        x, y = square.right(tick), square.up(tick)
        parts.append(f'<path class="grid" d="M{x:.1f} {_TOP}v{_SIDE}M{_LEFT} {y:.1f}h{_SIDE}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{_TOP + _SIDE + 18}">{score(tick)}</text>')
        parts.append(f'<text class="tick end" x="{_LEFT - 7}" y="{y + 4:.1f}">{score(tick)}</text>')
    return parts


def _band(square: _Square, margin: float) -> list[str]:
    """The diagonal, where nothing changed, and the band where too little changed to count."""
    low, high = square.low, square.high
    corners = [(low, low + margin), (high, high + margin), (high, high - margin), (low, low - margin)]
    places = " ".join(f"{square.right(x):.1f},{square.up(y):.1f}" for x, y in corners)
    line = f"M{_LEFT} {_TOP + _SIDE}l{_SIDE}-{_SIDE}"
    return [f'<polygon class="band" points="{places}"/>', f'<path class="diagonal" d="{line}"/>']


def _names(labels: tuple[str, str]) -> list[str]:
    middle = _TOP + _SIDE / 2
    return [
        f'<text class="name" x="{_LEFT + _SIDE / 2:g}" y="{_TOP + _SIDE + 40}">{safe(labels[0])}</text>',
        f'<text class="name" transform="rotate(-90 14 {middle:g})" x="14" y="{middle:g}">{safe(labels[1])}</text>',
    ]


def scatter(points: Sequence[Point], *, margin: float, labels: tuple[str, str], title: str) -> str:
    """Old score to the right, new score upwards, flips by shape and colour."""
    square = _square(points)
    size = f"0 0 {_LEFT + _SIDE + 12} {_TOP + _SIDE + _BELOW}"
    name = safe(title)
    parts = [f'<svg class="scatter" viewBox="{size}" role="img" aria-label="{name}" focusable="false">']
    parts.append(f"<title>{name}</title>")
    plot = f'<rect x="{_LEFT}" y="{_TOP}" width="{_SIDE}" height="{_SIDE}"/>'
    parts.append(f'<clipPath id="plot">{plot}</clipPath>')
    parts += _grid(square)
    parts += ['<g clip-path="url(#plot)">', *_band(square, margin), "</g>"]
    parts += [_marks(square, points, outcome) for outcome in _DRAWN]
    return "".join([*parts, *_names(labels), "</svg>"])
