"""Graded rows on their way from a file into columns: what is kept of each, and which of two with one key."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from flipguard.errors import DataError, shown
from flipguard.evaluate import fieldcolumns
from flipguard.evaluate.columns import Columns, packed
from flipguard.evaluate.fieldcolumns import Block
from flipguard.evaluate.fields import completion_of, prompt_of, reference_of
from flipguard.evaluate.forms import Forms, fingerprints, measured
from flipguard.evaluate.intake import Duplicates
from flipguard.evaluate.keys import Keys
from flipguard.evaluate.runs import Metric
from flipguard.evaluate.source import Source
from flipguard.evaluate.texts import StoredRows, StoredTexts
from flipguard.records import RowId


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
    lengths: array[int] = field(default_factory=lambda: array("I"))
    marks: bytearray = field(default_factory=bytearray)
    prints: array[int] = field(default_factory=lambda: array("q"))
    numbers: array[int] = field(default_factory=lambda: array("Q"))
    places: array[int] = field(default_factory=lambda: array("Q"))
    prompts: list[str | None] = field(default_factory=list)
    completions: list[str | None] = field(default_factory=list)
    targets: list[str | None] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        block: Block,
        graded: Block,
        metric: Metric,
        numbers: Sequence[int],
        places: Sequence[int],
        *,
        many: bool = False,
    ) -> Rows:
        """The columns of a block of rows, whose grades stand in `graded`; without `places` their texts are kept.

        Where they are a part of very `many`, their texts are looked at all at once.

        Raises:
            DataError: something is wrong with one of them.
        """
        ids, repeats = fieldcolumns.keys(block)
        scores, errors = fieldcolumns.grades(graded, metric)
        completions, reasons = fieldcolumns.completions(block), fieldcolumns.finish_reasons(block)
        prompts, categories = fieldcolumns.prompts(block), fieldcolumns.categories(block)
        clusters, targets = fieldcolumns.clusters(block), fieldcolumns.references(block)
        forms = measured(completions, errors, reasons, many=many)
        return cls(
            ids=ids,
            repeats=repeats,
            scores=scores,
            errors=errors,
            reasons=reasons,
            categories=categories,
            clusters=clusters,
            asked=array("q", fingerprints(prompts)),
            aims=array("q", fingerprints(targets)),
            lengths=forms.lengths,
            marks=forms.marks,
            prints=forms.prints,
            numbers=array("Q", numbers),
            places=array("Q", places),
            prompts=[] if places else prompts,
            completions=[] if places else completions,
            targets=[] if places else targets,
        )

    @classmethod
    def joined(cls, parts: Sequence[Rows], before: Sequence[int] = ()) -> Rows:
        """The rows of all parts in their order; `before` says how many lines of the file stand before each part.

        Each column is made once, at its full length: columns of millions of rows are slow to grow.
        """
        if len(parts) == 1 and not any(before):
            return parts[0]
        for part, lines in zip(parts, before, strict=False):
            if lines:
                part.numbers = array("Q", [number + lines for number in part.numbers])
        return cls(**{name: _joined([getattr(part, name) for part in parts]) for name in _COLUMNS})

    def columns(self, source: Source, rule: Duplicates) -> tuple[Columns, int]:
        """The rows with one of each key, by the rule, and how many others there were.

        Raises:
            DataError: a key is there twice and no rule says which to keep.
        """
        keys = Keys(self.ids, self.repeats)
        stored = StoredRows(source.path) if self.places else None
        told = Columns(
            order=keys,
            scores=packed(self.scores),
            errors=self.errors,
            reasons=self.reasons,
            completions=StoredTexts(stored, self.places, completion_of) if stored else self.completions,
            prompts=StoredTexts(stored, self.places, prompt_of) if stored else self.prompts,
            categories=self.categories,
            clusters=self.clusters,
            targets=StoredTexts(stored, self.places, reference_of) if stored else self.targets,
            measured=Forms(self.lengths, self.marks, self.prints),
            asked=self.asked,
            aims=self.aims,
        )
        if keys.each_once():
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
        kept = list((first if rule == "first" else told.rows).values())
        return told.take(kept), len(keys) - len(kept)


_COLUMNS = tuple(item.name for item in fields(Rows))


def _joined(parts: Sequence[Any]) -> Any:
    """Lists, arrays or bytearrays as one."""
    if not isinstance(parts[0], list):
        return array(parts[0].typecode, b"".join(parts)) if isinstance(parts[0], array) else bytearray().join(parts)
    whole: list[Any] = [None] * sum(map(len, parts))
    at = 0
    for part in parts:
        whole[at : at + len(part)] = part
        at += len(part)
    return whole
