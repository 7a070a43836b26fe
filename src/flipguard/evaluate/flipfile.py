"""flips.jsonl: one row per negative flip; very many of them are written by another process beside the statistics."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson

from flipguard.errors import DataError
from flipguard.evaluate.change import flips
from flipguard.evaluate.columns import Columns
from flipguard.evaluate.comparison import Result
from flipguard.evaluate.pairs import Pairs
from flipguard.evaluate.texts import StoredTexts
from flipguard.evaluate.workers import Worker, processors
from flipguard.files import temporary_beside, to_json
from flipguard.records import Row

NAME = "flips.jsonl"
MANY = 10_000  # flips; fewer are written before another process has started


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Draft:
    """The file on its way, under a name of its own; what is not asked for by `finished` vanishes with this object."""

    temporary: Path
    worker: Worker[None]

    @classmethod
    def begun(cls, folder: Path, pairs: Pairs, margin: float) -> Draft | None:
        """Begin to write the negative flips of `pairs`; None where that is not worth a process.

        Raises:
            DataError: the folder cannot be written to.
        """
        rows = pairs.where("negative_flip")
        sides = (pairs.old.completions, pairs.new.completions)
        if len(rows) < MANY or processors() < 2 or not all(isinstance(texts, StoredTexts) for texts in sides):
            return None
        handle, temporary = temporary_beside(folder / NAME)
        os.close(handle)
        draft = cls(temporary, Worker(write_flips, temporary, folder / NAME, pairs.take(rows), margin))
        weakref.finalize(draft, _discard, draft.worker.stop, temporary)
        return draft

    def finished(self) -> Path:
        """The whole file.

        Raises:
            DataError: it cannot be written.
        """
        self.worker.result()
        return self.temporary


def _discard(stop: Callable[[], None], temporary: Path) -> None:
    stop()
    temporary.unlink(missing_ok=True)


def write_flips(temporary: Path, path: Path, pairs: Pairs, margin: float) -> None:
    """Write the negative flips of `pairs` to `temporary`, a file that is to become `path`."""
    try:
        with temporary.open("wb") as file:
            file.writelines(lines(_rows(pairs, margin)))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}). Make room; nothing was replaced.") from None


def lines(rows: Iterable[Row]) -> Iterator[bytes]:
    """The lines of the file."""
    return (to_json(row, orjson.OPT_APPEND_NEWLINE) for row in rows)


def flip_rows(result: Result) -> Iterator[Row]:
    """One row per negative flip, the worst first; where there are no scores, in the order of the old run."""
    return _rows(Pairs.of(result.pairs), result.comparison.margin)


def _rows(pairs: Pairs, margin: float) -> Iterator[Row]:
    worst = sorted(flips(pairs, margin), key=lambda flip: -(flip[1] or 0.0))
    return (_row(pairs, row, fall) for row, fall in worst)


def _row(pairs: Pairs, row: int, severity: float | None) -> Row:
    identifier, repeat = pairs.old.order[row]
    return {
        "id": identifier,
        "repeat": repeat,
        "severity": severity,
        "change": pairs.changes()[row],
        "prompt": pairs.prompt(row),
        "category": list(pairs.categories[row]),
        "cluster": pairs.clusters[row],
        "old": _side(pairs.old, row),
        "new": _side(pairs.new, row),
        "verdicts": list(pairs.verdicts[row]) if pairs.verdicts else [],
    }


def _side(answers: Columns, row: int) -> Row:
    told = {"score": answers.scores[row], "completion": answers.completions[row]}
    return {**told, "reason": answers.rationales[row]} if answers.rationales else told
