"""Categories: which of them changed, with the price of looking at many paid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from flipguard.evaluate.comparison import Slice
from flipguard.evaluate.stats import benjamini_hochberg, holm, mcnemar


def adjusted(slices: Sequence[Slice], smallest: int = 0) -> tuple[Slice, ...]:
    """The slices with their tests of better against worse, adjusted for the number of tests.

    Args:
        slices: counted; where they share clusters, with the p-value over clusters, else the exact one is taken.
        smallest: slices with fewer valid pairs get no p-value and do not count among the tests. Size says nothing of
            which way pairs went, so that leaving small slices out spoils no other p-value.
    """
    chosen = [index for index, part in enumerate(slices) if part.n >= smallest]
    p_values = [_p_value(slices[index]) for index in chosen]
    alone = dict(zip(chosen, p_values, strict=True))
    gating = dict(zip(chosen, holm(p_values), strict=True))
    reading = dict(zip(chosen, benjamini_hochberg(p_values), strict=True))
    return tuple(
        replace(part, p_adjusted=gating.get(index), p_discovery=reading.get(index), p_value=alone.get(index))
        for index, part in enumerate(slices)
    )


def _p_value(part: Slice) -> float:
    if part.test == "signs of clusters" and part.p_value is not None:
        return part.p_value
    return mcnemar(part.negative_flips, part.positive_flips)
