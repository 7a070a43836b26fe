"""Two candidates against one old model: does one of them break less than the other, prompt by prompt?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flipguard.evaluate.comparison import Outcome, Pair
from flipguard.evaluate.stats import mcnemar


@dataclass(frozen=True, slots=True)
class Rivalry:
    """How often each of two candidates alone had an outcome, over the prompts both were graded on.

    `p_value` is McNemar's exact one, two-sided: the chance of a difference this large if both had it equally often.
    """

    n: int
    only_first: int
    only_second: int
    p_value: float


def rivalry(first: Sequence[Pair], second: Sequence[Pair], outcome: Outcome = "negative_flip") -> Rivalry:
    """Compare two candidates' outcomes on the prompts that both have, paired by (id, repeat).

    Args:
        first: pairs of the old model and one candidate.
        second: pairs of the same old model and the other candidate.
        outcome: what is counted.
    """
    seen = {(pair.id, pair.repeat): pair.outcome for pair in second if pair.outcome != "invalid"}
    n = only_first = only_second = 0
    for pair in first:
        other = seen.get((pair.id, pair.repeat))
        if other is None or pair.outcome == "invalid":
            continue
        n += 1
        only_first += pair.outcome == outcome != other
        only_second += other == outcome != pair.outcome
    return Rivalry(n, only_first, only_second, mcnemar(only_first, only_second))
