"""A verdict that may be looked at after every judgment: `--sequential`.

Looking again and again at a fixed bound finds a pass sooner or later. Here money is bet instead, one account against
"the NFR is at least the limit" and one against "it is at most the limit". An account whose hypothesis is true does not
grow on average, so it ever reaches 1/alpha with probability alpha at most, however often and whenever one looks (Ville,
1939). The first account to get there decides, and no later pair changes that. The bets are a mixture of constant ones
(Waudby-Smith & Ramdas, "Estimating means of bounded random variables by betting", JRSS B 86, 2024), so the accounts
depend on the counts alone.

The pairs must come in random order, one independent prompt each: a file sorted by difficulty decides by its first
lines. Two runs are taken in the order of the new one, whose answers come one by one. Pairs that share a cluster or a
prompt are refused: each of them would be bet on as if it were news.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from flipguard.errors import FlipGuardError, shown
from flipguard.evaluate.comparison import Pair
from flipguard.evaluate.pairs import Pairs
from flipguard.evaluate.runs import Key

SHIFTS = tuple(0.25 * step for step in range(1, 13))  # alternatives bet on, in log odds from the limit
Course = Literal["pass", "fail", "continue"]


@dataclass(frozen=True, slots=True)
class Sequential:
    """What the accounts said after `n` pairs with `k` negative flips: at the decision, or at the end of the data.

    `decided_at` is None as long as the verdict is to continue; `against_high` is the account against an NFR of at least
    the limit, which passes at 1/alpha, `against_low` the one against at most the limit, which fails.
    """

    limit: float
    alpha: float
    verdict: Course
    decided_at: int | None
    n: int
    k: int
    against_high: float
    against_low: float


def sequential(flips: Iterable[bool], limit: float, alpha: float = 0.05) -> Sequential:
    """Bet on one pair after the other until an account reaches 1/alpha, or the data end.

    Each side errs with probability alpha at most: a true NFR of at least `limit` passes, or one of at most it fails.

    Args:
        flips: whether each pair is a negative flip, in random order.
        limit: the NFR that must not be reached, between 0 and 1.
        alpha: error of either verdict.

    >>> sequential([False] * 100, limit=0.05).decided_at
    74
    >>> sequential([True, False, True, True, True], limit=0.05).verdict
    'fail'
    """
    k = n = 0
    high = low = 1.0
    for n, (k, high, low) in enumerate(_accounts(flips, limit), 1):
        if max(high, low) >= 1.0 / alpha:
            verdict: Course = "pass" if high >= low else "fail"
            return Sequential(limit, alpha, verdict, n, n, k, high, low)
    return Sequential(limit, alpha, "continue", None, n, k, high, low)


def decide_early(pairs: Iterable[Pair], limit: float | None, alpha: float, arrived: Sequence[Key] = ()) -> Sequential:
    """The sequential verdict on valid pairs in the order in which they came, so that what was seen stays as it was.

    Args:
        pairs: matched pairs.
        limit: on the NFR; there must be one.
        alpha: error of either verdict.
        arrived: id and repeat in the order in which the new answers came; the order of `pairs` where it is empty.

    Raises:
        FlipGuardError: there is no limit, or it leaves nothing to bet on, or pairs are not independent.
    """
    if limit is None or not 0.0 < limit < 1.0:
        given = "is missing" if limit is None else shown(limit)
        raise FlipGuardError(f"--sequential: --max-nfr {given}. Choose a limit between 0 and 1, both excluded.")
    table = Pairs.of(pairs)
    outcomes = dict(zip(table.old.order, table.outcomes, strict=True))
    in_order = [outcomes[key] for key in arrived if key in outcomes] if arrived else table.outcomes
    valid = [outcome for outcome in in_order if outcome != "invalid"]
    groups = {group for group, outcome in zip(table.groups(), table.outcomes, strict=True) if outcome != "invalid"}
    shared = len(valid) - len(groups)
    if shared:
        raise FlipGuardError(
            f"--sequential: {shared:,} of {len(valid):,} pairs share a cluster or a prompt with an earlier one, and "
            "looking after every pair is sound for independent prompts only. "
            "Leave it out, or keep one pair of each cluster."
        )
    return sequential((outcome == "negative_flip" for outcome in valid), limit, alpha)


def _accounts(flips: Iterable[bool], limit: float) -> Iterator[tuple[int, float, float]]:
    """The number of flips so far and both accounts, after each pair.

    A bet on the rate q instead of the limit m is worth q/m after a flip and (1 - q)/(1 - m) after none; 1 on average
    where the rate is m.
    """
    odds = math.log(limit / (1.0 - limit))
    below = [_worth(1.0 / (1.0 + math.exp(shift - odds)), limit) for shift in SHIFTS]
    above = [_worth(1.0 / (1.0 + math.exp(-shift - odds)), limit) for shift in SHIFTS]
    high, low = [1.0 / len(SHIFTS)] * len(SHIFTS), [1.0 / len(SHIFTS)] * len(SHIFTS)
    k = 0
    for flip in flips:
        k += flip
        high = [stake * worth[flip] for stake, worth in zip(high, below, strict=True)]
        low = [stake * worth[flip] for stake, worth in zip(low, above, strict=True)]
        yield k, sum(high), sum(low)


def _worth(rate: float, limit: float) -> tuple[float, float]:
    return (1.0 - rate) / (1.0 - limit), rate / limit
