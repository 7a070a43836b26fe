"""The rules by which rows are taken: which of two with one key to keep, which grade to read, how many may be bad."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Literal, TypeVar, get_args

from flipguard.errors import DataError, shown
from flipguard.evaluate.runs import Key
from flipguard.evaluate.source import Source
from flipguard.evaluate.workers import copies
from flipguard.records import Row

Item = TypeVar("Item")
Duplicates = Literal["error", "first", "last"]
DUPLICATES: tuple[Duplicates, ...] = get_args(Duplicates)
ChangedTargets = Literal["error", "keep", "drop"]
CHANGED_TARGETS: tuple[ChangedTargets, ...] = get_args(ChangedTargets)


@dataclass(slots=True)
class BadLines:
    """The malformed lines met so far; more than `limit` end the reading."""

    limit: int = 0
    told: list[str] = field(default_factory=list)

    def meet(self, message: str) -> None:
        """Count a malformed line, or raise what it says if the limit is used up."""
        if len(self.told) >= self.limit:
            used_up = f" More than the {self.limit} of --skip-bad." if self.limit else ""
            raise DataError(message + used_up)
        self.told.append(message)


@dataclass(frozen=True, slots=True)
class Intake:
    """The rules; `metric` is what `--metric` says, and each format says what that may be.

    `questions` is the file that `--questions` names, for formats whose questions lie apart.
    `changed_targets` is for prompts whose right answer is not the same in both runs: an error, graded each by its own,
    or left out. So many `processes` may read one large file.
    """

    duplicates: Duplicates = "error"
    metric: str | None = None
    bad: BadLines = field(default_factory=BadLines)
    questions: Path | None = None
    changed_targets: ChangedTargets = "error"
    processes: int = field(default_factory=copies)


class Shelf(Generic[Item]):
    """Items by key, in the order of the file; a key that comes twice follows the rule of the intake."""

    def __init__(self, source: Source, rule: Duplicates) -> None:
        self.duplicates = 0
        self._items: dict[Key, Item] = {}
        self._source = source
        self._rule = rule
        self._numbers: dict[Key, int] = {}
        self._trouble = ""

    def put(self, key: Key, number: int, item: Item) -> None:
        """Keep `item` from row `number` under `key`."""
        if key in self._items:
            self.duplicates += 1
            if self._rule == "error" and not self._trouble:
                self._trouble = (
                    f"{self._source.place(number)}: id {shown(key[0])}, repeat {key[1]} was there before, in "
                    f"{'line' if self._source.kind in ('lines', 'csv') else 'row'} {self._numbers[key]}"
                )
            if self._rule != "last":
                return
        self._items[key] = item
        self._numbers[key] = number

    def taken(self) -> dict[Key, Item]:
        """The items; raises a DataError if a key came twice and no rule says which to keep."""
        if self._trouble:
            raise DataError(
                f"{self._trouble}. Number repeated samples with 'repeat', or choose --duplicates first or last."
            )
        return self._items


def gather(
    source: Source, intake: Intake, parse: Callable[[Row], tuple[str, Key, Item] | None], *, lenient: bool = False
) -> dict[str, Shelf[Item]]:
    """Read `source` row by row onto one shelf per group, the groups in the order of the file.

    Args:
        source: what to read.
        intake: which duplicates to keep, how many rows may be bad.
        parse: a row as (group, key, item), None if it is not wanted; a DataError makes it a bad row, named with its
            place.
        lenient: take NaN, Infinity and lone surrogates too.
    """
    shelves: dict[str, Shelf[Item]] = {}
    for number, row in source.each(intake.bad.meet, lenient=lenient):
        try:
            parsed = parse(row)
        except DataError as error:
            intake.bad.meet(f"{source.place(number)}: {error}")
            continue
        if parsed is not None:
            shelf = shelves.get(parsed[0])
            if shelf is None:
                shelf = shelves[parsed[0]] = Shelf(source, intake.duplicates)
            shelf.put(parsed[1], number, parsed[2])
    return shelves


def only(source: Source, intake: Intake, shelves: dict[str, Shelf[Item]]) -> Shelf[Item]:
    """The only shelf there is; an empty one where no row was taken."""
    return next(iter(shelves.values()), None) or Shelf(source, intake.duplicates)


def ranked(items: dict[Key, Item]) -> dict[Key, Item]:
    """The items with the second part of each key replaced by its rank among those of the same id.

    For files that repeat a prompt without saying so: the number of the row tells the repeats apart, but means nothing
    in another file.
    """
    ordinals: dict[object, list[int]] = {}
    for identifier, ordinal in items:
        ordinals.setdefault(identifier, []).append(ordinal)
    ranks = {
        (identifier, ordinal): rank
        for identifier, numbers in ordinals.items()
        for rank, ordinal in enumerate(sorted(numbers))
    }
    return {(key[0], ranks[key]): item for key, item in items.items()}


def of_one_task(error: DataError, task: str) -> DataError:
    """`error` about the grade of one task among several, with how `--metric` names it for that task alone."""
    hint = f" Where several tasks are read, write {task}=GRADE." if "--metric" in str(error) else ""
    return DataError(f"{error}{hint}")
