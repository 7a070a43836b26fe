"""How pairs were drawn, one by one or several to a cluster, and the intervals and tests that go with it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from flipguard.evaluate.bootstrap import Bounds, bounds, cluster_of, clustered, resample
from flipguard.evaluate.comparison import Comparison, Net, Pair, Proportion, Slice, Test
from flipguard.evaluate.pairs import Part
from flipguard.evaluate.permutation import signs, stream
from flipguard.evaluate.stats import mcnemar, proportion

Estimate = Callable[[Counter[Any]], float | None]
"""A number from how many rows count as what; None where they cannot tell it."""

SLICE_DRAWS = 999  # there may be many categories


@dataclass(frozen=True, slots=True)
class Sampling:
    """Exact for independent pairs; where some share a cluster, clusters are resampled and change signs whole.

    Attributes:
        alpha: error of the intervals.
        seed: of resamples and drawn signs.
        clusters: whether to look for shared clusters at all; without, every pair stands for itself.
    """

    alpha: float = 0.05
    seed: int = 0
    clusters: bool = False

    def share(self, hits: Collection[Pair], pairs: Collection[Pair], name: str) -> Proportion:
        """The share of `pairs` that are `hits`; `name` tells its random numbers from those of other shares."""
        exact = proportion(len(hits), len(pairs), self.alpha)
        return self.over(exact, _groups(hits), _groups(pairs), name) if self.clusters else exact

    def over(self, exact: Proportion, hits: Sequence[Hashable], rows: Sequence[Hashable], name: str) -> Proportion:
        """`exact` with its uncertainty over the clusters that `rows` belong to, some of them `hits`."""
        sizes, counts = Counter(rows), Counter(hits)
        if not self.clusters or len(sizes) == len(rows):
            return exact
        clusters = [(size, counts[cluster], 0) for cluster, size in sizes.items()]
        draws = list(resample(clusters, stream(self.seed, name), SLICE_DRAWS))
        return over_clusters(exact, bounds(exact.k, exact.n, draws, self.alpha))

    def test(self, more: Collection[Pair], less: Collection[Pair], name: str) -> tuple[float, Test]:
        """Two-sided p-value of "as many one way as the other", and which test it is of."""
        if self.clusters:
            nets = Counter(_groups(more))
            nets.subtract(_groups(less))
            if len(nets) < len(more) + len(less):
                return signs(list(nets.values()), stream(self.seed, name)), "signs of clusters"
        return mcnemar(len(less), len(more)), "exact McNemar"

    def error(self, groups: Sequence[Hashable], cells: Sequence[Hashable], estimate: Estimate) -> float | None:
        """Standard error over clusters of what `estimate` makes of counts, by the jackknife; None without clusters.

        Each cluster is left out once (Efron, The Jackknife, 1982); where the rest tells nothing, the whole stands in.

        Args:
            groups: what each row belongs to.
            cells: what each row counts as.
            estimate: from how many rows count as what.
        """
        if not self.clusters or len(set(groups)) == len(groups) or (whole := estimate(Counter(cells))) is None:
            return None
        parts: dict[Hashable, Counter[Hashable]] = {}
        for group, cell in zip(groups, cells, strict=True):
            parts.setdefault(group, Counter())[cell] += 1
        if len(parts) < 2:
            return None
        total, without = Counter(cells), []
        for part in parts.values():
            left = estimate(total - part)
            without.append(whole if left is None else left)
        mean = math.fsum(without) / len(without)
        return math.sqrt(math.fsum((one - mean) ** 2 for one in without) * (len(without) - 1) / len(without))


INDEPENDENT = Sampling()


def over_clusters(share: Proportion, told: Bounds) -> Proportion:
    """The same share with its uncertainty over clusters."""
    return replace(share, low=told.low, high=told.high, upper=told.upper, over="clusters")


def reconsidered(comparison: Comparison, pairs: Iterable[Pair], seed: int) -> Comparison:
    """The comparison with rates, net change and categories over clusters, where `clustered` says that there are any.

    A category whose own pairs share no cluster keeps its exact interval and test.
    """
    whole = comparison.clustered
    if whole is None:
        return comparison
    table = Part.of(pairs)
    right = table.where(score == 1.0 for score in table.table.old.scores)
    by_name = table.by_category()
    given = comparison.nfr_given_correct
    if given is not None and (told := clustered(right, comparison.alpha, seed)) is not None:
        given = over_clusters(given, told.nfr)
    return replace(
        comparison,
        nfr=over_clusters(comparison.nfr, whole.nfr),
        win_rate=over_clusters(comparison.win_rate, whole.win_rate),
        nfr_given_correct=given,
        net=Net(comparison.net.value, whole.net_p_value, "signs of clusters", whole.net_low, whole.net_high),
        slices=tuple(_slice(part, by_name[part.name], comparison.alpha, seed) for part in comparison.slices),
    )


def _slice(part: Slice, pairs: Iterable[Pair], alpha: float, seed: int) -> Slice:
    told = clustered(pairs, alpha, seed, name=f" in {part.name}", draws=SLICE_DRAWS)
    if told is None:
        return part
    return replace(
        part,
        nfr=over_clusters(part.nfr, told.nfr),
        win_rate=over_clusters(part.win_rate, told.win_rate),
        p_value=told.net_p_value,
        test="signs of clusters",
    )


def _groups(pairs: Collection[Pair]) -> Sequence[Hashable]:
    return pairs.groups() if isinstance(pairs, Part) else [cluster_of(pair) for pair in pairs]
