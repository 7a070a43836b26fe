"""The paired permutation test: if the update changed nothing, every change might as well have had the other sign."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from heapq import nlargest
from operator import add, mul
from random import Random

from flipguard.evaluate.columns import MANY
from flipguard.evaluate.stats import at_most

_LOG_2 = math.log(2.0)
DRAWS = 1_999  # p-values of a simulation go down to 1 / 2,000
STEPS = 2_000_000  # additions that an exact distribution of sums may take
EXACT = 26  # up to here all 2**n signs are counted
MOST = 8_192  # signs drawn one by one
BLOCK = 8  # changes whose signs are drawn together, as one byte
ROUNDING = 1e-12  # relative to the sum of all sizes: sums this close are the same sum in another order


def stream(seed: int, name: str) -> Random:
    """Random numbers for one statistic: its own, so that asking for another statistic changes none.

    >>> stream(0, "net").random() == stream(0, "net").random() != stream(0, "floor").random()
    True
    """
    return Random(f"{seed} {name}")  # noqa: S311 - statistics, not secrets


def sign_flip(changes: Sequence[float], rng: Random, draws: int = DRAWS) -> tuple[float, int]:
    """Two-sided p-value of a mean change of zero (Fisher, The Design of Experiments, 1935, section 21).

    Exact up to 26 changes other than zero; else (1 + sums as large) / (1 + draws), which never claims too much
    (Phipson & Smyth, Stat. Appl. Genet. Mol. Biol. 9, 2010). Give one change a cluster, the sum of its pairs: they
    change sign together. Of more than 8,192 changes the largest get their signs one by one; the sum of the others,
    each of which is small beside those, is normal to much less than the drawing errs.

    Args:
        changes: new minus old, finite.
        rng: where signs come from.
        draws: how many sets of signs.

    Returns:
        the p-value, and how many sets of signs were drawn; 0 where all were counted.

    >>> sign_flip([1.0] * 6, Random(0))
    (0.03125, 0)
    """
    moved = changes if all(changes) else [change for change in changes if change]
    seen = abs(sum(moved)) - ROUNDING * size(moved)
    if seen <= 0.0:
        return 1.0, 0
    if len(moved) <= EXACT:
        return 2.0 * _share_at_least(seen, moved), 0
    largest, rest = (moved, 0.0) if len(moved) <= MOST else _largest(moved)
    totals = _drawn(largest, rng, draws)
    if rest:
        totals = [total + rng.gauss(0.0, rest) for total in totals]
    larger = sum(abs(total) >= seen for total in totals)
    return (1 + larger) / (1 + draws), draws


def size(values: Sequence[float]) -> float:
    """The sum of all sizes; infinite or NaN where one is."""
    if len(values) < MANY:
        return sum(map(abs, values))
    from flipguard.evaluate.many import size

    return size(values)


def _largest(changes: Sequence[float]) -> tuple[list[float], float]:
    """The sizes of the largest changes, and the standard deviation of the sum of the others under random signs."""
    if len(changes) >= MANY:
        from flipguard.evaluate.many import largest

        return largest(changes, MOST)
    found = nlargest(MOST, map(abs, changes))
    return found, _spread(changes, found)


def _spread(changes: Sequence[float], largest: Sequence[float]) -> float:
    """The standard deviation of the sum of all but the largest changes under random signs."""
    unit = largest[0]
    every, drawn = ([change / unit for change in part] for part in (changes, largest))
    return unit * math.sqrt(max(0.0, math.fsum(map(mul, every, every)) - math.fsum(map(mul, drawn, drawn))))


def signs(counts: Sequence[int], rng: Random) -> float:
    """`sign_flip` for whole numbers, exact as far as it can be afforded; with counts of ±1 it is McNemar's exact test.

    Under random signs, counts of one size add up to a binomial number of them; the sizes are convolved.

    >>> round(signs([1, 1, 1, 1, 1, -1], Random(0)), 6), signs([2, 1, 1], Random(0))
    (0.21875, 0.25)
    """
    sizes = Counter(abs(count) for count in counts if count)
    total, seen = sum(size * many for size, many in sizes.items()), abs(sum(counts))
    if seen == 0:
        return 1.0
    if len(sizes) == 1:
        ((size, many),) = sizes.items()
        return min(1.0, 2.0 * at_most((many - seen // size) // 2, many, 0.5))
    if total * sum(sizes.values()) > STEPS:
        return sign_flip(counts, rng)[0]
    chances = [1.0]  # of half the sum of sizes plus the signed sum
    for size, many in sizes.items():
        following = [0.0] * (len(chances) + size * many)
        for plus in range(many + 1):
            weight = math.exp(
                math.lgamma(many + 1) - math.lgamma(plus + 1) - math.lgamma(many - plus + 1) - many * _LOG_2
            )
            for start, chance in enumerate(chances, size * plus):
                following[start] += weight * chance
        chances = following
    return min(1.0, 2.0 * math.fsum(chances[: (total - seen) // 2 + 1]))


def _share_at_least(least: float, changes: Sequence[float]) -> float:
    """Share of all signs whose sum is at least `least`: each sum of one half meets the sorted sums of the other."""
    half = len(changes) // 2
    left, right = _signed_sums(changes[:half]), sorted(_signed_sums(changes[half:]))
    return sum(len(right) - bisect_left(right, least - total) for total in left) / (len(left) * len(right))


def _signed_sums(changes: Sequence[float]) -> list[float]:
    sums = [0.0]
    for change in changes:
        sums = [total + change for total in sums] + [total - change for total in sums]
    return sums


def _drawn(changes: Sequence[float], rng: Random, draws: int) -> list[float]:
    """Sums under random signs: a byte chooses among the 256 signed sums of eight changes."""
    if len(changes) >= MOST:
        from flipguard.evaluate.many import added

        tables = (_table(changes[start : start + BLOCK]) for start in range(0, len(changes), BLOCK))
        return added((table, rng.randbytes(draws)) for table in tables)
    totals = [0.0] * draws
    for start in range(0, len(changes), BLOCK):
        table = _table(changes[start : start + BLOCK])
        totals = list(map(add, totals, map(table.__getitem__, rng.randbytes(draws))))
    return totals


def _table(changes: Sequence[float]) -> list[float]:
    """The signed sum that each byte chooses."""
    sums = _signed_sums(changes)
    return sums * ((1 << BLOCK) // len(sums))
