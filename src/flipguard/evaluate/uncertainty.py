"""What a comparison says beyond its rates: with clusters, orders, a floor and a rival taken into account."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from flipguard.evaluate.bootstrap import clustered
from flipguard.evaluate.change import change, means
from flipguard.evaluate.companions import Companion, accompany
from flipguard.evaluate.comparison import Comparison, Pair
from flipguard.evaluate.floor import floor
from flipguard.evaluate.intake import Intake
from flipguard.evaluate.orders import orders
from flipguard.evaluate.rivals import rival
from flipguard.evaluate.runs import Judged, Metric, Run
from flipguard.evaluate.slices import adjusted


@dataclass(frozen=True, slots=True)
class Further:
    """What is asked for besides the two runs.

    Attributes:
        floor: graded answers of the old model sampled again, or judgments of it against itself.
        against: graded answers of another candidate, or judgments of it against the same old model.
        seed: of resampling and of drawn signs.
        min_slice: categories with fewer valid pairs are not tested.
    """

    floor: Path | None
    against: Path | None
    seed: int
    min_slice: int

    def read(
        self, base: Run | Judged, intake: Intake, format_name: str | None, *, margin: float
    ) -> dict[str, Companion]:
        """The further runs, paired with the old model of `base`, by the option that named them."""
        named = {"floor": self.floor, "against": self.against}
        return {
            option: accompany(option, path, base, intake, format_name, margin=margin)
            for option, path in named.items()
            if path is not None
        }

    def measure(
        self, comparison: Comparison, pairs: Sequence[Pair], metric: Metric, companions: Mapping[str, Companion]
    ) -> Comparison:
        """The comparison with all that follows from the pairs and the further runs."""
        alpha, again, other = comparison.alpha, companions.get("floor"), companions.get("against")
        return replace(
            comparison,
            slices=adjusted(comparison.slices, self.min_slice),
            clustered=clustered(pairs, alpha, self.seed),
            orders=orders(pairs, alpha) if metric == "verdicts" else None,
            means=None if metric == "verdicts" else means(pairs),
            change=change(pairs, alpha, self.seed) if metric == "score" else None,
            floor=None if again is None else floor(pairs, again.pairs, alpha, self.seed),
            rival=None if other is None else rival(other.name, pairs, other.pairs, alpha, self.seed),
        )
