"""The A/A floor: how often the old model gets worse than itself, and how much the update adds to that.

Sampled twice, a model differs from itself, and a judge or a margin calls some of that worse. With a margin of 0.1 and
rewards that spread by 0.1, 0.5 or 1 within a prompt, 24, 44 and 47 % of prompts are negative flips of nothing. What the
update did is the excess over this floor, measured on the same prompts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict
from statistics import NormalDist
from typing import Any

from flipguard.evaluate.bootstrap import cluster_of, clustered, quantiles, resample
from flipguard.evaluate.comparison import Pair
from flipguard.evaluate.permutation import stream
from flipguard.evaluate.sampling import over_clusters
from flipguard.evaluate.stats import proportion

Interval = Callable[[float], tuple[float, float]]  # both ends at this error, two-sided


def floor(pairs: Sequence[Pair], again: Sequence[Pair], alpha: float = 0.05, seed: int = 0) -> dict[str, Any]:
    """The rate of negative flips of the old model against itself, and the excess of the update over it.

    Both rates share the old model's first answers, so the excess is a difference of paired shares over the prompts that
    are valid in both: Tango's interval for independent prompts, clusters resampled where a cluster has several.

    Args:
        pairs: the old model against the new one.
        again: the old model against itself, judged by the same rule.
        alpha: error of the bounds.
        seed: of the resampling.

    Returns:
        `nfr` as of any two runs, and `excess` with `value`, `low`, `high`, the one-sided `lower` and `upper` that a
        limit is held against, what they are `over` (pairs or clusters), the number `n` of common prompts, and on how
        many of them only the update or only the floor is a flip.
    """
    valid = [pair for pair in again if pair.outcome != "invalid"]
    rate = proportion(sum(pair.outcome == "negative_flip" for pair in valid), len(valid), alpha)
    shown = asdict(rate)
    whole = clustered(valid, alpha, seed)
    if whole is not None:
        shown = asdict(over_clusters(rate, whole.nfr))
    return {"nfr": shown, "excess": _excess(pairs, valid, alpha, seed)}


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


def _excess(pairs: Sequence[Pair], again: Sequence[Pair], alpha: float, seed: int) -> dict[str, Any]:
    seen = {(pair.id, pair.repeat): pair.outcome == "negative_flip" for pair in again}
    tallies: dict[Hashable, list[int]] = {}
    for pair in pairs:
        same = seen.get((pair.id, pair.repeat))
        if same is not None and pair.outcome != "invalid":
            tally = tallies.setdefault(cluster_of(pair), [0, 0, 0])
            worse = pair.outcome == "negative_flip"
            tally[0] += 1
            tally[1] += worse and not same
            tally[2] += same and not worse
    n, update, nothing = (sum(tally[column] for tally in tallies.values()) for column in range(3))
    alone: Interval = lambda error: tango(update, nothing, n, error)  # noqa: E731
    clusters = n > len(tallies)
    ends = _resampled([(size, one, other) for size, one, other in tallies.values()], seed, alone) if clusters else alone
    (low, high), (lower, upper) = ends(alpha), ends(2.0 * alpha)
    return {
        "value": (update - nothing) / n if n else None,
        "low": low,
        "high": high,
        "lower": lower,
        "upper": upper,
        "over": "clusters" if clusters else "pairs",
        "n": n,
        "only_update": update,
        "only_floor": nothing,
    }


def _resampled(clusters: list[tuple[int, int, int]], seed: int, alone: Interval) -> Interval:
    """Ends by resampling clusters, never within those for independent pairs; the added one does its worst for each."""
    draws = list(resample(clusters, stream(seed, "floor")))

    def ends(error: float) -> tuple[float, float]:
        (low,) = quantiles(((one - other - added) / n for n, one, other, added in draws), error / 2.0)
        (high,) = quantiles(((one - other + added) / n for n, one, other, added in draws), 1.0 - error / 2.0)
        return min(low, alone(error)[0]), max(high, alone(error)[1])

    return ends
