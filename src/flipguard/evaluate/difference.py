"""The difference of two shares of the same pairs, with an interval that needs only the pairs where they differ."""

from __future__ import annotations

import math
from statistics import NormalDist


def tango(only_first: int, only_second: int, n: int, alpha: float = 0.05) -> tuple[float, float]:
    """The score interval for a difference of paired shares (Tango, Statist. Med. 17, 1998).

    Of n pairs, `only_first` have the first outcome alone and `only_second` the second alone; the difference is that of
    their shares. The ends are where the score statistic, its variance estimated under the difference, is ±z.

    >>> [round(end, 4) for end in tango(12, 4, 100)]
    [0.0018, 0.1656]
    >>> [round(end, 4) for end in tango(0, 0, 100)]
    [-0.037, 0.037]
    """
    if n == 0:
        return -1.0, 1.0
    z = NormalDist().inv_cdf(1.0 - alpha / 2.0)
    return _lower(only_first, only_second, n, z), -_lower(only_second, only_first, n, z)


def _lower(first: int, second: int, n: int, z: float) -> float:
    """The difference at which the score statistic, which falls from -1 to the difference seen, is z."""
    low, high = -1.0, (first - second) / n
    for _ in range(60):
        middle = (low + high) / 2.0
        linear = (2.0 * n - first + second) * middle - first - second
        root = math.sqrt(linear * linear + 8.0 * n * second * middle * (1.0 - middle))
        nuisance = (root - linear) / (4.0 * n)  # the likeliest share of `second` alone, given the difference
        variance = n * (2.0 * nuisance + middle * (1.0 - middle))
        above = first - second - n * middle > z * math.sqrt(max(0.0, variance))
        low, high = (middle, high) if above else (low, middle)
    return (low + high) / 2.0
