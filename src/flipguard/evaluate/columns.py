"""One model's answers, column by column: what is asked of a million rows is asked of a column, not of each row."""

from __future__ import annotations

import gc
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import compress, islice
from operator import eq
from typing import TypeVar, cast

from flipguard.evaluate.comparison import Answer
from flipguard.evaluate.forms import NO_TEXT, Forms, fingerprints, measured
from flipguard.evaluate.keys import Keys
from flipguard.evaluate.picks import pick
from flipguard.evaluate.runs import Entry, Key
from flipguard.evaluate.texts import Texts, taken

Item = TypeVar("Item")
BATCH = 256  # texts measured together
MANY = 50_000  # rows from which on loading numpy for one column pays


@dataclass(slots=True, eq=False)
class Columns(Mapping[Key, Entry]):
    """Answers by key; entry number i is made of the i-th value of each column, when it is asked for.

    Attributes:
        order: id and repeat, each once.
        scores: None where an answer was not graded.
        errors: why an answer failed.
        reasons: why an answer ended.
        completions: the answers.
        prompts: what was asked.
        categories: the slices of each prompt.
        clusters: the group of each prompt.
        targets: what a right answer is.
        rationales: why each was graded so; empty where no grader said.
        measured: the forms of the answers, where they are known; `forms` measures them else.
        asked: fingerprints of the prompts.
        aims: fingerprints of the targets.
    """

    order: Keys
    scores: Sequence[float | None]
    errors: Sequence[str | None]
    reasons: Sequence[str | None]
    completions: Texts
    prompts: Texts
    categories: Sequence[tuple[str, ...]]
    clusters: Sequence[str | None]
    targets: Texts
    rationales: Texts = ()
    measured: Forms | None = None
    asked: Sequence[int] | None = None
    aims: Sequence[int] | None = None
    _rows: dict[Key, int] = field(default_factory=dict)

    @classmethod
    def of(cls, entries: Mapping[Key, Entry]) -> Columns:
        """The columns of `entries`."""
        return entries if isinstance(entries, Columns) else cls.listed(list(entries), list(entries.values()))

    @classmethod
    def listed(cls, keys: Sequence[Key], rows: Sequence[Entry]) -> Columns:
        """The columns of entries, one for each key."""
        answers = [entry.answer for entry in rows]
        return cls(
            order=Keys.of(keys),
            scores=packed([answer.score for answer in answers]),
            errors=[answer.error for answer in answers],
            reasons=[answer.finish_reason for answer in answers],
            completions=[answer.completion for answer in answers],
            prompts=[entry.prompt for entry in rows],
            categories=[entry.categories for entry in rows],
            clusters=[entry.cluster for entry in rows],
            targets=[entry.target for entry in rows],
            rationales=[answer.rationale for answer in answers] if any(answer.rationale for answer in answers) else (),
        )

    @property
    def rows(self) -> Mapping[Key, int]:
        """The number of each key's row."""
        if len(self._rows) != len(self.order):
            self._rows = dict(zip(self.order, range(len(self.order)), strict=True))
        return self._rows

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[Key]:
        return iter(self.order)

    def __contains__(self, key: object) -> bool:
        return key in self.rows

    def __getitem__(self, key: Key) -> Entry:
        row = self.rows[key]
        return Entry(self.answer(row), self.prompts[row], self.categories[row], self.clusters[row], self.targets[row])

    def answer(self, row: int) -> Answer:
        """Answer number `row`."""
        rationale = self.rationales[row] if self.rationales else None
        return Answer(self.scores[row], self.completions[row], self.errors[row], self.reasons[row], rationale)

    def forms(self) -> Forms:
        """The forms of all answers."""
        if self.measured is None:
            self.measured = Forms.empty()
            for some in batched(zip(self.completions, self.errors, self.reasons, strict=True), BATCH):
                self.measured.extend(measured(*zip(*some, strict=True)))
        return self.measured

    def targets_printed(self) -> Sequence[int]:
        """Fingerprints of all targets."""
        if self.aims is None:
            self.aims = [key for some in batched(self.targets, BATCH) for key in fingerprints(some)]
        return self.aims

    def prompts_printed(self) -> Sequence[int]:
        """Fingerprints of all prompts."""
        if self.asked is None:
            self.asked = [key for some in batched(self.prompts, BATCH) for key in fingerprints(some)]
        return self.asked

    def take(self, rows: Sequence[int]) -> Columns:
        """The answers number `rows`, in their order."""
        if rows == range(len(self)):
            return self
        return Columns(
            order=self.order.take(rows),
            scores=pick(self.scores, rows),
            errors=pick(self.errors, rows),
            reasons=pick(self.reasons, rows),
            completions=taken(self.completions, rows),
            prompts=taken(self.prompts, rows),
            categories=pick(self.categories, rows),
            clusters=pick(self.clusters, rows),
            targets=taken(self.targets, rows),
            rationales=taken(self.rationales, rows) if self.rationales else (),
            measured=None if self.measured is None else self.measured.take(rows),
            asked=None if self.asked is None else pick(self.asked, rows),
            aims=None if self.aims is None else pick(self.aims, rows),
        )


def same_texts(one: array[int], other: array[int]) -> Iterator[int]:
    """The numbers of the rows whose fingerprints say that both texts are the same."""
    if len(one) >= MANY:
        from flipguard.evaluate.many import same

        rows: Iterable[int] = same(one, other)
    else:
        rows = compress(range(len(one)), map(eq, one, other))
    return (row for row in rows if one[row] != NO_TEXT)


def packed(scores: Sequence[float | None]) -> Sequence[float | None]:
    """The scores side by side, where no one is missing."""
    try:
        return array("d", cast("Sequence[float]", scores))
    except TypeError:
        return scores


@contextmanager
def without_collector() -> Iterator[None]:
    """Rows hold no cycles: the collector would walk through all of them again and again, for a quarter of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def batched(items: Iterable[Item], most: int) -> Iterator[tuple[Item, ...]]:
    """`items` in their order, `most` at a time.

    >>> list(batched("abc", 2))
    [('a', 'b'), ('c',)]
    """
    following = iter(items)
    while some := tuple(islice(following, most)):
        yield some
