"""Generic scores: JSONL rows `{"id", "score": number|null}` or `{"id", "correct": bool|null}`, one file per model.

Where rows have both keys, `correct` counts: it is the decision, `score` the evidence; `--metric score` reverses it.
"""

from __future__ import annotations

from pathlib import Path

from flipguard.errors import DataError, choose, shown
from flipguard.evaluate.fields import answer_of, categories_of, cluster_of, prompt_of
from flipguard.evaluate.intake import Intake, Source, shelve
from flipguard.evaluate.runs import Entry, Metric, Run
from flipguard.records import Row

METRICS: tuple[Metric, ...] = ("correct", "score")


def recognise(source: Source) -> str | None:
    """Scores have `score` or `correct` at the top of a row."""
    if not source.rows:
        return source.why_no_rows()
    if any(metric in row for row in source.rows for metric in METRICS):
        return None
    return f"no row has 'score' or 'correct'; the first has {', '.join(shown(key) for key in list(source.rows[0])[:8])}"


def read(source: Source, intake: Intake) -> Run:
    """One model's graded answers."""
    metric = _metric(source, intake)

    def entry(row: Row) -> Entry:
        return Entry(answer_of(row, metric), prompt_of(row), categories_of(row), cluster_of(row))

    shelf = shelve(source.path, intake, entry)
    return Run(_name(source), metric, shelf.items, (source.path,), shelf.duplicates)


def _metric(source: Source, intake: Intake) -> Metric:
    if intake.metric is not None:
        if intake.metric not in METRICS:
            raise DataError(
                f"{source.path}: --metric {intake.metric}: scores have none. {choose(intake.metric, METRICS)}"
            )
        return intake.metric
    graded = next((row for row in source.rows if "correct" in row or "score" in row), {})
    return "correct" if "correct" in graded else "score"


def _name(source: Source) -> str:
    model = source.rows[0].get("model") if source.rows else None
    return model if isinstance(model, str) and model else stem(source.path)


def stem(path: Path) -> str:
    """The file's name without its endings: runs/old.jsonl.gz is "old"."""
    return path.name.removesuffix(".gz").removesuffix(".jsonl").removesuffix(".json") or path.name
