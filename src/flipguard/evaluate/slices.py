"""Categories: which of them changed, with the price of looking at many paid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from flipguard.evaluate.comparison import Slice
from flipguard.evaluate.stats import benjamini_hochberg, holm, mcnemar


def adjusted(slices: Sequence[Slice], smallest: int = 0) -> tuple[Slice, ...]:
    """The slices with their exact McNemar tests of better against worse, adjusted for the number of tests.

    Args:
        slices: counted; p-values that they have already are not looked at.
        smallest: slices with fewer valid pairs get no p-value and do not count among the tests. Size says nothing of
            which way pairs went, so that leaving small slices out spoils no other p-value.
    """
    chosen = [index for index, part in enumerate(slices) if part.n >= smallest]
    p_values = [mcnemar(slices[index].negative_flips, slices[index].positive_flips) for index in chosen]
    gating = dict(zip(chosen, holm(p_values), strict=True))
    reading = dict(zip(chosen, benjamini_hochberg(p_values), strict=True))
    return tuple(
        replace(part, p_adjusted=gating.get(index), p_discovery=reading.get(index)) for index, part in enumerate(slices)
    )
