"""Statistics of proportions: definition, citation, example. The standard library only: `compare` starts at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

from flipguard.errors import FlipGuardError, shown
from flipguard.evaluate.comparison import Proportion

NEGLIGIBLE = 1e-17  # a term this much smaller than its sum no longer changes it
LEAST_ALPHA = 1e-6  # nobody is surer, and quantiles still are numbers
MOST_EXACT = 100_000  # beyond, the normal approximation is good enough
MOST_PROMPTS = 10_000_000  # nobody judges more; the plan says so instead of counting on


def at_most(k: int, n: int, p: float) -> float:
    """P(X <= k) for X ~ Binomial(n, p), exact up to rounding; about 1 ms at n = 1,000,000.

    The side whose terms decay away from k is summed, so a tiny tail keeps its relative accuracy.

    >>> round(at_most(1, 100, 0.05), 6)
    0.037081
    """
    if k < 0 or k >= n:
        return 0.0 if k < 0 else 1.0
    if p <= 0.0 or p >= 1.0:
        return 1.0 if p <= 0.0 else 0.0
    return _sum_down(k, n, p) if k < n * p else max(0.0, 1.0 - _sum_up(k + 1, n, p))


def at_least(k: int, n: int, p: float) -> float:
    """P(X >= k) for X ~ Binomial(n, p); the mirror of `at_most`.

    >>> round(at_least(1, 10, 0.1), 6)  # 1 - 0.9**10
    0.651322
    """
    if k <= 0 or k > n:
        return 1.0 if k <= 0 else 0.0
    if p <= 0.0 or p >= 1.0:
        return 0.0 if p <= 0.0 else 1.0
    return _sum_up(k, n, p) if k > n * p else max(0.0, 1.0 - _sum_down(k - 1, n, p))


def wilson(k: int, n: int, alpha: float = 0.05) -> tuple[float, float]:
    """The two-sided score interval of a proportion (Wilson, JASA 22, 1927); (0, 1) where n = 0.

    >>> [round(bound, 4) for bound in wilson(64, 1319)]
    [0.0382, 0.0615]
    """
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(1.0 - alpha / 2.0)
    share, shrink = k / n, 1.0 + z * z / n
    middle = (share + z * z / (2.0 * n)) / shrink
    half = z * math.sqrt(share * (1.0 - share) / n + z * z / (4.0 * n * n)) / shrink
    low = 0.0 if k == 0 else max(0.0, middle - half)
    return low, 1.0 if k == n else min(1.0, middle + half)


def upper_bound(k: int, n: int, alpha: float = 0.05) -> float:
    """The one-sided exact upper bound (Clopper & Pearson, Biometrika 26, 1934): P(X <= k; n, bound) = alpha.

    >>> round(upper_bound(0, 59), 4)  # the rule of three: 3 / 59
    0.0495
    """
    if n == 0 or k >= n:
        return 1.0
    if k == 0:
        return -math.expm1(math.log(alpha) / n)
    start = wilson(k, n, 2.0 * alpha)[1]
    return root(lambda p: at_most(k, n, p) - alpha, lambda p: -(n - k) / (1.0 - p) * _pmf(k, n, p), (k / n, start, 1.0))


def lower_bound(k: int, n: int, alpha: float = 0.05) -> float:
    """The one-sided exact lower bound (Clopper & Pearson, 1934): P(X >= k; n, bound) = alpha.

    >>> round(lower_bound(64, 1319), 4)
    0.0392
    """
    if n == 0 or k <= 0:
        return 0.0
    if k == n:
        return math.exp(math.log(alpha) / n)
    start = wilson(k, n, 2.0 * alpha)[0]
    return root(lambda p: at_least(k, n, p) - alpha, lambda p: k / p * _pmf(k, n, p), (0.0, start, k / n))


def proportion(k: int, n: int, alpha: float = 0.05) -> Proportion:
    """The share k / n with its Wilson interval and its one-sided Clopper-Pearson upper bound.

    >>> share = proportion(5, 100)
    >>> share.value, round(share.low, 4), round(share.high, 4), round(share.upper, 4)
    (0.05, 0.0215, 0.1118, 0.1023)
    """
    low, high = wilson(k, n, alpha)
    return Proportion(k, n, k / n if n else None, low, high, upper_bound(k, n, alpha))


def mcnemar(negative: int, positive: int) -> float:
    """Exact two-sided McNemar test (Psychometrika 12, 1947): the sign test on the discordant pairs.

    >>> f"{mcnemar(64, 293):.1e}", mcnemar(0, 0), mcnemar(7, 7)
    ('3.9e-36', 1.0, 1.0)
    """
    return min(1.0, 2.0 * at_most(min(negative, positive), negative + positive, 0.5))


def holm(p_values: Sequence[float]) -> list[float]:
    """Step-down adjusted p-values that keep the family-wise error (Holm, Scand. J. Statist. 6, 1979).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted = [1.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Step-up adjusted p-values that keep the share of false discoveries (Benjamini & Hochberg, JRSS B 57, 1995).

    >>> benjamini_hochberg([0.01, 0.04, 0.03])
    [0.03, 0.04, 0.04]
    """
    adjusted = [1.0] * len(p_values)
    lowest = 1.0
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    for rank, index in reversed(list(enumerate(order, 1))):
        lowest = min(lowest, p_values[index] * len(p_values) / rank)
        adjusted[index] = lowest
    return adjusted


def largest_passing_k(n: int, limit: float, alpha: float = 0.05) -> int | None:
    """The most flips among n pairs whose upper bound still is within `limit`; None where even 0 is too many.

    >>> [largest_passing_k(500, limit) for limit in (0.05, 0.10, 0.20)]
    [16, 38, 84]
    """
    if at_most(0, n, limit) > alpha:
        return None
    low, high = 0, n  # low passes; n never does, its bound is 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if at_most(middle, n, limit) <= alpha else (low, middle)
    return low


def prompts_needed(
    limit: float, true_nfr: float | None = None, power: float = 0.8, alpha: float = 0.05, *, grid: int = 5
) -> int:
    """The fewest prompts, a multiple of `grid`, that pass `limit` with probability `power` when the rate is `true_nfr`.

    `true_nfr` defaults to half the limit. Allowing k flips takes n(k) prompts; the power at n(k) grows with k.

    >>> [prompts_needed(limit) for limit in (0.05, 0.10, 0.20, 0.30)]
    [390, 180, 90, 55]
    """
    rate = limit / 2.0 if true_nfr is None else true_nfr
    if not 0.0 <= rate < limit < 1.0:
        raise FlipGuardError(
            f"true NFR {shown(rate)}, limit {shown(limit)}: only a rate below the limit can pass it. "
            "Choose 0 <= true NFR < limit < 1; 0.05 is 5 %."
        )
    if not (0.0 < power < 1.0 and 0.0 < alpha < 1.0):
        raise FlipGuardError(f"power {shown(power)}, alpha {shown(alpha)}: choose both between 0 and 1.")
    if _prompts_by_normal(rate, limit, power, alpha) > MOST_PROMPTS:
        raise FlipGuardError(
            f"true NFR {shown(rate)}, limit {shown(limit)}: too close, more than {MOST_PROMPTS:,} prompts. "
            "Choose a higher limit."
        )

    def power_at(flips: int) -> float:
        return at_most(flips, _prompts_for(flips, limit, alpha, grid), rate)

    enough = _smallest(lambda flips: power_at(flips) >= power)
    first = max(0, enough - 2 * grid)  # rounding up to the grid makes the power a saw: look behind its last teeth
    return _prompts_for(next(k for k in range(first, enough + 1) if power_at(k) >= power), limit, alpha, grid)


def prompts_to_decide(k: int, n: int, limit: float, power: float = 0.8, alpha: float = 0.05) -> int | None:
    """How many prompts, to two digits, tell a rate as that seen so far from `limit` with probability `power`.

    The rate is (k + 1/2) / (n + 1). Found by the normal approximation, then raised until the exact probability of a
    verdict is enough. None: more than MOST_PROMPTS, it is too close to the limit to tell.

    >>> prompts_to_decide(64, 1319, limit=0.06)
    2700
    """
    rate = (k + 0.5) / (n + 1.0)
    if limit <= 0.0 or limit >= 1.0 or rate == limit:
        return None
    needed = max(n + 1.0, _prompts_by_normal(rate, limit, power, alpha))
    if needed > MOST_PROMPTS:
        return None
    prompts = rounded_up(needed)
    while prompts < MOST_EXACT and chance_to_decide(rate, prompts, limit, alpha) < power:
        prompts = rounded_up(prompts + 1)
    return prompts


def chance_to_decide(rate: float, n: int, limit: float, alpha: float = 0.05) -> float:
    """The probability that n prompts pass `limit`, where the true rate is below it, or else that they fail it.

    >>> round(chance_to_decide(0.025, 390, 0.05), 3)
    0.817
    """
    if rate < limit:
        most = largest_passing_k(n, limit, alpha)
        return 0.0 if most is None else at_most(most, n, rate)
    return at_least(_smallest(lambda k: at_least(k, n, limit) < alpha), n, rate)


def rounded_up(number: float) -> int:
    """A rough number, two digits of it.

    >>> rounded_up(1234.5), rounded_up(99), rounded_up(3)
    (1300, 99, 3)
    """
    step: int = 10 ** max(0, math.floor(math.log10(number)) - 1)
    return math.ceil(number / step) * step


def _prompts_by_normal(rate: float, limit: float, power: float, alpha: float) -> float:
    normal = NormalDist()
    spread = normal.inv_cdf(1.0 - alpha) * math.sqrt(limit * (1.0 - limit))
    spread += normal.inv_cdf(power) * math.sqrt(rate * (1.0 - rate))
    return (spread / (limit - rate)) ** 2


def _pmf(k: int, n: int, p: float) -> float:
    choose = math.lgamma(n + 1.0) - math.lgamma(k + 1.0) - math.lgamma(n - k + 1.0)
    return math.exp(choose + k * math.log(p) + (n - k) * math.log1p(-p))


def _sum_down(k: int, n: int, p: float) -> float:
    """P(X <= k) where k is below the mean: P(i - 1) = P(i) · i (1 - p) / ((n - i + 1) p)."""
    odds, term, total, i = (1.0 - p) / p, 1.0, 1.0, k
    while i > 0 and term > NEGLIGIBLE * total:
        term *= i * odds / (n - i + 1)
        total += term
        i -= 1
    return min(1.0, total * _pmf(k, n, p))


def _sum_up(k: int, n: int, p: float) -> float:
    """P(X >= k) where k is above the mean: P(i + 1) = P(i) · (n - i) p / ((i + 1) (1 - p))."""
    odds, term, total, i = p / (1.0 - p), 1.0, 1.0, k
    while i < n and term > NEGLIGIBLE * total:
        term *= (n - i) * odds / (i + 1)
        total += term
        i += 1
    return min(1.0, total * _pmf(k, n, p))


def root(
    value: Callable[[float], float], slope: Callable[[float], float], bracket: tuple[float, float, float]
) -> float:
    """The root of a monotone function: Newton's steps, halving the bracket (low, start, high) where they leave it."""
    low, point, high = bracket
    falling = slope(point) < 0.0
    for _ in range(200):
        height = value(point)
        low, high = (point, high) if (height > 0.0) == falling else (low, point)
        steep = slope(point)
        following = point - height / steep if steep else low
        if not low < following < high:
            following = (low + high) / 2.0
        if abs(following - point) <= 1e-14 * point:
            return following
        point = following
    return point


def _smallest(holds: Callable[[int], bool]) -> int:
    """The smallest number >= 0 for which a monotone condition holds, by doubling and halving."""
    low, high = -1, 1
    while not holds(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _prompts_for(flips: int, limit: float, alpha: float, grid: int) -> int:
    """The fewest prompts, a multiple of `grid`, among which `flips` flips still pass."""
    return grid * _smallest(lambda steps: steps > 0 and at_most(flips, grid * steps, limit) <= alpha)
