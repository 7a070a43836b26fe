"""How deep the flips are, with bounds: clusters are drawn with replacement, and one more is put into the urn.

As for the rates (see bootstrap), the added cluster of average size stands for what has not happened yet: for bounds
above, all its pairs fall as far as any score seen could, from the highest old to the lowest new one; for bounds below,
none of them falls.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, compress, repeat
from operator import itemgetter
from random import Random
from typing import Literal

from flipguard.evaluate.bootstrap import Bounds, quantiles, resample_kinds
from flipguard.evaluate.change import graded
from flipguard.evaluate.comparison import Pair
from flipguard.evaluate.pairs import Pairs
from flipguard.evaluate.permutation import size, stream
from flipguard.evaluate.urn import Drawn, Urn

Measure = Literal["mean", "mean_flip", "median", "p90"]
MEASURES: tuple[Measure, ...] = ("mean", "mean_flip", "median", "p90")
QUANTILES: tuple[tuple[Measure, float], ...] = (("median", 0.5), ("p90", 0.9))
DRAWS, FEWEST_DRAWS = 1_999, 199
WORK = 3_000_000  # flips drawn in all; with very many of them fewer draws are as good
MOST_FLIPS = 15_000  # of more, every second or third cluster that has several is resampled: bounds are a little wider

Cluster = tuple[int, tuple[float, ...]]  # valid pairs, and how far each flip among them fell
Resampled = tuple[int, int, Drawn]  # valid pairs, how many of them the added cluster gave, and how far the flips fell


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
    old, new = graded(table)
    if not old or not math.isfinite(size(old) + size(new)):
        return None
    worst, rng = max(0.0, max(old) - min(new) - margin), stream(seed, "severity")
    if table.independent():
        alone = table.drops(margin)
        return _bounded(alone, _drawn_alone(alone, sum(valid), rng), sum(valid), worst, alpha)
    clusters = _clusters(table, valid, margin)
    return _bounded(table.drops(margin), _drawn_together(_fewer(clusters), rng), sum(valid), worst, alpha)


def _clusters(table: Pairs, valid: Sequence[bool], margin: float) -> list[Cluster]:
    """The clusters with valid pairs."""
    groups, drops = table.groups(), dict[Hashable, tuple[float, ...]]()
    sizes = Counter(compress(groups, valid))
    for row, fall in table.falls(margin):
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


def _drawn_alone(drops: Sequence[float], n: int, rng: Random) -> Iterator[Resampled]:
    """Resamples of n pairs, each a cluster of its own, some of which fell."""
    urn, kinds = Urn(drops, rng), Counter({(1, 1, 0): len(drops), (1, 0, 0): n - len(drops)})
    for total, picked, _, added in resample_kinds(kinds, rng, _draws(urn.work)):
        yield total, added, urn.draw(picked)


def _drawn_together(clusters: Sequence[Cluster], rng: Random) -> Iterator[Resampled]:
    """Resamples of clusters."""
    loud = [drops for _, drops in clusters if drops]
    kinds = Counter((size, int(bool(drops)), 0) for size, drops in clusters)
    for total, picked, _, added in resample_kinds(kinds, rng, _draws(sum(map(len, loud)))):
        yield total, added, Drawn.of(sorted(chain.from_iterable(rng.choices(loud, k=picked))) if picked else [])


def _draws(work: int) -> int:
    return max(FEWEST_DRAWS, min(DRAWS, WORK // (work + 1)))


def _bounded(seen: Sequence[float], resamples: Iterable[Resampled], n: int, worst: float, alpha: float) -> Depth:
    below, above = ({name: list[float]() for name in MEASURES} for _ in range(2))
    draws = 0
    for total, added, drops in resamples:
        draws += 1
        for values, more in ((below, 0), (above, added)):
            for name, value in _measured(drops, total, more, worst).items():
                values[name].append(value)
    found = _measured(Drawn.of(seen), n, 0, worst)
    return Depth({name: _around(value, below[name], above[name], alpha) for name, value in found.items()}, worst, draws)


def _measured(drops: Drawn, n: int, added: int, worst: float) -> dict[Measure, float]:
    """The measures of `drops` among n pairs, with `added` drops more, each as deep as `worst`."""
    many, total = drops.many + added, drops.total + added * worst
    if not many:
        return {"mean": 0.0}
    deepest = max(worst if added else 0.0, drops.deepest)  # a mean may be rounded beyond it
    found: dict[Measure, float] = {"mean": total / n, "mean_flip": min(total / many, deepest)}
    for name, share in QUANTILES:
        rank = math.ceil(share * many) - 1
        found[name] = drops.at(rank) if rank < drops.many else worst
    return found


def _around(value: float, below: Sequence[float], above: Sequence[float], alpha: float) -> Bounds:
    low, lower = quantiles(below, alpha / 2, alpha) if below else (value, value)
    upper, high = quantiles(above, 1 - alpha, 1 - alpha / 2)
    return Bounds(value, min(low, value), max(high, value), min(lower, value), max(upper, value))
