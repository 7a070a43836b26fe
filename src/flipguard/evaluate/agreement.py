"""Several judges side by side, the outcomes each of them gives and how far they agree: `--also`.

The compared file decides the verdict; the others answer the question whether another judge would have decided
otherwise. Outcomes are names here (negative flip, positive flip, tie, inconsistent), whatever the scale they come from;
a pair that a judge could not grade is missing for him.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from statistics import NormalDist

from flipguard.errors import DataError
from flipguard.evaluate import importers
from flipguard.evaluate.align import from_judged
from flipguard.evaluate.comparison import Outcome, Pair, Proportion
from flipguard.evaluate.intake import Intake
from flipguard.evaluate.pairs import Pairs
from flipguard.evaluate.runs import Judged, Key, Run
from flipguard.evaluate.sampling import INDEPENDENT, Sampling
from flipguard.evaluate.stats import proportion
from flipguard.files import read_jsonl

Outcomes = Mapping[Key, Outcome]  # of the pairs that a judge could grade


@dataclass(frozen=True, slots=True)
class Coefficient:
    """A chance-corrected agreement, 1 for perfect and 0 for chance, with its normal interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Judge:
    """What one judge found, over the pairs that he could grade."""

    name: str
    nfr: Proportion
    win_rate: Proportion


@dataclass(frozen=True, slots=True)
class Couple:
    """Two judges on the pairs both could grade; `kappa` is None where chance alone would agree always."""

    first: str
    second: str
    agreed: Proportion
    kappa: Coefficient | None


@dataclass(frozen=True, slots=True)
class Agreement:
    """All judges, the compared one first; `unanimous` is over pairs that at least two of them could grade.

    `krippendorff` is None where all outcomes are the same, or only one pair has two judges.
    """

    judges: tuple[Judge, ...]
    couples: tuple[Couple, ...]
    unanimous: Proportion
    krippendorff: Coefficient | None


def agreement(
    judges: Mapping[str, Outcomes],
    alpha: float = 0.05,
    how: Sampling = INDEPENDENT,
    clusters: Mapping[Key, Hashable] | None = None,
) -> Agreement:
    """Rates of each judge and agreement between them.

    Args:
        judges: outcomes by name of the judge, the compared one first; invalid pairs left out.
        alpha: error of the intervals.
        how: whether pairs share clusters; then all intervals are over these.
        clusters: what each pair belongs to; one that is not named, to its prompt.
    """
    units: dict[Key, list[Outcome]] = {}
    for outcomes in judges.values():
        for key, outcome in outcomes.items():
            units.setdefault(key, []).append(outcome)
    shared = {key: values for key, values in units.items() if len(values) > 1}
    same = [key for key, values in shared.items() if len(set(values)) == 1]
    panel = _Panel(judges, alpha, how, clusters or {})
    return Agreement(
        judges=tuple(
            Judge(name, *(panel.rate(name, kind) for kind in ("negative_flip", "positive_flip"))) for name in judges
        ),
        couples=tuple(panel.couple(first, second) for first, second in combinations(judges, 2)),
        unanimous=panel.share(same, [*shared], "unanimous"),
        krippendorff=panel.krippendorff(shared),
    )


@dataclass(frozen=True, slots=True)
class _Panel:
    """The judges, and how their pairs were drawn."""

    judges: Mapping[str, Outcomes]
    alpha: float
    how: Sampling
    clusters: Mapping[Key, Hashable]

    def share(self, hits: Sequence[Key], keys: Sequence[Key], name: str) -> Proportion:
        exact = proportion(len(hits), len(keys), self.alpha)
        return self.how.over(exact, self._groups(hits), self._groups(keys), name) if self.how.clusters else exact

    def rate(self, name: str, kind: str) -> Proportion:
        outcomes = self.judges[name]
        return self.share([key for key, outcome in outcomes.items() if outcome == kind], [*outcomes], f"{name} {kind}")

    def couple(self, first: str, second: str) -> Couple:
        left, right = self.judges[first], self.judges[second]
        both = [key for key in left if key in right]
        cells = [(left[key], right[key]) for key in both]
        agreed = self.share([key for key in both if left[key] == right[key]], both, f"{first} {second}")
        error = self.how.error(self._groups(both), cells, lambda table: _value(cohen(table)))
        return Couple(first, second, agreed, self._over(cohen(Counter(cells), self.alpha), error))

    def krippendorff(self, units: Mapping[Key, Sequence[Outcome]]) -> Coefficient | None:
        kinds = [tuple(sorted(values)) for values in units.values()]
        error = self.how.error(self._groups([*units]), kinds, _alpha_of)
        return self._over(krippendorff(units.values(), self.alpha), error)

    def _groups(self, keys: Sequence[Key]) -> list[Hashable]:
        return [self.clusters.get(key, ("id", key[0])) for key in keys]

    def _over(self, told: Coefficient | None, error: float | None) -> Coefficient | None:
        return told if told is None or error is None else _around(told.value, error, self.alpha)


def cohen(table: Mapping[tuple[str, str], int], alpha: float = 0.05) -> Coefficient | None:
    """Cohen's kappa (Educ. Psychol. Meas. 20, 1960), its interval after Fleiss, Cohen & Everitt (1969).

    >>> kappa = cohen({("a", "a"): 20, ("a", "b"): 5, ("b", "a"): 10, ("b", "b"): 15})
    >>> round(kappa.value, 2), round(kappa.low, 2), round(kappa.high, 2)
    (0.4, 0.15, 0.65)
    """
    n = sum(table.values())
    if n == 0:
        return None
    rows, columns = defaultdict[str, float](float), defaultdict[str, float](float)
    for (one, other), count in table.items():
        rows[one] += count / n
        columns[other] += count / n
    names = [*{**rows, **columns}]
    expected = sum(rows[name] * columns[name] for name in names)
    if expected >= 1.0 - 1e-12:
        return None
    agreed = sum(table.get((name, name), 0) for name in names) / n
    kappa = (agreed - expected) / (1.0 - expected)
    spread = -((kappa - expected * (1.0 - kappa)) ** 2)
    for (one, other), count in table.items():
        if one == other:
            spread += count / n * (1.0 - (rows[one] + columns[one]) * (1.0 - kappa)) ** 2
        else:
            spread += count / n * ((columns[one] + rows[other]) * (1.0 - kappa)) ** 2
    return _around(kappa, math.sqrt(max(0.0, spread) / n) / (1.0 - expected), alpha)


def krippendorff(units: Iterable[Sequence[str]], alpha: float = 0.05) -> Coefficient | None:
    """Krippendorff's alpha for names (Content Analysis, 2004, ch. 11), its interval by the jackknife over units.

    Units may have different numbers of values; those with fewer than two say nothing and are left out.

    >>> round(krippendorff([["a", "a"], ["b", "b"], ["a", "b"], ["b", "b"], ["a", "a"]]).value, 2)
    0.64
    """
    counted = [Counter(values) for values in units if len(values) > 1]
    totals, apart = Counter[str](), 0.0
    for unit in counted:
        totals.update(unit)
        apart += _apart(unit)
    value = _alpha(apart, totals.values())
    if value is None or len(counted) < 2:
        return None
    without: list[float] = []
    for unit in counted:
        left = _alpha(apart - _apart(unit), [count - unit[name] for name, count in totals.items()])
        without.append(1.0 if left is None else left)  # a single outcome is left, and no disagreement
    mean = math.fsum(without) / len(without)
    variance = math.fsum((one - mean) ** 2 for one in without) * (len(without) - 1) / len(without)
    return _around(value, math.sqrt(variance), alpha)


def read_judges(base: Run | Judged, also: Sequence[str], intake: Intake) -> list[tuple[str, Judged]]:
    """Every judge in the files `also` with the format it was read by, but for the one that is compared already.

    Raises:
        DataError: a file holds one model's answers.
    """
    found: list[tuple[str, Judged]] = []
    for path in map(Path, also):
        same = path.exists() and any(path.samefile(file) for file in base.files)
        found += _runs(path, intake, besides=_name(base) if same else None)
    return found


def beside(pairs: Sequence[Pair], base: Run | Judged, judges: Sequence[Judged], margin: float) -> dict[str, Outcomes]:
    """The outcomes of the compared `pairs` and of every other judge, by name.

    Raises:
        DataError: a judge graded no pair of the compared ones.
    """
    found = {_name(base): _outcomes(pairs)}
    own = found[_name(base)]
    for run in judges:
        path, name = run.files[0], _name(run)
        outcomes = _outcomes(from_judged(run, margin=margin if run.metric == "score" else 0.0).pairs)
        if not own.keys() & outcomes.keys():
            raise DataError(f"--also {path}: has no graded pair in common with {base.files[0]}. Use the same ids.")
        found[name if name not in found else f"{name} in {path}"] = outcomes
    return found


def _runs(path: Path, intake: Intake, besides: str | None) -> Iterator[tuple[str, Judged]]:
    """One run per judge in the file."""
    names = dict.fromkeys(row["judge"] for _, row in read_jsonl(path) if isinstance(row.get("judge"), str))
    wanted = [name for name in names if name != besides]
    if besides is not None and not wanted:
        raise DataError(f"--also {path}: is the file that is compared, and holds no other judge. Name another file.")
    for judge in wanted if len(names) > 1 else [None]:
        format_name, run = importers.read(path, replace(intake, metric=judge))
        if isinstance(run, Run):
            raise DataError(f"--also {path}: holds one model's answers. Name a file of judgments, which holds both.")
        yield format_name, run


def _name(run: Run | Judged) -> str:
    return run.graded.get("") or run.files[0].name.partition(".")[0]


def _outcomes(pairs: Iterable[Pair]) -> Outcomes:
    table = Pairs.of(pairs)
    columns = zip(table.old.order, table.outcomes, strict=True)
    return {key: outcome for key, outcome in columns if outcome != "invalid"}


def _apart(unit: Counter[str]) -> float:
    """Ordered pairs of different values within a unit, each value weighing one in all."""
    size = unit.total()
    return (size * size - sum(count * count for count in unit.values())) / (size - 1)


def _alpha(apart: float, totals: Iterable[int]) -> float | None:
    counts = list(totals)
    n = sum(counts)
    by_chance = n * n - sum(count * count for count in counts)
    return None if by_chance == 0 else 1.0 - apart * (n - 1) / by_chance


def _value(told: Coefficient | None) -> float | None:
    return None if told is None else told.value


def _alpha_of(kinds: Mapping[tuple[str, ...], int]) -> float | None:
    """Krippendorff's alpha of units by what they hold, and how many hold it."""
    totals, apart = Counter[str](), 0.0
    for values, times in kinds.items():
        unit = Counter(values)
        apart += times * _apart(unit)
        totals.update({name: times * count for name, count in unit.items()})
    return _alpha(apart, totals.values())


def _around(value: float, error: float, alpha: float) -> Coefficient:
    half = NormalDist().inv_cdf(1.0 - alpha / 2.0) * error
    return Coefficient(value, max(-1.0, value - half), min(1.0, value + half))
