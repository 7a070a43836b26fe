"""Numbers drawn from an urn with replacement: their sum and their ranks, at a price that does not grow with them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from flipguard.evaluate.bootstrap import binomial

FEW = 8_192  # numbers drawn one by one
OF_MORE = 7_499  # numbers in whose time a draw of more is made
LARGEST = 100  # of more, those drawn one by one; the sum of the others is normal


@dataclass(frozen=True, slots=True)
class Drawn:
    """What is asked of `many` numbers: their sum, the greatest, and `at` a rank from 0 in ascending order."""

    many: int
    total: float
    deepest: float
    at: Callable[[int], float]

    @classmethod
    def of(cls, ordered: Sequence[float]) -> Drawn:
        """Of numbers in ascending order."""
        return cls(len(ordered), math.fsum(ordered), ordered[-1] if ordered else 0.0, ordered.__getitem__)


class Urn:
    """Numbers to draw from, in ascending order.

    Up to FEW are drawn one by one. Of more, each rank of a draw is drawn by itself, as uniform numbers have it (a beta
    distribution: David & Nagaraja, Order Statistics, 2003, section 2.1), which tells nothing of how two ranks of a draw
    go together; and the sum is that of the LARGEST ones, drawn one by one, and of the others, each of which is small
    beside those, so that their sum is normal to much less than the drawing errs.
    """

    def __init__(self, ordered: Sequence[float], rng: Random) -> None:
        self._ordered = ordered
        self._rng = rng
        few = len(ordered) <= FEW
        self._small, self._large = (self._ordered[:-LARGEST], self._ordered[-LARGEST:]) if not few else ([], [])
        self._mean = math.fsum(self._small) / max(1, len(self._small))
        self._spread = math.dist(self._small, [self._mean] * len(self._small)) / math.sqrt(max(1, len(self._small)))

    @property
    def work(self) -> int:
        """Roughly how many numbers one draw of them all takes, counting what ranks and counts take."""
        return OF_MORE if self._small else len(self._ordered)

    def draw(self, many: int) -> Drawn:
        """Draw `many` numbers."""
        rng, ordered = self._rng, self._ordered
        if not self._small:
            return Drawn.of(sorted(rng.choices(ordered, k=many)) if many else [])
        large = binomial(rng, many, len(self._large) / len(ordered))
        total = math.fsum(rng.choices(self._large, k=large))
        total += (many - large) * self._mean + math.sqrt(many - large) * self._spread * rng.gauss()

        def at(rank: int) -> float:
            return ordered[min(len(ordered) - 1, int(rng.betavariate(rank + 1, many - rank) * len(ordered)))]

        return Drawn(many, total, ordered[-1], at)
