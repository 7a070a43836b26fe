"""How deep the flips are, with bounds: clusters are drawn with replacement, and one more is put into the urn.

As for the rates (see bootstrap), the added cluster of average size stands for what has not happened yet: for bounds
above, all its pairs fall as far as any score seen could, from the highest old to the lowest new one; for bounds below,
none of them falls.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, compress, repeat
from operator import itemgetter
from random import Random
from typing import Literal

from flipguard.evaluate.bootstrap import Bounds, quantiles, resample
from flipguard.evaluate.change import flips
from flipguard.evaluate.comparison import Pair
from flipguard.evaluate.pairs import Pairs
from flipguard.evaluate.permutation import stream

Measure = Literal["mean", "mean_flip", "median", "p90"]
MEASURES: tuple[Measure, ...] = ("mean", "mean_flip", "median", "p90")
QUANTILES: tuple[tuple[Measure, float], ...] = (("median", 0.5), ("p90", 0.9))
DRAWS, FEWEST_DRAWS = 1_999, 199
WORK = 3_000_000  # flips drawn in all; with very many of them fewer draws are as good
MOST_FLIPS = 15_000  # of more, every second or third cluster is resampled, so that bounds are a little wider

Cluster = tuple[int, tuple[float, ...]]  # valid pairs, and how far each flip among them fell


@dataclass(frozen=True, slots=True)
class Depth:
    """Bounds of each measure of severity; `worst` is how far each pair of the added cluster falls."""

    bounds: dict[Measure, Bounds]
    worst: float
    draws: int


def depth(pairs: Iterable[Pair], margin: float, alpha: float = 0.05, seed: int = 0) -> Depth | None:
    """Bounds for the mean drop beyond the margin over all pairs, and for mean, median and 90 % quantile of the flips.

    None without valid pairs, or where a score is infinite. Measures of the flips are left out where there is none; a
    maximum has no bounds.

    Args:
        pairs: matched pairs; invalid ones are left out.
        margin: change of score up to which a pair is a tie.
        alpha: error of the bounds.
        seed: of the resampling.
    """
    table = Pairs.of(pairs)
    valid = list(map("invalid".__ne__, table.outcomes))
    old, new = (
        [score for score in compress(side.scores, valid) if score is not None] for side in (table.old, table.new)
    )
    if not old or not new or not math.isfinite(sum(map(abs, chain(old, new)))):
        return None
    worst = max(0.0, max(old) - min(new) - margin)
    clusters = _clusters(table, valid, margin)
    seen = sorted(chain.from_iterable(drops for _, drops in clusters))
    found = _measured(seen, sum(valid), 0, worst)
    return _resampled(_fewer(clusters), found, worst, alpha, stream(seed, "severity"))


def _clusters(table: Pairs, valid: Sequence[bool], margin: float) -> list[Cluster]:
    """The clusters with valid pairs."""
    if table.independent():
        alone: Cluster = (1, ())
        clusters = [alone] * len(table)
        for row, fall in flips(table, margin):
            if fall is not None:
                clusters[row] = (1, (fall,))
        return list(compress(clusters, valid))
    groups, drops = table.groups(), dict[Hashable, tuple[float, ...]]()
    sizes = Counter(compress(groups, valid))
    for row, fall in flips(table, margin):
        if fall is not None:
            drops[groups[row]] = (*drops.get(groups[row], ()), fall)
    return [(size, drops.get(group, ())) for group, size in sizes.items()]


def _fewer(clusters: list[Cluster]) -> list[Cluster]:
    """The clusters, or where very many of them have flips, a part that is as deep as the whole."""
    loud = [cluster for cluster in clusters if cluster[1]]
    every = math.ceil(len(loud) / MOST_FLIPS)
    if every < 2:
        return clusters
    quiet = Counter(size for size, drops in clusters if not drops)
    loud.sort(key=itemgetter(0))
    loud.sort(key=itemgetter(1))
    ordered = (repeat((size, ()), many) for size, many in sorted(quiet.items()))
    return [*chain.from_iterable(ordered), *loud][::every]


def _resampled(
    clusters: Sequence[Cluster], found: Mapping[Measure, float], worst: float, alpha: float, rng: Random
) -> Depth:
    loud = [drops for _, drops in clusters if drops]
    flat = list(chain.from_iterable(loud))
    draws = max(FEWEST_DRAWS, min(DRAWS, WORK // (len(flat) + 1)))
    below, above = ({name: list[float]() for name in MEASURES} for _ in range(2))
    for total, picked, _, added in resample([(size, int(bool(drops)), 0) for size, drops in clusters], rng, draws):
        drawn = sorted(_picked(loud, flat, picked, rng)) if picked else []
        for values, more in ((below, 0), (above, added)):
            for name, value in _measured(drawn, total, more, worst).items():
                values[name].append(value)
    return Depth({name: _around(value, below[name], above[name], alpha) for name, value in found.items()}, worst, draws)


def _picked(loud: Sequence[Sequence[float]], flat: Sequence[float], many: int, rng: Random) -> Iterable[float]:
    """The drops, which are `flat` in one row, of clusters drawn with replacement."""
    alone = len(loud) == len(flat)
    return rng.choices(flat, k=many) if alone else chain.from_iterable(rng.choices(loud, k=many))


def _measured(drops: Sequence[float], n: int, added: int, worst: float) -> dict[Measure, float]:
    """The measures of sorted `drops` among n pairs, with `added` drops more, each as deep as `worst`."""
    many, total = len(drops) + added, math.fsum(drops) + added * worst
    if not many:
        return {"mean": 0.0}
    deepest = max(worst if added else 0.0, drops[-1] if drops else 0.0)  # a mean may be rounded beyond it
    found: dict[Measure, float] = {"mean": total / n, "mean_flip": min(total / many, deepest)}
    for name, share in QUANTILES:
        rank = math.ceil(share * many) - 1
        found[name] = drops[rank] if rank < len(drops) else worst
    return found


def _around(value: float, below: Sequence[float], above: Sequence[float], alpha: float) -> Bounds:
    low, lower = quantiles(below, alpha / 2, alpha) if below else (value, value)
    upper, high = quantiles(above, 1 - alpha, 1 - alpha / 2)
    return Bounds(value, min(low, value), max(high, value), min(lower, value), max(upper, value))
