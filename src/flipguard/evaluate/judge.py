"""Grade the answers of two models: two generations.jsonl -> judgments.jsonl. A killed run goes on where it stopped.

Rows are paired by (id, repeat), in the order of the old file, then what only the new one has. What a row looks like
when something is amiss:

- only one side has the id: the other side is null; counted as only_old or only_new;
- the prompts, or the references, of the two sides differ: two answers to two questions say nothing about a flip, so
  neither side is graded, both carry the error "prompt changed" (or "reference changed"), and `new` carries its prompt
  (or reference) so that the reader sees both; counted as changed_prompts, and among the invalid;
- the answer is an error (finish_reason "error"), the scorer returned None, NaN or an infinity: the score of that side
  is null and its error says why; counted as invalid.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flipguard.errors import FlipGuardError
from flipguard.evaluate.prompts import Located, read_generations, rows_sha256
from flipguard.evaluate.resumable import Unit, write_units
from flipguard.evaluate.scorer import GENERATED, column_keys, find_scorer, score
from flipguard.files import read_jsonl
from flipguard.functions import importable_here
from flipguard.records import Row, RowId
from flipguard.scorers import Grade, Scorer

QUESTION = ("prompt", "reference")
"""Keys that must agree on both sides, or the two answers cannot be compared."""

Key = tuple[RowId, int]
Generations = dict[Key, Located]


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeOptions:
    """What `flipguard judge` is asked to do.

    Attributes:
        judge: a name of `judges.JUDGES`, or package.module:function; the current folder is searched too.
        model: what the judge reward_model asks: a folder, hub id, URL or function.
        old: generations of the model before the update.
        new: generations of the model after it.
        out: JSONL of judgment rows.
        batch_size: pairs graded together; the scorer is called once for each side.
        overwrite: begin again, whatever is there.
    """

    judge: str
    old: Path
    new: Path
    out: Path
    model: str | None = None
    batch_size: int = 64
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class JudgeSummary:
    """What `out` holds now; `resumed` rows of it were there before, `already` says that all were.

    `matched` counts the pairs, `invalid` those of them that lack a grade on at least one side.
    """

    out: Path
    rows: int
    resumed: int
    already: bool
    matched: int
    only_old: int
    only_new: int
    changed_prompts: int
    invalid: int


def judge(options: JudgeOptions) -> JudgeSummary:
    """Grade both sides of every pair and write the judgments to `out`.

    Raises:
        FlipGuardError: an option, a generations file, the scorer or the output file cannot be used.
    """
    _check(options)
    old, new = read_generations(options.old), read_generations(options.new)
    keys = list(dict.fromkeys([*old, *new]))
    units: list[Unit] = [
        range(at, min(at + options.batch_size, len(keys))) for at in range(0, len(keys), options.batch_size)
    ]
    with importable_here():
        scorer = find_scorer(options.judge, options.model)
        columns = column_keys([item.row for side in (old, new) for item in side.values()])

        def work(number: int) -> list[Row]:
            pairs = [(key, old.get(key), new.get(key)) for key in (keys[at] for at in units[number])]
            return judge_pairs(scorer, pairs, columns, place=f"batch {number}")

        written = write_units(
            options.out,
            units,
            lambda: work,
            fingerprint={
                "stage": "judge",
                "judge": scorer.name,
                "judge_sha256": scorer.sha256,
                "old_sha256": rows_sha256(old.values()),
                "new_sha256": rows_sha256(new.values()),
                "batch_size": options.batch_size,
            },
            overwrite=options.overwrite,
            label="judge",
        )
        if remark := scorer.told():
            sys.stderr.write(f"{scorer.name}: {remark}\n")
    return JudgeSummary(
        out=options.out,
        rows=written.rows,
        resumed=written.resumed,
        already=written.already,
        matched=len(old.keys() & new.keys()),
        only_old=len(old.keys() - new.keys()),
        only_new=len(new.keys() - old.keys()),
        changed_prompts=sum(bool(_changed(old[key].row, new[key].row)) for key in old.keys() & new.keys()),
        invalid=sum(_is_invalid(row) for _, row in read_jsonl(options.out)),
    )


Pairing = tuple[Key, Located | None, Located | None]


def judge_pairs(scorer: Scorer, pairs: Sequence[Pairing], columns: Sequence[str], *, place: str) -> list[Row]:
    """The judgment rows of `pairs`."""
    changed = [_changed(old.row, new.row) if old and new else [] for _, old, new in pairs]
    sides = {}
    for name, located in (("old", [old for _, old, _ in pairs]), ("new", [new for _, _, new in pairs])):
        fit = [
            at
            for at, item in enumerate(located)
            if item and not changed[at] and item.row.get("finish_reason") != "error"
        ]
        rows = [item.row for item in (located[at] for at in fit) if item]
        grades = dict(zip(fit, score(scorer, rows, columns, place=f"{place}, {name} side"), strict=True))
        sides[name] = [
            _side(scorer, item.row, grades.get(at), changed[at]) if item else None for at, item in enumerate(located)
        ]
    return [
        _judgment(scorer, pair, changed[at], old=sides["old"][at], new=sides["new"][at])
        for at, pair in enumerate(pairs)
    ]


def _judgment(scorer: Scorer, pair: Pairing, changed: list[str], *, old: Row | None, new: Row | None) -> Row:
    (identifier, repeat), *both = pair
    first, second = both
    source = first or second
    assert source is not None  # noqa: S101 (keys come from one of the two files)
    question = {key: value for key, value in source.row.items() if key not in GENERATED}
    if new is not None and second is not None:
        new = new | {key: second.row.get(key) for key in changed}
    return question | {"id": identifier, "judge": scorer.name, "repeat": repeat, "old": old, "new": new}


def _side(scorer: Scorer, row: Row, grade: Grade | None, changed: list[str]) -> Row:
    if grade is None:
        grade = Grade(None, f"{' and '.join(changed)} changed" if changed else _failure(row))
    graded: Row = {"score": grade.score}
    if scorer.grade == "correct":
        graded["correct"] = None if grade.score is None else grade.score == 1.0
    if grade.error is not None:
        graded["error"] = grade.error
    kept = {key: row.get(key) for key in ("completion", "model", "finish_reason") if key in row}
    return kept | graded


def _failure(row: Row) -> str:
    said = row.get("error")
    return f"no answer: {said}" if isinstance(said, str) else "no answer: finish_reason is error"


def _changed(old: Row, new: Row) -> list[str]:
    return [key for key in QUESTION if old.get(key) != new.get(key)]


def _is_invalid(row: Row) -> bool:
    sides = (row["old"], row["new"])
    return None not in sides and any(side["score"] is None for side in sides)


def _check(options: JudgeOptions) -> None:
    if options.batch_size < 1:
        raise FlipGuardError(f"--batch-size: {options.batch_size} is too small; the least is 1.")
    for flag, path in (("--old", options.old), ("--new", options.new)):
        if options.out.resolve() == path.resolve():
            raise FlipGuardError(f"--out {options.out}: is the file of {flag}. Name another.")
