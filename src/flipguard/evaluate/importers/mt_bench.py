"""FastChat's MT-Bench: `*_single.jsonl`, where a judge gave each answer a mark, one line for each turn.

The file holds several models: `FILE#MODEL` names one. A mark of -1 was not parsed, so the answer is not graded. A model
that was judged twice under one name needs `--duplicates first` or `last`; several judges need `--metric JUDGE`. The
turns of a question are one cluster. Questions, categories and answers come from the files beside: mt_bench_questions.
"""

from __future__ import annotations

import math

from flipguard.errors import DataError, choose, shown
from flipguard.evaluate.comparison import Answer
from flipguard.evaluate.fields import rationale_of
from flipguard.evaluate.importers.mt_bench_questions import Questions
from flipguard.evaluate.intake import Intake, Shelf, gather
from flipguard.evaluate.runs import Entry, Key, Run
from flipguard.evaluate.source import Source
from flipguard.records import Row

UNPARSED = (-1, [-1, -1], [-1])
LARGEST_MARK = 10


def recognise(source: Source) -> str | None:
    """Rows have a question, a turn, a model and a mark."""
    if not source.rows:
        return source.why_no_rows()
    keys = {"question_id", "turn", "model", "score"}
    return (
        None if any(keys <= row.keys() for row in source.rows) else "no row has 'question_id', 'turn', 'model', 'score'"
    )


def read(source: Source, intake: Intake) -> Run:
    """The marks of one model."""
    questions, there = Questions(source.path, intake), set[str]()

    def parse(row: Row) -> tuple[str, Key, Entry] | None:
        model, judge = named(row, "model"), judge_of(row)
        there.update((model, judge))
        if source.part not in (None, model) or intake.metric not in (None, judge):
            return None
        key, mark = key_of(row), _mark(row)
        error = "the mark was not parsed" if mark is None else None
        answer = Answer(mark, questions.answer(row, model), error, rationale=rationale_of(row.get("judgment")))
        entry = Entry(answer, questions.prompt(row), questions.categories(row), cluster_of(row))
        return f"{model}\n{judge}", key, entry

    shelves = gather(source, intake, parse, lenient=True)
    if not shelves:
        asked = " by ".join(name for name in (source.part, intake.metric) if name)
        raise DataError(f"{source.path}: holds nothing of {shown(asked)}. {choose(asked, sorted(there))}")
    shelf = _only(source, shelves)
    questions.check()
    model, _, judge = next(iter(shelves)).partition("\n")
    return Run(
        name=model,
        metric="score",
        entries=shelf.taken(),
        files=(source.path, *questions.files),
        duplicates=shelf.duplicates,
        graded={"": judge},
    )


def _only(source: Source, shelves: dict[str, Shelf[Entry]]) -> Shelf[Entry]:
    """The rows of the only model and judge there are; a DataError that names the choices if there are others."""
    pairs = [name.partition("\n")[::2] for name in shelves]
    models, judges = sorted({model for model, _ in pairs}), sorted({judge for _, judge in pairs})
    if len(models) > 1:
        raise DataError(
            f"{source.path}: holds several models: {', '.join(models)}. Name the old and the new one: "
            f"{source.path.name}#{models[0]} {source.path.name}#{models[1]}."
        )
    if len(judges) > 1:
        raise DataError(f"{source.path}: holds several judges. Choose one with --metric: {', '.join(judges)}.")
    return next(iter(shelves.values()))


def key_of(row: Row) -> Key:
    """Question and turn: what both models were asked."""
    question, turn = row.get("question_id"), row.get("turn")
    if not isinstance(question, str | int) or isinstance(question, bool):
        raise DataError(f"'question_id' is {shown(question)}; expected a number or text.")
    if not isinstance(turn, int) or isinstance(turn, bool) or turn < 1:
        raise DataError(f"'turn' is {shown(turn)}; expected a whole number, 1 for the first.")
    return f"{question} turn {turn}", 0


def cluster_of(row: Row) -> str:
    """The question: its turns are not independent of each other."""
    return f"question {row['question_id']}"


def judge_of(row: Row) -> str:
    """The model that judged; the template it was given goes with the category and the turn."""
    judge = row.get("judge")
    first = judge[0] if isinstance(judge, list) and judge else judge
    return first if isinstance(first, str) else ""


def named(row: Row, key: str) -> str:
    """The name of a model."""
    value = row.get(key)
    if not isinstance(value, str) or not value:
        raise DataError(f"'{key}' is {shown(value)}; expected the name of a model.")
    return value


def _mark(row: Row) -> float | None:
    mark = row.get("score")
    if mark is None or mark in UNPARSED or (isinstance(mark, float) and math.isnan(mark)):
        return None
    if isinstance(mark, bool) or not isinstance(mark, int | float) or not 0 <= mark <= LARGEST_MARK:
        raise DataError(
            f"'score' is {shown(mark)}; expected a mark from 1 to {LARGEST_MARK}, or -1 if it was not parsed."
        )
    return float(mark)
