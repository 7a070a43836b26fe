"""What the judge's errors do to the rate, corrected by a random sample of human labels: `--labels`.

A judge that finds 80 % of the negative flips and calls 10 % of the rest one turns a true 10 % into 17 %, and the
interval around 17 % knows nothing of it. People who label some of the pairs, drawn at random, put that right:

- prediction-powered inference: the mean of the labels, plus what the judge says of the other pairs, weighed by how well
  he agrees with people (Angelopoulos et al., Science 382, 2023; the weight: Angelopoulos, Duchi & Zrnic, PPI++, 2023);
- beside it, the older correction by sensitivity and specificity (Rogan & Gladen, Am. J. Epidemiol. 107, 1978).

Rows are `{"id", "outcome": "negative_flip"|"positive_flip"|"tie"}` or `{"id", "better": "old"|"new"|"tie"}`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from statistics import NormalDist
from typing import Literal

from flipguard.errors import DataError, choose, shown
from flipguard.evaluate.bootstrap import cluster_of
from flipguard.evaluate.comparison import Outcome, Pair, Proportion
from flipguard.evaluate.fields import key_of
from flipguard.evaluate.outcomes import OUTCOMES
from flipguard.evaluate.runs import Key
from flipguard.evaluate.sampling import INDEPENDENT, Sampling
from flipguard.evaluate.stats import lower_bound, proportion, upper_bound
from flipguard.files import read_jsonl
from flipguard.records import Row

FEWEST_ERRORS = 5  # with fewer, a normal interval for the judge's errors is no interval


@dataclass(frozen=True, slots=True)
class Corrected:
    """A rate with its two-sided interval, cut to 0..1."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Labels:
    """The judge held against people on `n` pairs, and the NFR that follows for all of them.

    `unused` labels belong to no valid pair. `weight` is what a judgment counts, 0 to 1; where people overruled the
    judge fewer than five times, or labelled every pair, the labels stand alone, with their exact interval.
    `rogan_gladen` is None where the judge is no better than a coin or nobody labelled a flip.
    """

    n: int
    unused: int
    missed: int
    invented: int
    sensitivity: Proportion
    specificity: Proportion
    judged: Proportion
    nfr: Corrected
    method: Literal["prediction-powered", "labels alone"]
    weight: float
    rogan_gladen: Corrected | None


@dataclass(frozen=True, slots=True)
class Table:
    """Negative flips by judge and people: `found` by both, `missed` by the judge, `invented` by him, or by neither."""

    found: int
    missed: int
    invented: int
    neither: int

    @property
    def n(self) -> int:
        """All labelled pairs."""
        return self.found + self.missed + self.invented + self.neither


def read_labels(path: Path) -> dict[Key, Outcome]:
    """What people said, by id and repeat.

    Raises:
        DataError: a row has no label, or a pair has two.
    """
    labels: dict[Key, Outcome] = {}
    for number, row in read_jsonl(path):
        try:
            key, label = key_of(row), _label(row)
        except DataError as error:
            raise DataError(f"{path}:{number}: {error}") from None
        if key in labels:
            raise DataError(f"{path}:{number}: id {shown(key[0])}, repeat {key[1]} has a label already. Keep one.")
        labels[key] = label
    return labels


Cell = tuple[bool, bool | None]  # a negative flip by the judge; by people, None where nobody was asked


def correct(
    pairs: Iterable[Pair], labels: Mapping[Key, Outcome], alpha: float = 0.05, how: Sampling = INDEPENDENT
) -> Labels:
    """The NFR that people would have found, from the judged `pairs` and the `labels` of some of them.

    Args:
        pairs: matched pairs; invalid ones are left out.
        labels: what people said, by id and repeat.
        alpha: error of the intervals.
        how: whether pairs share clusters; then all intervals are over these.

    Raises:
        DataError: fewer than two labels belong to a valid pair.
    """
    valid = [pair for pair in pairs if pair.outcome != "invalid"]
    cells = [_cell(pair, labels) for pair in valid]
    table, flagged, rest = _counted(Counter(cells))
    if table.n < 2:
        raise DataError(f"--labels: {table.n} of {len(labels):,} labels belong to a valid pair. Check the ids.")
    nfr, method, weight = _choose_estimate(table, flagged, rest, alpha)
    judged = table.found + table.invented + flagged
    plain = Labels(
        n=table.n,
        unused=len(labels) - table.n,
        missed=table.missed,
        invented=table.invented,
        sensitivity=proportion(table.found, table.found + table.missed, alpha),
        specificity=proportion(table.neither, table.neither + table.invented, alpha),
        judged=proportion(judged, len(cells), alpha),
        nfr=nfr,
        method=method,
        weight=weight,
        rogan_gladen=rogan_gladen(table, judged, len(cells), alpha),
    )
    return _over_clusters(plain, [cluster_of(pair) for pair in valid], cells, alpha, how) if how.clusters else plain


def _over_clusters(
    plain: Labels, groups: Sequence[Hashable], cells: Sequence[Cell], alpha: float, how: Sampling
) -> Labels:
    """The same estimates with intervals over clusters: resampled shares, jackknifed corrections."""

    def share(exact: Proportion, hit: Cell, among: Callable[[Cell], bool], name: str) -> Proportion:
        rows = [(group, cell) for group, cell in zip(groups, cells, strict=True) if among(cell)]
        hits = [group for group, cell in rows if cell == hit]
        return how.over(exact, hits, [group for group, _ in rows], name)

    def around(told: Corrected, estimate: Callable[[Table, int, int], Corrected | None]) -> Corrected:
        error = how.error(groups, cells, lambda counts: _value(estimate(*_counted(counts))))
        return told if error is None else _around(told.value, error**2, alpha)

    nfr, rogan = plain.nfr, plain.rogan_gladen
    if plain.method == "prediction-powered":
        nfr = around(nfr, lambda table, flagged, rest: prediction_powered(table, flagged, rest)[0] if rest else None)
    else:
        people = [cell[1] for cell in cells if cell[1] is not None]
        asked = [group for group, cell in zip(groups, cells, strict=True) if cell[1] is not None]
        flips = [group for group, label in zip(asked, people, strict=True) if label]
        found = how.over(proportion(len(flips), len(people), alpha), flips, asked, "labels")
        nfr = replace(nfr, low=found.low, high=found.high) if found.over == "clusters" else nfr
    if rogan is not None:
        rogan = around(
            rogan,
            lambda table, flagged, rest: rogan_gladen(table, table.found + table.invented + flagged, table.n + rest),
        )
    flagged = [group for group, cell in zip(groups, cells, strict=True) if cell[0]]
    return replace(
        plain,
        sensitivity=share(plain.sensitivity, (True, True), lambda cell: cell[1] is True, "sensitivity"),
        specificity=share(plain.specificity, (False, False), lambda cell: cell[1] is False, "specificity"),
        judged=how.over(plain.judged, flagged, groups, "judged"),
        nfr=nfr,
        rogan_gladen=rogan,
    )


def _value(told: Corrected | None) -> float | None:
    return None if told is None else told.value


def _cell(pair: Pair, labels: Mapping[Key, Outcome]) -> Cell:
    label = labels.get((pair.id, pair.repeat))
    return pair.outcome == "negative_flip", None if label is None else label == "negative_flip"


def _counted(cells: Mapping[Cell, int]) -> tuple[Table, int, int]:
    """The labelled pairs; of the others, how many the judge flagged, and how many there are."""
    counts = {cell: cells.get(cell, 0) for cell in product((True, False), (True, False, None))}
    table = Table(counts[True, True], counts[False, True], counts[True, False], counts[False, False])
    return table, counts[True, None], counts[True, None] + counts[False, None]


def prediction_powered(table: Table, flagged: int, rest: int, alpha: float = 0.05) -> tuple[Corrected, float]:
    """The power-tuned estimate with its normal interval, and the weight of the judge.

    mean(y) + weight (mean of the judge on the rest - mean of the judge on the labelled); the weight that makes the
    variance smallest is cov(y, judge) / ((1 + n / rest) var(judge)), cut to 0..1.

    Args:
        table: the labelled pairs.
        flagged: negative flips among the pairs without label, by the judge.
        rest: pairs without label, at least 1.
        alpha: error of the interval.

    >>> estimate, weight = prediction_powered(Table(8, 2, 9, 81), flagged=153, rest=900)
    >>> round(estimate.value, 4), round(estimate.low, 4), round(estimate.high, 4), round(weight, 2)
    (0.1, 0.0502, 0.1498, 0.4)
    """
    n, total = table.n, table.n + rest
    labelled, people = (table.found + table.invented) / n, (table.found + table.missed) / n
    share, pooled = flagged / rest, (table.found + table.invented + flagged) / total
    covariance = table.found / n - labelled * people
    variance = pooled * (1.0 - pooled) * total / (total - 1)
    weight = min(1.0, max(0.0, covariance / ((1.0 + n / rest) * variance))) if variance else 0.0
    value = people + weight * (share - labelled)
    rectifier = people * (1 - people) - 2 * weight * covariance + weight**2 * labelled * (1 - labelled)
    return _around(value, weight**2 * share * (1.0 - share) / rest + rectifier / n, alpha), weight


def rogan_gladen(table: Table, flagged: int, n: int, alpha: float = 0.05) -> Corrected | None:
    """(judged + specificity - 1) / (sensitivity + specificity - 1), its variance by the delta method.

    Args:
        table: the labelled pairs.
        flagged: negative flips among all pairs, by the judge.
        n: all pairs.
        alpha: error of the interval.

    >>> round(rogan_gladen(Table(8, 2, 9, 81), flagged=170, n=1000).value, 6)
    0.1
    """
    flips, others = table.found + table.missed, table.neither + table.invented
    if not flips or not others:
        return None
    sensitivity, specificity, judged = table.found / flips, table.neither / others, flagged / n
    youden = sensitivity + specificity - 1.0
    if youden <= 0.0:
        return None
    value = (judged + specificity - 1.0) / youden
    variance = judged * (1.0 - judged) / n
    variance += value**2 * sensitivity * (1.0 - sensitivity) / flips
    variance += (1.0 - value) ** 2 * specificity * (1.0 - specificity) / others
    return _around(value, variance / youden**2, alpha)


def _choose_estimate(
    table: Table, flagged: int, rest: int, alpha: float
) -> tuple[Corrected, Literal["prediction-powered", "labels alone"], float]:
    if rest and table.missed + table.invented >= FEWEST_ERRORS:
        estimate, weight = prediction_powered(table, flagged, rest, alpha)
        return estimate, "prediction-powered", weight
    flips, n = table.found + table.missed, table.n
    alone = Corrected(flips / n, lower_bound(flips, n, alpha / 2), upper_bound(flips, n, alpha / 2))
    return alone, "labels alone", 0.0


def _around(value: float, variance: float, alpha: float) -> Corrected:
    half = NormalDist().inv_cdf(1.0 - alpha / 2.0) * math.sqrt(max(0.0, variance))
    return Corrected(*(min(1.0, max(0.0, end)) for end in (value, value - half, value + half)))


def _label(row: Row) -> Outcome:
    if "outcome" in row:
        if row["outcome"] not in OUTCOMES.values():
            said = f"'outcome' is {shown(row['outcome'])}"
            raise DataError(f"{said}. {choose(row['outcome'], OUTCOMES.values())}")
        return row["outcome"]  # type: ignore[no-any-return]
    if "better" not in row:
        raise DataError(
            "has neither 'outcome' nor 'better'. Write which answer a person found better: old, new or tie."
        )
    if row["better"] not in OUTCOMES:
        raise DataError(f"'better' is {shown(row['better'])}. {choose(row['better'], OUTCOMES)}")
    return OUTCOMES[row["better"]]
