"""Old against new score of every prompt, one picture per comparison: what lies below the diagonal got worse."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flipguard.errors import DataError
from flipguard.files import read_jsonl, write_bytes
from flipguard.records import Moved, moved

MOST = 6


@dataclass(frozen=True)
class Points:
    """The pairs of one file of judgments.

    Attributes:
        name: of the file, as short as tells it from the others.
        counts: how many prompts have these scores and went that way, by (old, new, way).
        invalid: rows without two finite scores; they are nowhere else.
    """

    name: str
    counts: dict[tuple[float, float, Moved], int]
    invalid: int

    @property
    def n(self) -> int:
        """Pairs that are drawn."""
        return sum(self.counts.values())

    def share(self, way: Moved) -> float:
        """Of the pairs, those that went `way`; NaN where there is none."""
        return self.number(way) / self.n if self.n else math.nan

    def number(self, way: Moved) -> int:
        """How many pairs went `way`."""
        return sum(count for (*_, gone), count in self.counts.items() if gone == way)


@dataclass(frozen=True)
class Scattered:
    """What was drawn."""

    path: str
    margin: float
    panels: list[dict[str, Any]]

    def told(self) -> str:
        """The same for people."""
        words = [f"{panel['name']}: {panel['negative_flips']:,} of {panel['n']:,} worse" for panel in self.panels]
        invalid = sum(panel["invalid"] for panel in self.panels)
        return f"{self.path}: {'; '.join(words)}" + (f"; {invalid:,} without two scores: not drawn" if invalid else "")


def plot_scatter(paths: list[Path], out: Path, *, margin: float = 0.1) -> Scattered:
    """Draw one square per file of judgments, all on the same axes.

    Args:
        paths: files that `flipguard judge` wrote, by a judge that gives scores.
        out: the PNG to write.
        margin: scores this close are a tie, as for `flipguard compare`.

    Raises:
        DataError: a file holds no scores, is named twice, or `out` is no .png.
        FlipGuardError: matplotlib is not installed.
    """
    if out.suffix.lower() != ".png":
        raise DataError(f"{out}: the picture is a PNG. Let --out end in .png.")
    if not 0 <= margin < math.inf:
        raise DataError(f"--margin: {margin} is not possible: it must be a number of at least 0.")
    if len(paths) > MOST:
        raise DataError(f"{len(paths)} files: more than {MOST} squares are too small to be read. Name fewer.")
    parts = [_points(path, name, margin) for path, name in zip(paths, _names(paths), strict=True)]
    from flipguard.curves.draw_scatter import draw

    write_bytes(out, draw(parts, margin=margin))
    panels = [
        asdict(part) | {"n": part.n, "negative_flips": part.number("negative_flip"), "nfr": part.share("negative_flip")}
        for part in parts
    ]
    for panel in panels:
        del panel["counts"]
    return Scattered(str(out), margin, panels)


def _names(paths: list[Path]) -> list[str]:
    """File names, with their folders where files are called alike."""
    if len({path.resolve() for path in paths}) < len(paths):
        raise DataError("the same file is named twice. Name each once.")
    stems = [path.stem for path in paths]
    return stems if len(set(stems)) == len(stems) else [str(path.with_suffix("")) for path in paths]


def _points(path: Path, name: str, margin: float) -> Points:
    counts: Counter[tuple[float, float, Moved]] = Counter()
    invalid = 0
    for number, row in read_jsonl(path):
        old, new = row.get("old"), row.get("new")
        if not isinstance(old, dict) or not isinstance(new, dict) or "verdicts" in row:
            raise DataError(
                f"{path}:{number}: no scores of both sides. Name judgments of `flipguard judge` by a judge that scores."
            )
        scores = _number(old.get("score")), _number(new.get("score"))
        if scores[0] is None or scores[1] is None:
            invalid += 1
            continue
        same = "completion" in old and old["completion"] == new.get("completion")
        counts[scores[0], scores[1], "tie" if same else moved(scores[0], scores[1], margin)] += 1
    if not counts:
        raise DataError(f"{path}: not one pair has two scores, so there is nothing to draw.")
    return Points(name, dict(counts), invalid)


def _number(value: Any) -> float | None:
    known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if known else None
