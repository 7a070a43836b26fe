"""Our own judgments: rows that hold both answers, as `flipguard judge` writes them.

A scorer grades each side (`old.score`, `new.score`, or `correct`); a pairwise judge leaves `verdicts` beside them.
Where rows have several of these, verdicts count before correct before score; `--metric` chooses otherwise. A side that
is null has no partner. Rows of several judges are told apart: `--metric JUDGE` takes one, `--metric JUDGE=score` one
judge and one key.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, get_args

from flipguard.errors import DataError, choose, shown
from flipguard.evaluate.comparison import Answer
from flipguard.evaluate.fields import (
    answer_of,
    categories_of,
    cluster_of,
    key_of,
    prompt_of,
    ungraded_answer_of,
    verdicts_of,
)
from flipguard.evaluate.intake import Intake, Shelf, gather
from flipguard.evaluate.runs import Judged, Judgment, Key, Metric
from flipguard.evaluate.source import Source
from flipguard.records import Row

METRICS: tuple[Metric, ...] = get_args(Metric)
QUESTION = ("prompt", "reference")  # keys that `new` holds too where its own differ from the old ones


@dataclass(frozen=True, slots=True)
class Item:
    """One row: a pair, or None where one side has no partner; `alone` says which side is there."""

    pair: Judgment | None
    alone: str = ""
    changed: bool = False


def recognise(source: Source) -> str | None:
    """Judgments have `old` and `new`: objects, or one of them null."""
    if not source.rows:
        return source.why_no_rows()
    return None if any(_has_sides(row) for row in source.rows) else "no row has the objects 'old' and 'new'"


def read(source: Source, intake: Intake) -> Judged:
    """Both models' answers with what the judge said."""
    judge, metric = _wanted(source, intake.metric)

    def parse(row: Row) -> tuple[str, Key, Item] | None:
        name = _judge(row)
        return (name, key_of(row), _item(row, metric)) if judge in (None, name) else None

    name, shelf = _one_judge(source, judge, gather(source, intake, parse))
    items = shelf.taken()
    return Judged(
        old=_name(source.rows, "old"),
        new=_name(source.rows, "new"),
        metric=metric,
        judgments={key: item.pair for key, item in items.items() if item.pair is not None},
        files=(source.path,),
        duplicates=shelf.duplicates,
        only_old=tuple(key for key, item in items.items() if item.alone == "old"),
        only_new=tuple(key for key, item in items.items() if item.alone == "new"),
        changed_prompts=sum(item.changed for item in items.values()),
        graded={"": name} if name else {},
    )


def _wanted(source: Source, metric: str | None) -> tuple[str | None, Metric]:
    """The judge and the key that `--metric` names; where it names none, the key that the rows have."""
    first, equals, second = (metric or "").partition("=")
    key = second if equals else first
    if equals and key not in METRICS:
        raise DataError(f"{source.path}: --metric {metric}: unknown key {shown(key)}. {choose(key, METRICS)}")
    judge = first if equals or first not in METRICS else ""
    found = next((name for name in METRICS if name == key), None)
    return judge or None, found or _metric(source.rows)


def _one_judge(source: Source, judge: str | None, shelves: dict[str, Shelf[Item]]) -> tuple[str, Shelf[Item]]:
    if len(shelves) > 1:
        names = ", ".join(sorted(shelves))
        raise DataError(f"{source.path}: holds the words of several judges: {names}. Choose one with --metric JUDGE.")
    if shelves:
        return next(iter(shelves.items()))
    if judge is not None:
        there = sorted({_judge(row) for row in source.rows} - {""})
        raise DataError(f"{source.path}: --metric {judge}: no such key or judge. {choose(judge, [*METRICS, *there])}")
    return "", Shelf(source, "error")


def _item(row: Row, metric: Metric) -> Item:
    old, new = (_answer(row, side, metric) for side in ("old", "new"))
    if old is None and new is None:
        raise DataError("'old' and 'new' are both null; at least one of them holds an answer.")
    if old is None or new is None:
        return Item(None, "old" if new is None else "new")
    failed = row.get("error")
    verdicts = verdicts_of(row) if metric == "verdicts" and failed in (None, "") else ()
    pair = Judgment(old, new, prompt_of(row), categories_of(row), cluster_of(row), verdicts)
    error = new.error or ""
    return Item(pair, changed=error.endswith(" changed") and any(key in row["new"] for key in QUESTION))


def _answer(row: Row, side: str, metric: Metric) -> Answer | None:
    part = row.get(side, "")
    if part is None:
        return None
    if not isinstance(part, dict):
        was = shown(part) if side in row else "missing"
        raise DataError(f"'{side}' is {was}; expected an object that holds the {side} model's answer, or null.")
    try:
        answer = ungraded_answer_of(part) if metric == "verdicts" else answer_of(part, metric)
    except DataError as error:
        raise DataError(f"in '{side}', {error}") from None
    failed: Any = row.get("error")  # the judge failed on the pair, so neither side is graded
    if failed in (None, "") or answer.error is not None:
        return answer
    return replace(answer, score=None, error=failed if isinstance(failed, str) else shown(failed, 200))


def _has_sides(row: Row) -> bool:
    sides = [row.get(side, "") for side in ("old", "new")]
    return any(isinstance(side, dict) for side in sides) and all(
        side is None or isinstance(side, dict) for side in sides
    )


def _judge(row: Row) -> str:
    judge = row.get("judge")
    return judge if isinstance(judge, str) else "" if judge is None else shown(judge)


def _metric(rows: tuple[Row, ...]) -> Metric:
    if any("verdicts" in row for row in rows):
        return "verdicts"
    sides = [row.get(side) for row in rows for side in ("old", "new")]
    return "correct" if any(isinstance(side, dict) and "correct" in side for side in sides) else "score"


def _name(rows: tuple[Row, ...], side: str) -> str:
    part: Row = next((row[side] for row in rows if isinstance(row.get(side), dict)), {})
    model = part.get("model")
    return model if isinstance(model, str) and model else side
