"""All matched pairs, column by column; one becomes an object, with its texts, when it is looked at by itself."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, compress
from operator import is_not, sub
from typing import TypeVar, overload

from flipguard.evaluate.columns import MANY, Columns
from flipguard.evaluate.comparison import Outcome, Pair
from flipguard.evaluate.outcomes import drop
from flipguard.evaluate.picks import pick
from flipguard.evaluate.runs import Entry
from flipguard.evaluate.texts import taken
from flipguard.records import RowId, Verdict

Item = TypeVar("Item")


_is_given = partial(is_not, None)


@dataclass(slots=True, eq=False)
class Pairs(Sequence[Pair]):
    """Pairs of answers; value i of each column belongs to pair i.

    Attributes:
        old: the answers before.
        new: the answers after.
        outcomes: what became of each pair.
        categories: the slices of each prompt.
        clusters: the group of each prompt.
        verdicts: what a pairwise judge said; empty where there was none.
    """

    old: Columns
    new: Columns
    outcomes: Sequence[Outcome]
    categories: Sequence[tuple[str, ...]]
    clusters: Sequence[str | None]
    verdicts: Sequence[tuple[Verdict, ...]] = ()
    _groups: Sequence[int] = ()
    _changes: Sequence[float | None] = ()
    _drops: tuple[float, Sequence[float]] | None = None
    _where: dict[Outcome, Sequence[int]] = field(default_factory=dict)
    _falls: tuple[float, Sequence[tuple[int, float | None]]] | None = None

    @classmethod
    def of(cls, pairs: Iterable[Pair]) -> Pairs:
        """The columns of `pairs`."""
        if isinstance(pairs, Pairs):
            return pairs
        rows = list(pairs)
        keys = [(pair.id, pair.repeat) for pair in rows]
        return cls(
            old=Columns.listed(keys, [Entry(pair.old, pair.prompt) for pair in rows]),
            new=Columns.listed(keys, [Entry(pair.new, pair.prompt) for pair in rows]),
            outcomes=[pair.outcome for pair in rows],
            categories=[pair.categories for pair in rows],
            clusters=[pair.cluster for pair in rows],
            verdicts=[pair.verdicts for pair in rows] if any(pair.verdicts for pair in rows) else (),
        )

    def __len__(self) -> int:
        return len(self.outcomes)

    @overload
    def __getitem__(self, index: int) -> Pair: ...
    @overload
    def __getitem__(self, index: slice) -> list[Pair]: ...
    def __getitem__(self, index: int | slice) -> Pair | list[Pair]:
        if isinstance(index, slice):
            return [self._pair(row) for row in range(*index.indices(len(self)))]
        return self._pair(range(len(self))[index])

    def _pair(self, row: int) -> Pair:
        identifier, repeat = self.old.order[row]
        return Pair(
            id=identifier,
            repeat=repeat,
            old=self.old.answer(row),
            new=self.new.answer(row),
            outcome=self.outcomes[row],
            prompt=next(self.prompts([row])),
            categories=self.categories[row],
            cluster=self.clusters[row],
            verdicts=self.verdicts[row] if self.verdicts else (),
        )

    def prompts(self, rows: Sequence[int]) -> Iterator[str | None]:
        """What was asked in the pairs number `rows`, by the old run where it tells."""
        told = zip(rows, taken(self.old.prompts, rows), strict=True)
        return (self.new.prompts[row] if prompt is None else prompt for row, prompt in told)

    def ids(self) -> Iterator[RowId]:
        """The id of each pair."""
        return iter(self.old.order.ids)

    def groups(self) -> Sequence[int]:
        """What each pair belongs to, by number: its cluster, or else its prompt, whose repeats belong together."""
        if len(self._groups) != len(self):
            alone = not any(map(_is_given, self.clusters))
            if alone and not self.old.order.repeats and self.old.order.each_once():
                self._groups = range(len(self))
                return self._groups
            names = self.old.order.ids
            numbers: dict[Hashable, int] = {}
            named = zip(names, self.clusters, strict=True)
            keys = (("id", name) if cluster is None else ("cluster", cluster) for name, cluster in named)
            self._groups = [numbers.setdefault(key, len(numbers)) for key in keys]
        return self._groups

    def independent(self) -> bool:
        """Whether every pair is a group of its own."""
        return isinstance(self.groups(), range) or len(set(self.groups())) == len(self)

    def changes(self) -> Sequence[float | None]:
        """New score minus old one of each pair, None where either is missing."""
        if len(self._changes) != len(self):
            old, new = self.old.scores, self.new.scores
            if isinstance(old, array) and isinstance(new, array):
                self._changes = array("d", map(sub, new, old))
            else:
                both = zip(old, new, strict=True)
                self._changes = [None if before is None or after is None else after - before for before, after in both]
        return self._changes

    def falls(self, margin: float) -> Sequence[tuple[int, float | None]]:
        """Each negative flip: its number, and how far the score fell beyond the margin, None without scores."""
        if self._falls is None or self._falls[0] != margin:
            rows = self.where("negative_flip")
            self._falls = margin, list(zip(rows, self._dropped(rows, margin), strict=True))
        return self._falls[1]

    def _dropped(self, rows: Sequence[int], margin: float) -> Sequence[float | None]:
        old, new = pick(self.old.scores, rows), pick(self.new.scores, rows)
        if len(rows) >= MANY and isinstance(old, array) and isinstance(new, array):
            from flipguard.evaluate.many import all_dropped

            return all_dropped(old, new, margin)
        return [drop(before, after, margin) for before, after in zip(old, new, strict=True)]

    def drops(self, margin: float) -> Sequence[float]:
        """How far scores fell beyond the margin, in ascending order."""
        if self._drops is None or self._drops[0] != margin:
            self._drops = margin, sorted(fall for _, fall in self.falls(margin) if fall is not None)
        return self._drops[1]

    def all_valid(self) -> bool:
        """Whether every pair could be graded."""
        return "invalid" not in self.outcomes

    def where(self, outcome: Outcome) -> Sequence[int]:
        """The numbers of the pairs of which this became."""
        if outcome not in self._where:
            self._where[outcome] = list(compress(range(len(self)), map(outcome.__eq__, self.outcomes)))
        return self._where[outcome]

    def take(self, rows: Sequence[int]) -> Pairs:
        """The pairs number `rows`, with nothing that was measured on their texts."""
        old, new = (replace(side, measured=None, asked=None, aims=None).take(rows) for side in (self.old, self.new))
        verdicts = pick(self.verdicts, rows) if self.verdicts else ()
        return Pairs(
            old,
            new,
            outcomes=pick(self.outcomes, rows),
            categories=pick(self.categories, rows),
            clusters=pick(self.clusters, rows),
            verdicts=verdicts,
        )

    def part(self, rows: Iterable[int]) -> Part:
        """The pairs number `rows`."""
        return Part(self, list(rows))


@dataclass(frozen=True, slots=True, eq=False)
class Part(Collection[Pair]):
    """Some of all pairs, by their numbers."""

    table: Pairs
    rows: Sequence[int]

    @classmethod
    def of(cls, pairs: Iterable[Pair]) -> Part:
        """All of `pairs`."""
        if isinstance(pairs, Part):
            return pairs
        table = Pairs.of(pairs)
        return cls(table, range(len(table)))

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Pair]:
        return map(self.table.__getitem__, self.rows)

    def __contains__(self, pair: object) -> bool:
        return any(pair == other for other in self)

    def first(self, most: int) -> list[Pair]:
        """The first `most` of them."""
        return [self.table[row] for row in self.rows[:most]]

    def groups(self) -> Sequence[int]:
        """What each pair belongs to."""
        return self._values(self.table.groups())

    def outcomes(self) -> Sequence[Outcome]:
        """What became of each pair."""
        return self._values(self.table.outcomes)

    def where(self, chosen: Iterable[bool]) -> Part:
        """Those for which `chosen` says so."""
        return Part(self.table, list(compress(self.rows, chosen)))

    def valid(self) -> Part:
        """Those that could be graded."""
        if self.table.all_valid():
            return self
        return self.where(map("invalid".__ne__, self.outcomes()))

    def of_outcome(self, wanted: Outcome) -> Part:
        """Those of which this became."""
        return self.where(map(wanted.__eq__, self.outcomes()))

    def by_category(self) -> dict[str, Part]:
        """Those of each category."""
        alike: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
        for row, names in zip(self.rows, self._values(self.table.categories), strict=True):
            alike[names].append(row)
        found: dict[str, list[list[int]]] = {}
        for names, rows in alike.items():
            for name in names:
                found.setdefault(name, []).append(rows)
        return {
            name: Part(self.table, parts[0] if len(parts) == 1 else sorted(chain(*parts)))
            for name, parts in found.items()
        }

    def _values(self, column: Sequence[Item]) -> Sequence[Item]:
        return column if self.rows == range(len(self.table)) else pick(column, self.rows)
