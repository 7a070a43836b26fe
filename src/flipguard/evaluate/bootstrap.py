"""Pairs that belong together, resampled together: intervals where Wilson and Clopper-Pearson would claim too much.

Turns of a conversation, prompts of one template and repeated samples of one prompt resemble each other, so that n of
them tell less than n prompts of their own; bounds for independent pairs then let bad updates pass. Here clusters are
drawn with replacement (Davison & Hinkley, Bootstrap Methods and their Application, 1997, section 3.8).

The plain percentile interval cannot see what has not happened yet: with no flip among ten prompts its upper bound is 0.
So one cluster more, of the average size, is put into the urn: all flips for the bounds above, none for those below. It
does for clusters what k + 1 does for Clopper-Pearson. `benchmarks/coverage.py` measures what that is worth.
"""

from __future__ import annotations

import math
from bisect import bisect
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, compress
from random import Random
from statistics import NormalDist

from flipguard.evaluate.comparison import Pair, Proportion
from flipguard.evaluate.difference import tango
from flipguard.evaluate.pairs import Part
from flipguard.evaluate.permutation import signs, stream
from flipguard.evaluate.stats import MOST_PROMPTS, lower_bound, rounded_up, upper_bound

DRAWS = 1_999  # so that the usual quantiles are one of the draws
FEW = 20  # trials of a binomial done one by one
SPLIT = 50  # clusters of a kind, on average, from which counts are drawn instead of clusters

Cluster = tuple[int, int, int]  # valid pairs, how many of them had one outcome, how many the other
Draw = tuple[int, int, int, int]  # the same of a resample, and how many pairs the added cluster gave


@dataclass(frozen=True, slots=True)
class Bounds:
    """A share: two-sided `low`..`high`, and the one-sided `lower` and `upper` that a limit is held against."""

    value: float
    low: float
    high: float
    lower: float
    upper: float


@dataclass(frozen=True, slots=True)
class Clustered:
    """The rates with clusters resampled; there only where some cluster has several valid pairs.

    `design_effect` says how many times the variance of the NFR is that of independent pairs (Kish, Survey Sampling,
    1965), None where it cannot be told; `net_low`..`net_high` is the interval of the net change, `net_p_value` its test
    with clusters kept whole.
    """

    clusters: int
    largest: int
    draws: int
    seed: int
    design_effect: float | None
    nfr: Bounds
    win_rate: Bounds
    net_low: float
    net_high: float
    net_p_value: float


def cluster_of(pair: Pair) -> Hashable:
    """What a pair belongs to: its cluster, or else its prompt, whose repeats belong together."""
    return ("id", pair.id) if pair.cluster is None else ("cluster", pair.cluster)


def clustered(
    pairs: Iterable[Pair], alpha: float = 0.05, seed: int = 0, *, name: str = "", draws: int = DRAWS
) -> Clustered | None:
    """Bounds for NFR and win rate with clusters resampled; None where every cluster has one valid pair.

    The bounds held against a limit are never tighter than those of Clopper and Pearson for independent pairs.

    Args:
        pairs: matched pairs; invalid ones are left out.
        alpha: error of the bounds.
        seed: of the resampling.
        name: of a part of the pairs, whose random numbers are its own.
        draws: how often.
    """
    part = Part.of(pairs)
    clusters = [] if part.table.independent() else _tallied(part)
    largest = max((size for size, _, _ in clusters), default=0)
    if largest <= 1:
        return None
    drawn = list(resample(clusters, stream(seed, f"clusters{name}"), draws))
    turned = [(size, better, worse, added) for size, worse, better, added in drawn]
    n, worse, better = map(sum, zip(*clusters, strict=True))
    nets = [better - worse for _, worse, better in clusters]
    low, high = difference(better, worse, n, turned, alpha)
    return Clustered(
        clusters=len(clusters),
        largest=largest,
        draws=draws,
        seed=seed,
        design_effect=design_effect([cluster[:2] for cluster in clusters]),
        nfr=bounds(worse, n, drawn, alpha),
        win_rate=bounds(better, n, turned, alpha),
        net_low=low,
        net_high=high,
        net_p_value=signs(nets, stream(seed, f"net{name}")),
    )


def _tallied(part: Part) -> list[Cluster]:
    groups, outcomes = part.groups(), part.outcomes()
    sizes = Counter(group for group, outcome in zip(groups, outcomes, strict=True) if outcome != "invalid")
    worse, better = (
        Counter(compress(groups, (outcome == wanted for outcome in outcomes)))
        for wanted in ("negative_flip", "positive_flip")
    )
    return [(size, worse[group], better[group]) for group, size in sizes.items()]


def resample(clusters: Sequence[Cluster], rng: Random, draws: int = DRAWS) -> Iterator[Draw]:
    """Draw as many clusters as there are and one more, from these and an added one of the average size."""
    return resample_kinds(Counter(clusters), rng, draws)


def resample_kinds(clusters: Counter[Cluster], rng: Random, draws: int) -> Iterator[Draw]:
    """The same where it is known how many clusters have the same counts, which are of one kind.

    Where kinds are few, their numbers are drawn at once, which is the same multinomial distribution at a price that
    hardly grows with the number of clusters.
    """
    size = math.ceil(sum(cluster[0] * many for cluster, many in clusters.items()) / clusters.total())
    kinds = Counter({(*cluster, 0): many for cluster, many in clusters.items() if many})
    kinds[size, 0, 0, size] += 1  # what the added cluster's pairs did is up to the reader of the draw
    columns = tuple(zip(*kinds, strict=True))
    total, weights = clusters.total() + 1, list(kinds.values())
    reached = list(accumulate(weights))
    for _ in range(draws):
        if total > SPLIT * len(kinds):
            numbers = _multinomial(rng, total, weights)
        else:
            numbers = [0] * len(kinds)
            for _ in range(total):
                numbers[bisect(reached, rng.random() * total)] += 1
        n, one, other, added = (sum(map(int.__mul__, numbers, column)) for column in columns)
        yield n, one, other, added


def quantiles(values: Iterable[float], *shares: float) -> list[float]:
    """The order statistics number share · (draws + 1) (Davison & Hinkley, 1997, equation 5.6).

    >>> quantiles(range(1, 2000), 0.05, 0.975)
    [100, 1950]
    """
    ordered = sorted(values)
    last = len(ordered) - 1
    return [ordered[min(last, max(0, round(share * (len(ordered) + 1)) - 1))] for share in shares]


def design_effect(clusters: Sequence[tuple[int, int]]) -> float | None:
    """Variance of the share over clusters (n, k), linearised, by that of as many independent pairs; None if unknown.

    >>> design_effect([(2, 2), (2, 0)] * 50), design_effect([(2, 0)] * 50)
    (2.0202020202020203, None)
    """
    n, k = sum(size for size, _ in clusters), sum(flips for _, flips in clusters)
    share, many = k / n, len(clusters)
    if many < 2 or k in (0, n):
        return None
    spread = math.fsum((flips - share * size) ** 2 for size, flips in clusters)
    return many / (many - 1) * spread / n / (share * (1.0 - share))


def clusters_to_decide(
    share: Proportion, told: Clustered, limit: float, power: float = 0.8, alpha: float = 0.05
) -> int | None:
    """Roughly how many clusters like these would tell the rate seen so far from `limit`, by the normal approximation.

    The resampled bound lies as far from the rate as the added cluster moves it and its own spread, which follows from
    the design effect; where that is unknown, all pairs of a cluster are taken to be alike. The rate is
    (k + 1/2) / (n + 1). None: more than MOST_PROMPTS pairs, it is too close to the limit to tell.
    """
    size = share.n / told.clusters
    rate = (share.k + 0.5) / (share.n + 1.0)
    if limit <= 0.0 or limit >= 1.0 or rate == limit:
        return None
    spread = rate * (1.0 - rate) * max(1.0, size if told.design_effect is None else told.design_effect) / size
    worst = 1.0 - rate if rate < limit else rate
    sure, likely = NormalDist().inv_cdf(1.0 - alpha), NormalDist().inv_cdf(power)

    def decide(clusters: int) -> bool:
        moved = worst / (clusters + 1)
        resampled = moved + sure * math.sqrt(spread / clusters + moved * moved)
        exact = sure * math.sqrt(limit * (1.0 - limit) / (clusters * size))
        return max(resampled, exact) + likely * math.sqrt(spread / clusters) <= abs(limit - rate)

    few, enough = told.clusters, math.ceil(MOST_PROMPTS / size)
    if not decide(enough):
        return None
    while enough - few > 1:
        middle = (few + enough) // 2
        few, enough = (few, middle) if decide(middle) else (middle, enough)
    return rounded_up(enough)


def bounds(k: int, n: int, draws: Sequence[Draw], alpha: float) -> Bounds:
    """The bounds of k / n by its resamples; those for a limit never tighter than for independent pairs."""
    value = k / n
    low, lower = quantiles((one / size for size, one, _, _ in draws), alpha / 2, alpha)
    upper, high = quantiles(((one + added) / size for size, one, _, added in draws), 1 - alpha, 1 - alpha / 2)
    return Bounds(
        value=value,
        low=min(low, value),
        high=max(high, value),
        lower=min(lower, lower_bound(k, n, alpha)),
        upper=max(upper, upper_bound(k, n, alpha)),
    )


def difference(first: int, second: int, n: int, draws: Sequence[Draw], alpha: float) -> tuple[float, float]:
    """Both ends of (first - second) / n: Tango's, or, of resamples, the wider; the added cluster does its worst."""
    low, high = tango(first, second, n, alpha)
    if draws:
        (least,) = quantiles(((one - other - added) / size for size, one, other, added in draws), alpha / 2)
        (most,) = quantiles(((one - other + added) / size for size, one, other, added in draws), 1 - alpha / 2)
        low, high = min(low, least), max(high, most)
    return low, high


def _multinomial(rng: Random, total: int, weights: Sequence[int]) -> list[int]:
    numbers, rest = [], sum(weights)
    for weight in weights:
        number = binomial(rng, total, weight / rest) if weight < rest else total
        numbers.append(number)
        total, rest = total - number, rest - weight
    return numbers


def binomial(rng: Random, trials: int, p: float) -> int:
    """How many of `trials` uniform numbers lie below p: draw their median, keep the half that p cuts, go on in it.

    Exact, in logarithmic time (Relles, JASA 67, 1972).
    """
    below = 0
    while trials > FEW:
        middle = 1 + trials // 2
        median = rng.betavariate(middle, trials + 1 - middle)
        if median >= p:
            trials, p = middle - 1, p / median
        else:
            below += middle
            trials, p = trials - middle, (p - median) / (1.0 - median)
    return below + sum(rng.random() < p for _ in range(trials))
