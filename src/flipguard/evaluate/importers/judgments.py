"""Our own judgments: JSONL rows that hold both answers, as `flipguard judge` writes them.

A scorer grades each side (`old.score`, `new.score`, or `correct`); a pairwise judge leaves `verdicts` beside them.
Where rows have several of these, verdicts count before correct before score; `--metric` chooses otherwise.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from flipguard.errors import DataError, shown
from flipguard.evaluate.comparison import Answer
from flipguard.evaluate.fields import answer_of, categories_of, cluster_of, prompt_of, ungraded_answer_of, verdicts_of
from flipguard.evaluate.intake import Intake, Source, shelve
from flipguard.evaluate.runs import Judged, Judgment, Metric
from flipguard.records import Row


def recognise(source: Source) -> str | None:
    """Judgments have two objects, `old` and `new`."""
    if not source.rows:
        return source.why_no_rows()
    if any(isinstance(row.get("old"), dict) and isinstance(row.get("new"), dict) for row in source.rows):
        return None
    return "no row has the objects 'old' and 'new'"


def read(source: Source, intake: Intake) -> Judged:
    """Both models' answers with what the judge said."""
    metric = intake.metric or _metric(source)
    shelf = shelve(source.path, intake, lambda row: _judgment(row, metric))
    first: Row = source.rows[0] if source.rows else {}
    return Judged(_name(first, "old"), _name(first, "new"), metric, shelf.items, (source.path,), shelf.duplicates)


def _judgment(row: Row, metric: Metric) -> Judgment:
    old, new = (_answer(row, side, metric) for side in ("old", "new"))
    verdicts = verdicts_of(row) if metric == "verdicts" and row.get("error") in (None, "") else ()
    return Judgment(old, new, prompt_of(row), categories_of(row), cluster_of(row), verdicts)


def _answer(row: Row, side: str, metric: Metric) -> Answer:
    part = row.get(side)
    if not isinstance(part, dict):
        raise DataError(f"'{side}' is {shown(part)}; expected an object that holds the {side} model's answer.")
    try:
        answer = ungraded_answer_of(part) if metric == "verdicts" else answer_of(part, metric)
    except DataError as error:
        raise DataError(f"in '{side}', {error}") from None
    failed: Any = row.get("error")  # the judge failed on the pair, so neither side is graded
    if failed in (None, "") or answer.error is not None:
        return answer
    return replace(answer, score=None, error=failed if isinstance(failed, str) else shown(failed, 200))


def _metric(source: Source) -> Metric:
    if any("verdicts" in row for row in source.rows):
        return "verdicts"
    sides = [row.get(side) for row in source.rows for side in ("old", "new")]
    return "correct" if any(isinstance(side, dict) and "correct" in side for side in sides) else "score"


def _name(row: Row, side: str) -> str:
    part = row.get(side)
    model = part.get("model") if isinstance(part, dict) else None
    return model if isinstance(model, str) and model else side
