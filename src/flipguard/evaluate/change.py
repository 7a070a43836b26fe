"""By how much scores changed: the mean with its interval and test, and how deep the flips are."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from statistics import NormalDist
from typing import Any

from flipguard.evaluate.comparison import Pair
from flipguard.evaluate.outcomes import drop
from flipguard.evaluate.pairs import Pairs
from flipguard.evaluate.permutation import sign_flip, stream

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
    """The mean grade of each model over the same `n` valid pairs; of right and wrong, the share that is right."""

    n: int
    old: float
    new: float


def means(pairs: Sequence[Pair]) -> Means | None:
    """What each model scores on average; None without valid pairs that carry finite grades.

    Args:
        pairs: matched pairs; invalid ones are left out on both sides.
    """
    table = Pairs.of(pairs)
    graded = _graded(table)
    before, after = (
        [score for score in compress(side.scores, graded) if score is not None] for side in (table.old, table.new)
    )
    if not before or not all(map(math.isfinite, before)) or not all(map(math.isfinite, after)):
        return None
    return Means(len(before), math.fsum(before) / len(before), math.fsum(after) / len(after))


def change(pairs: Iterable[Pair], alpha: float = 0.05, seed: int = 0) -> Change | None:
    """The mean change of continuous scores; None without valid pairs, or where a score is infinite.

    The interval is Student's (Biometrika 6, 1908), the variance taken between clusters (Liang & Zeger, Biometrika 73,
    1986); without clusters that is the usual one. In the test the pairs of a cluster change sign together.

    Args:
        pairs: matched pairs; invalid ones are left out.
        alpha: error of the interval.
        seed: of the signs.
    """
    sizes, sums = _clusters(Pairs.of(pairs))
    if not sums or not all(map(math.isfinite, sums)):
        return None
    n, many = sum(sizes), len(sums)
    mean = math.fsum(sums) / n
    p_value, draws = sign_flip(sums, stream(seed, "change"))
    if many == 1:
        return Change(n, many, mean, None, None, p_value, draws)
    spread = math.fsum((total - mean * size) ** 2 for size, total in zip(sizes, sums, strict=True))
    half = t_quantile(1.0 - alpha / 2.0, many - 1) * math.sqrt(many / (many - 1) * spread) / n
    return Change(n, many, mean, mean - half, mean + half, p_value, draws)


def _clusters(pairs: Pairs) -> tuple[list[int], list[float]]:
    """How many valid pairs each cluster has, and the sum of their changes."""
    valid = _graded(pairs)
    changes = [moved for moved in compress(pairs.changes(), valid) if moved is not None]
    if pairs.independent():
        return [1] * len(changes), changes
    sizes: dict[Hashable, int] = {}
    sums: dict[Hashable, float] = {}
    for group, moved in zip(compress(pairs.groups(), valid), changes, strict=True):
        sizes[group] = sizes.get(group, 0) + 1
        sums[group] = sums.get(group, 0.0) + moved
    return list(sizes.values()), list(sums.values())


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
    valid = len(table) - list(table.outcomes).count("invalid")
    if not valid:
        return None
    drops = sorted(fall for _, fall in flips(table, margin) if fall is not None)
    tail = {name: drops[math.ceil(share * len(drops)) - 1] if drops else None for name, share in QUANTILES.items()}
    total = math.fsum(drops) if drops and math.isfinite(drops[-1]) else sum(drops)
    return {"mean": total / valid, "mean_flip": total / len(drops) if drops else None, **tail}


def flips(pairs: Pairs, margin: float) -> Iterator[tuple[int, float | None]]:
    """Each negative flip: its number, and how far the score fell beyond the margin, None without scores."""
    old, new = pairs.old.scores, pairs.new.scores
    for row in pairs.where("negative_flip"):
        yield row, drop(old[row], new[row], margin)


def t_quantile(share: float, freedom: int) -> float:
    """Quantile of Student's t: exact for 1 and 2 degrees of freedom, else its expansion in 1 / freedom.

    Fisher and Cornish (Technometrics 2, 1960); within 0.2 % of the true value at 0.975, 1 % at 0.995.

    >>> [round(t_quantile(0.975, freedom), 2) for freedom in (1, 2, 4, 10, 1000)]
    [12.71, 4.3, 2.78, 2.23, 1.96]
    """
    if freedom == 1:
        return math.tan(math.pi * (share - 0.5))
    if freedom == 2:
        return (2.0 * share - 1.0) * math.sqrt(0.5 / (share * (1.0 - share)))
    z = NormalDist().inv_cdf(share)
    terms = (
        z,
        (z**3 + z) / 4.0,
        (5.0 * z**5 + 16.0 * z**3 + 3.0 * z) / 96.0,
        (3.0 * z**7 + 19.0 * z**5 + 17.0 * z**3 - 15.0 * z) / 384.0,
        (79.0 * z**9 + 776.0 * z**7 + 1482.0 * z**5 - 1920.0 * z**3 - 945.0 * z) / 92160.0,
    )
    return math.fsum(term / float(freedom) ** power for power, term in enumerate(terms))
