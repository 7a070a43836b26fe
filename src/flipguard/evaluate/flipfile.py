"""flips.jsonl: one row per negative flip; very many of them are written by another process beside the statistics."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from flipguard.errors import DataError
from flipguard.evaluate.columns import Columns
from flipguard.evaluate.comparison import Result
from flipguard.evaluate.pairs import Pairs
from flipguard.evaluate.picks import pick
from flipguard.evaluate.texts import StoredTexts, taken
from flipguard.evaluate.workers import Worker, processors
from flipguard.files import temporary_beside, to_json
from flipguard.records import Row

NAME = "flips.jsonl"
BLOCK = 1 << 20  # bytes written at once
MANY = 10_000  # flips; of fewer, another process saves next to nothing


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
        stored = all(isinstance(side.completions, StoredTexts) for side in (pairs.old, pairs.new))
        if not stored or processors() < 2 or len(pairs.falls(margin)) < MANY:
            return None
        handle, temporary = temporary_beside(folder / NAME)
        os.close(handle)
        draft = cls(temporary, Worker(write_flips, temporary, folder / NAME, _Flips(pairs), margin))
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


@dataclass(frozen=True, slots=True)
class _Flips:
    """Pairs of which, where they must be sent to another process, the negative flips alone are sent."""

    pairs: Pairs

    def __reduce__(self) -> tuple[object, ...]:
        return _Flips, (self.pairs.take(self.pairs.where("negative_flip")),)


def write_flips(temporary: Path, path: Path, of: _Flips, margin: float) -> None:
    """Write the negative flips among pairs to `temporary`, a file that is to become `path`."""
    try:
        with temporary.open("wb", buffering=BLOCK) as file:
            file.writelines(lines(_rows(of.pairs, margin)))
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
    falls = pairs.falls(margin)
    order = sorted(range(len(falls)), key=[-(fall or 0.0) for _, fall in falls].__getitem__)
    rows, worst = [falls[place][0] for place in order], [falls[place][1] for place in order]
    told = (pairs.changes(), pairs.categories, pairs.clusters, pairs.verdicts or [()] * len(pairs))
    changes, names, clusters, verdicts = (pick(column, rows) for column in told)
    sides = pairs.prompts(rows), _sides(pairs.old, rows), _sides(pairs.new, rows)
    columns = zip(pairs.old.order.take(rows), worst, changes, names, clusters, verdicts, *sides, strict=True)
    for (identifier, sample), fall, change, categories, cluster, said, prompt, old, new in columns:
        yield {
            "id": identifier,
            "repeat": sample,
            "severity": fall,
            "change": change,
            "prompt": prompt,
            "category": list(categories),
            "cluster": cluster,
            "old": old,
            "new": new,
            "verdicts": list(said),
        }


def _sides(answers: Columns, rows: Sequence[int]) -> Iterator[Row]:
    told = zip(pick(answers.scores, rows), taken(answers.completions, rows), strict=True)
    if not answers.rationales:
        return ({"score": score, "completion": completion} for score, completion in told)
    graded = zip(told, taken(answers.rationales, rows), strict=True)
    return ({"score": score, "completion": text, "reason": reason} for (score, text), reason in graded)
