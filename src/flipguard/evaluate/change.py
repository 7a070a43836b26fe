"""By how much scores changed: the mean with its interval and test, and how deep the flips are."""

from __future__ import annotations

import math
from array import array
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any

from flipguard.evaluate.comparison import Pair
from flipguard.evaluate.pairs import Pairs
from flipguard.evaluate.permutation import sign_flip, size, stream
from flipguard.evaluate.runs import Metric
from flipguard.evaluate.sampling import INDEPENDENT, Sampling
from flipguard.evaluate.stats import proportion
from flipguard.evaluate.student import mean_interval

QUANTILES = {"median": 0.5, "p90": 0.9, "max": 1.0}


@dataclass(frozen=True, slots=True)
class Change:
    """Mean of new minus old over the valid pairs, with its interval; None where one prompt cannot tell a spread.

    `p_value` is the paired permutation test of no change, from `draws` sets of signs, or exact where that is 0.
    """

    n: int
    clusters: int
    mean: float
    low: float | None
    high: float | None
    p_value: float
    draws: int


@dataclass(frozen=True, slots=True)
class Means:
    """The mean grade of each model over the same `n` valid pairs; of right and wrong, the share that is right.

    Each has its interval, None where one prompt cannot tell a spread; that of the change is the sharper one, since both
    models answered the same prompts.
    """

    n: int
    old: float
    new: float
    old_low: float | None = None
    old_high: float | None = None
    new_low: float | None = None
    new_high: float | None = None


def means(pairs: Sequence[Pair], metric: Metric = "score", how: Sampling = INDEPENDENT) -> Means | None:
    """What each model scores on average; None without valid pairs that carry grades with a finite sum.

    The share of right answers has Wilson's interval, clusters resampled where a cluster has several pairs; a mean score
    has Student's, as `change` has.

    Args:
        pairs: matched pairs; invalid ones are left out on both sides.
        metric: how answers were graded, `correct` or `score`.
        how: how pairs were drawn, and the error of the intervals.
    """
    table = Pairs.of(pairs)
    before, after = graded(table)
    if not before or not math.isfinite(size(before) + size(after)):
        return None
    groups = None if table.independent() else list(compress(table.groups(), _graded(table)))
    n, old, new = len(before), math.fsum(before) / len(before), math.fsum(after) / len(after)
    if metric == "correct":
        ends = [_share(scores, groups, how, name) for scores, name in ((before, "old mean"), (after, "new mean"))]
    else:
        sides = ((before, old), (after, new))
        ends = [mean_interval(*_summed(scores, groups), mean, how.alpha) or (None, None) for scores, mean in sides]
    return Means(n, old, new, *ends[0], *ends[1])


def _share(
    scores: Sequence[float], groups: Sequence[Hashable] | None, how: Sampling, name: str
) -> tuple[float | None, float | None]:
    exact = proportion(scores.count(1.0), len(scores), how.alpha)
    if groups is not None:
        exact = how.over(exact, list(compress(groups, map((1.0).__eq__, scores))), groups, name)
    return exact.low, exact.high


def change(pairs: Iterable[Pair], alpha: float = 0.05, seed: int = 0) -> Change | None:
    """The mean change of continuous scores; None without valid pairs, or where their sum is infinite.

    The interval is Student's, the variance taken between clusters. In the test the pairs of a cluster change sign
    together.

    Args:
        pairs: matched pairs; invalid ones are left out.
        alpha: error of the interval.
        seed: of the signs.
    """
    sizes, sums = _clusters(Pairs.of(pairs))
    if not sums or not math.isfinite(size(sums)):
        return None
    n = len(sums) if sizes is None else sum(sizes)
    mean = math.fsum(sums) / n
    p_value, draws = sign_flip(sums, stream(seed, "change"))
    low, high = mean_interval(sizes, sums, mean, alpha) or (None, None)
    return Change(n, len(sums), mean, low, high, p_value, draws)


def _clusters(pairs: Pairs) -> tuple[Sequence[int] | None, Sequence[float]]:
    """How many valid pairs each cluster has, None where none has several, and the sum of their changes."""
    changes = _kept(pairs.changes(), pairs)
    return _summed(changes, None if pairs.independent() else list(compress(pairs.groups(), _graded(pairs))))


def _summed(values: Sequence[float], groups: Sequence[Hashable] | None) -> tuple[Sequence[int] | None, Sequence[float]]:
    """The size and the sum of each group; without groups every value is one of its own, and there are no sizes."""
    if groups is None:
        return None, values
    sizes: dict[Hashable, int] = {}
    sums: dict[Hashable, float] = {}
    for group, value in zip(groups, values, strict=True):
        sizes[group] = sizes.get(group, 0) + 1
        sums[group] = sums.get(group, 0.0) + value
    return list(sizes.values()), list(sums.values())


def graded(pairs: Pairs) -> tuple[Sequence[float], Sequence[float]]:
    """The scores, before and after, of the pairs that are valid and have both."""
    return _kept(pairs.old.scores, pairs), _kept(pairs.new.scores, pairs)


def _kept(column: Sequence[float | None], pairs: Pairs) -> Sequence[float]:
    """The values of a column that belong to graded pairs."""
    if isinstance(column, array) and isinstance(pairs.changes(), array) and pairs.all_valid():
        return column
    return [value for value in compress(column, _graded(pairs)) if value is not None]


def _graded(pairs: Pairs) -> list[bool]:
    """Which pairs are valid and have both grades."""
    return [
        moved is not None and outcome != "invalid"
        for moved, outcome in zip(pairs.changes(), pairs.outcomes, strict=True)
    ]


def severity(pairs: Iterable[Pair], margin: float) -> dict[str, Any] | None:
    """How far scores fall beyond the margin; None without valid pairs.

    `mean` is E[max(0, -d - margin)] over all valid pairs, ties and gains counting 0; `mean_flip`, the median, the 90 %
    quantile (the smallest drop that as many flips do not exceed) and the maximum are over the negative flips. Identical
    answers are a tie, whatever their scores.
    """
    table = Pairs.of(pairs)
    valid = len(table) - sum(map("invalid".__eq__, table.outcomes))
    if not valid:
        return None
    drops = table.drops(margin)
    tail = {name: drops[math.ceil(share * len(drops)) - 1] if drops else None for name, share in QUANTILES.items()}
    total = math.fsum(drops) if math.isfinite(sum(drops)) else math.inf
    return {"mean": total / valid, "mean_flip": total / len(drops) if drops else None, **tail}
