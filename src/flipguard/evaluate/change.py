"""By how much scores changed: the mean with its interval and test, and how deep the flips are."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

from flipguard.evaluate.bootstrap import cluster_of
from flipguard.evaluate.comparison import Pair
from flipguard.evaluate.outcomes import drop
from flipguard.evaluate.permutation import sign_flip, stream

SIDES: tuple[Literal["old"], Literal["new"]] = ("old", "new")
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
    n = sum(1 for _ in _grades(pairs, "old"))
    if n == 0 or not all(math.isfinite(grade) for side in SIDES for grade in _grades(pairs, side)):
        return None
    old, new = (math.fsum(_grades(pairs, side)) / n for side in SIDES)
    return Means(n, old, new)


def _grades(pairs: Iterable[Pair], side: Literal["old", "new"]) -> Iterator[float]:
    for pair in pairs:
        old, new = pair.old.score, pair.new.score
        if pair.outcome != "invalid" and old is not None and new is not None:
            yield old if side == "old" else new


def change(pairs: Iterable[Pair], alpha: float = 0.05, seed: int = 0) -> Change | None:
    """The mean change of continuous scores; None without valid pairs, or where a score is infinite.

    The interval is Student's (Biometrika 6, 1908), the variance taken between clusters (Liang & Zeger, Biometrika 73,
    1986); without clusters that is the usual one. In the test the pairs of a cluster change sign together.

    Args:
        pairs: matched pairs; invalid ones are left out.
        alpha: error of the interval.
        seed: of the signs.
    """
    sums: dict[Hashable, tuple[int, float]] = {}
    for pair in pairs:
        moved = pair.change
        if pair.outcome == "invalid" or moved is None:
            continue
        if not math.isfinite(moved):
            return None
        size, total = sums.get(cluster_of(pair), (0, 0.0))
        sums[cluster_of(pair)] = size + 1, total + moved
    if not sums:
        return None
    n, many = sum(size for size, _ in sums.values()), len(sums)
    mean = math.fsum(total for _, total in sums.values()) / n
    p_value, draws = sign_flip([total for _, total in sums.values()], stream(seed, "change"))
    if many == 1:
        return Change(n, many, mean, None, None, p_value, draws)
    spread = math.fsum((total - mean * size) ** 2 for size, total in sums.values())
    half = t_quantile(1.0 - alpha / 2.0, many - 1) * math.sqrt(many / (many - 1) * spread) / n
    return Change(n, many, mean, mean - half, mean + half, p_value, draws)


def severity(pairs: Iterable[Pair], margin: float) -> dict[str, Any] | None:
    """How far scores fall beyond the margin; None without valid pairs.

    `mean` is E[max(0, -d - margin)] over all valid pairs, ties and gains counting 0; `mean_flip`, the median, the 90 %
    quantile (the smallest drop that as many flips do not exceed) and the maximum are over the negative flips. Identical
    answers are a tie, whatever their scores.
    """
    valid, drops = 0, []
    for pair in pairs:
        valid += pair.outcome != "invalid"
        fall = drop(pair.old, pair.new, margin) if pair.outcome == "negative_flip" else None
        if fall is not None:
            drops.append(fall)
    if not valid:
        return None
    drops.sort()
    tail = {name: drops[math.ceil(share * len(drops)) - 1] if drops else None for name, share in QUANTILES.items()}
    total = math.fsum(drops) if drops and math.isfinite(drops[-1]) else sum(drops)
    return {"mean": total / valid, "mean_flip": total / len(drops) if drops else None, **tail}


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
