"""How many pairs went which way, in all and in each category."""

from __future__ import annotations

from collections import Counter
from itertools import repeat
from operator import eq

from flipguard.evaluate.comparison import Outcome
from flipguard.evaluate.pairs import Pairs


class Tally:
    """Outcomes counted; `n` are the valid ones, `right` those of them whose old answer scored 1."""

    __slots__ = ("inconsistent", "invalid", "n", "negative_flip", "positive_flip", "right", "tie")

    def __init__(self) -> None:
        self.n = self.right = self.negative_flip = self.positive_flip = self.tie = self.inconsistent = self.invalid = 0

    def add(self, outcome: Outcome, count: int, *, right: bool) -> None:
        """Count `count` more pairs of this outcome, whose old answers were all right or all were not."""
        match outcome:
            case "tie":
                self.tie += count
            case "negative_flip":
                self.negative_flip += count
            case "positive_flip":
                self.positive_flip += count
            case "inconsistent":
                self.inconsistent += count
            case "invalid":
                self.invalid += count
                return
        self.n += count
        self.right += right * count


def tally(pairs: Pairs) -> tuple[Tally, dict[str, Tally]]:
    """All pairs counted, and those of each category."""
    whole, slices = Tally(), dict[str, Tally]()
    right = map(eq, pairs.old.scores, repeat(1.0))
    for (outcome, was_right, names), count in Counter(
        zip(pairs.outcomes, right, pairs.categories, strict=True)
    ).items():
        whole.add(outcome, count, right=was_right)
        for name in names:
            slices.setdefault(name, Tally()).add(outcome, count, right=was_right)
    return whole, slices
