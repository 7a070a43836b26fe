"""Graded rows on their way from a file into columns: what is kept of each, and which of two with one key."""

from __future__ import annotations

import sys
from array import array
from dataclasses import dataclass, field, fields

from flipguard.errors import DataError, shown
from flipguard.evaluate.columns import Columns
from flipguard.evaluate.fields import (
    categories_of,
    cluster_of,
    completion_of,
    finish_reason_of,
    grade_of,
    key_of,
    prompt_of,
    reference_of,
)
from flipguard.evaluate.forms import Forms, fingerprint, form
from flipguard.evaluate.intake import Duplicates
from flipguard.evaluate.runs import Metric
from flipguard.evaluate.source import Source
from flipguard.evaluate.texts import StoredRows, StoredTexts
from flipguard.records import Row, RowId


@dataclass(slots=True)
class Rows:
    """The rows read so far, column by column; texts are kept only where they cannot be read again.

    `numbers` are those of the lines, `places` the bytes at which they begin.
    """

    ids: list[RowId] = field(default_factory=list)
    repeats: list[int] = field(default_factory=list)
    scores: list[float | None] = field(default_factory=list)
    errors: list[str | None] = field(default_factory=list)
    reasons: list[str | None] = field(default_factory=list)
    categories: list[tuple[str, ...]] = field(default_factory=list)
    clusters: list[str | None] = field(default_factory=list)
    asked: array[int] = field(default_factory=lambda: array("q"))
    aims: array[int] = field(default_factory=lambda: array("q"))
    words: array[int] = field(default_factory=lambda: array("I"))
    marks: bytearray = field(default_factory=bytearray)
    prints: array[int] = field(default_factory=lambda: array("q"))
    numbers: array[int] = field(default_factory=lambda: array("Q"))
    places: array[int] = field(default_factory=lambda: array("Q"))
    prompts: list[str | None] = field(default_factory=list)
    completions: list[str | None] = field(default_factory=list)
    targets: list[str | None] = field(default_factory=list)
    _names: dict[tuple[str, ...], tuple[str, ...]] = field(default_factory=dict)

    def add(self, row: Row, graded: Row, metric: Metric, number: int, place: int | None) -> None:
        """Take a row whose grade stands in `graded`; without a `place` its texts are kept.

        Raises:
            DataError: something is wrong with it; nothing of it is taken then.
        """
        identifier, repeat = key_of(row)
        score, error = grade_of(graded, metric)
        completion, reason, prompt = completion_of(row), finish_reason_of(row), prompt_of(row)
        categories, cluster, target = categories_of(row), cluster_of(row), reference_of(row)
        words, marks, printed = form(completion, error, reason)
        self.asked.append(fingerprint(prompt))
        self.aims.append(fingerprint(target))
        self.ids.append(identifier)
        self.repeats.append(repeat)
        self.scores.append(score)
        self.errors.append(error)
        self.reasons.append(reason if reason is None else sys.intern(reason))
        self.categories.append(self._names.setdefault(categories, categories))
        self.clusters.append(cluster)
        self.words.append(words)
        self.marks.append(marks)
        self.prints.append(printed)
        self.numbers.append(number)
        if place is None:
            self.prompts.append(prompt)
            self.completions.append(completion)
            self.targets.append(target)
        else:
            self.places.append(place)

    def extend(self, other: Rows, lines: int) -> None:
        """Append rows read from a later piece of the file, before which there are `lines` lines."""
        self.numbers.extend(number + lines for number in other.numbers)
        for name in _COLUMNS:
            getattr(self, name).extend(getattr(other, name))

    def columns(self, source: Source, rule: Duplicates) -> tuple[Columns, int]:
        """The rows with one of each key, by the rule, and how many others there were.

        Raises:
            DataError: a key is there twice and no rule says which to keep.
        """
        keys = list(zip(self.ids, self.repeats, strict=True))
        stored = StoredRows(source.path) if self.places else None
        told = Columns(
            order=keys,
            scores=self.scores,
            errors=self.errors,
            reasons=self.reasons,
            completions=StoredTexts(stored, self.places, completion_of) if stored else self.completions,
            prompts=StoredTexts(stored, self.places, prompt_of) if stored else self.prompts,
            categories=self.categories,
            clusters=self.clusters,
            targets=StoredTexts(stored, self.places, reference_of) if stored else self.targets,
            measured=Forms(self.words, self.marks, self.prints),
            asked=self.asked,
            aims=self.aims,
        )
        last = told.rows
        if len(last) == len(keys):
            return told, 0
        first: dict[tuple[RowId, int], int] = {}
        for row, key in enumerate(keys):
            before = first.setdefault(key, row)
            if before != row and rule == "error":
                place = "line" if source.kind in ("lines", "csv") else "row"
                raise DataError(
                    f"{source.place(self.numbers[row])}: id {shown(key[0])}, repeat {key[1]} was there before, in "
                    f"{place} {self.numbers[before]}. Number repeated samples with 'repeat', or choose "
                    "--duplicates first or last."
                )
        kept = list((first if rule == "first" else last).values())
        return told.take(kept), len(keys) - len(kept)


_COLUMNS = tuple(item.name for item in fields(Rows) if item.name not in ("numbers", "_names"))
