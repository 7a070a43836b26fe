"""Student's t: its quantiles, and the interval of a mean whose rows may come in clusters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import repeat
from operator import sub
from statistics import NormalDist

from flipguard.evaluate.columns import MANY
from flipguard.evaluate.stats import root

FEW = 200  # degrees of freedom up to which the distribution is summed; beyond, its expansion is as good


def t_quantile(share: float, freedom: int) -> float:
    """Quantile of Student's t, to nine digits from 0.0001 to 0.9999.

    The distribution function is a finite sum (Abramowitz & Stegun, 1964, 26.7.3 and 26.7.4), which is inverted; with
    many degrees of freedom the quantile's own expansion is used (Fisher & Cornish, Technometrics 2, 1960).

    >>> [round(t_quantile(0.975, freedom), 4) for freedom in (1, 2, 3, 10, 1000)]
    [12.7062, 4.3027, 3.1824, 2.2281, 1.9623]
    """
    if share < 0.5:
        return -t_quantile(1.0 - share, freedom)
    if freedom == 1:
        return math.tan(math.pi * (share - 0.5))
    widest = (2.0 * share - 1.0) * math.sqrt(0.5 / (share * (1.0 - share)))  # the quantile with 2
    if freedom == 2 or share == 0.5:
        return widest
    start = _expanded(share, freedom)
    if freedom > FEW:
        return start
    least = NormalDist().inv_cdf(share)
    return root(
        lambda t: _within(t, freedom) - (2.0 * share - 1.0),
        lambda t: 2.0 * _density(t, freedom),
        (least, min(max(start, least), widest), widest),
    )


def mean_interval(
    sizes: Sequence[int] | None, sums: Sequence[float], mean: float, alpha: float
) -> tuple[float, float] | None:
    """Student's interval (Biometrika 6, 1908) of the mean of all rows; None where the spread is unknown or infinite.

    The variance is taken between clusters (Liang & Zeger, Biometrika 73, 1986); without clusters that is the usual one.

    Args:
        sizes: how many rows each cluster has; None where each row is a cluster of its own.
        sums: the sum of each cluster's rows.
        mean: of all rows.
        alpha: error of the interval.
    """
    n, many = len(sums) if sizes is None else sum(sizes), len(sums)
    if many < 2:
        return None
    spread = _spread(sums, mean) if sizes is None else math.hypot(*map(sub, sums, map(mean.__mul__, sizes)))
    half = t_quantile(1.0 - alpha / 2.0, many - 1) * math.sqrt(many / (many - 1)) * (spread / n)
    return (mean - half, mean + half) if math.isfinite(half) else None


def _spread(values: Sequence[float], mean: float) -> float:
    """The root of the summed squares of what differs from the mean."""
    if len(values) >= MANY:
        from flipguard.evaluate.many import spread

        if math.isfinite(told := spread(values, mean)):
            return told
    return math.hypot(*map(sub, values, repeat(mean)))


def _within(t: float, freedom: int) -> float:
    """P(-t < T < t), for 3 degrees of freedom and more."""
    angle = math.atan(t / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term = cosine if odd else 1.0
    terms = [term]
    for number in range(2 + odd, freedom - 1, 2):
        term *= (number - 1) / number * cosine * cosine
        terms.append(term)
    total = sine * math.fsum(terms)
    return 2.0 / math.pi * (angle + total) if odd else total


def _density(t: float, freedom: int) -> float:
    scale = math.lgamma((freedom + 1) / 2.0) - math.lgamma(freedom / 2.0) - 0.5 * math.log(freedom * math.pi)
    return math.exp(scale - (freedom + 1) / 2.0 * math.log1p(t * t / freedom))


def _expanded(share: float, freedom: int) -> float:
    z = NormalDist().inv_cdf(share)
    terms = (
        z,
        (z**3 + z) / 4.0,
        (5.0 * z**5 + 16.0 * z**3 + 3.0 * z) / 96.0,
        (3.0 * z**7 + 19.0 * z**5 + 17.0 * z**3 - 15.0 * z) / 384.0,
        (79.0 * z**9 + 776.0 * z**7 + 1482.0 * z**5 - 1920.0 * z**3 - 945.0 * z) / 92160.0,
    )
    return math.fsum(term / float(freedom) ** power for power, term in enumerate(terms))
