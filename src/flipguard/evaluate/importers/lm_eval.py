"""lm-evaluation-harness: `samples_<task>_<time>.jsonl`, or a folder of them with the `results_<time>.json` beside.

Answers are joined by the hash of their document. `--metric` says what grades them: `acc`, `exact_match,strict-match`
(with the filter, as the harness writes it), and where a folder holds several tasks `gsm8k=exact_match,strict-match`,
one word for each task. Without it, the only metric counts, or the first of DEFAULTS; several filters need a choice.
A metric that is 0 or 1 throughout is right or wrong, any other a score, which the margin applies to. The category or
subject of a document is its slice where a task has several.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from flipguard.errors import DataError, choose, shown
from flipguard.evaluate.importers.lm_eval_folder import folders, one_run_a_task, only_folder, results_of, task_of
from flipguard.evaluate.intake import Intake, Shelf, gather, of_one_task, ranked
from flipguard.evaluate.numbers import graded, number_of, scale_of
from flipguard.evaluate.runs import Entry, Key, Run
from flipguard.evaluate.source import Source
from flipguard.records import Row

DEFAULTS = ("acc_norm", "acc", "exact_match", "pass@1")
LOWER_IS_BETTER = {"perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte", "ter", "brier_score", "wer"}
BY_THE_HARNESS = {"doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics", "bypass"}
HASHES = {"doc_hash", "prompt_hash", "target_hash"}
NO_FILTER = "none"
SUBJECTS = ("category", "subject")  # keys of a document that say what it is about


@dataclass(frozen=True, slots=True)
class Grade:
    """What grades a task: a metric and the filter its answers went through; `sign` is -1 where lower is better."""

    metric: str
    filter: str
    sign: int

    def __str__(self) -> str:
        name = self.metric if self.filter == NO_FILTER else f"{self.metric},{self.filter}"
        return name if self.sign > 0 else f"-{name}"


@dataclass(frozen=True, slots=True)
class Task:
    """One file of samples, read."""

    name: str
    grade: Grade
    items: dict[Key, Entry]
    duplicates: int
    notes: tuple[str, ...]


def recognise(source: Source) -> str | None:
    """Samples have `doc_id` and `resps`; a folder has files named after them."""
    if source.kind == "folder":
        return None if folders(source.path) else "it is a folder without samples_*.jsonl"
    if not source.rows:
        return source.why_no_rows()
    found = any("doc_id" in row and ("resps" in row or "filtered_resps" in row) for row in source.rows)
    return None if found else "no row has 'doc_id' and 'resps'"


def read(source: Source, intake: Intake) -> Run:
    """One model's answers to the documents of one task or several."""
    paths, notes = [source.path], list[str]()
    if source.kind == "folder":
        paths, notes = one_run_a_task(only_folder(source.path), intake.duplicates)
    results = results_of(paths[0])
    document = {} if results is None else results.document
    several = len(paths) > 1
    _refuse_unknown_tasks(source.path, intake.metric, paths)
    sources = [source if path == source.path else Source.of(path) for path in paths]
    read_one = _one_of_several if several else partial(_task, several=False)
    tasks = [read_one(each, intake, document) for each in sources]
    entries = {
        (f"{task.name}/{key[0]}" if several else key[0], key[1]): entry
        for task in tasks
        for key, entry in task.items.items()
    }
    model = document.get("model_name")
    return Run(
        name=model if isinstance(model, str) and model else source.stem,
        metric=scale_of(entries.values()),
        entries=entries,
        files=(*paths, *([results.path] if results else [])),
        duplicates=sum(task.duplicates for task in tasks),
        graded={task.name if several else "": str(task.grade) for task in tasks},
        notes=(*notes, *(note for task in tasks for note in task.notes)),
    )


def _one_of_several(source: Source, intake: Intake, results: Row) -> Task:
    try:
        return _task(source, intake, results, several=True)
    except DataError as error:
        raise of_one_task(error, task_of(source.path)) from None


def _task(source: Source, intake: Intake, results: Row, *, several: bool) -> Task:
    name = task_of(source.path)
    metric, filter_name = _wanted(intake.metric, name)
    there, lists = _metrics(source.rows)
    chosen, note = _choose(source.path, metric, there, lists, name)
    grade = Grade(chosen, filter_name or "", -1 if _falls(results, name, chosen) else 1)
    shelves = gather(source, intake, partial(_parse, grade=grade), lenient=True)
    if not filter_name and len(shelves) > 1:
        filters = ", ".join(f"{chosen},{each}" for each in shelves)
        raise DataError(
            f"{source.path}: the answers went through several filters. Choose one with --metric: {filters}."
        )
    taken = filter_name or next(iter(shelves), NO_FILTER)
    if filter_name and shelves and filter_name not in shelves:
        raise DataError(f"{source.path}: --metric {intake.metric}: no such filter. {choose(filter_name, shelves)}")
    shelf = shelves.get(taken) or Shelf[Entry](source, intake.duplicates)
    items = _sliced(ranked(shelf.taken()), name if several else "")
    return Task(name, Grade(chosen, taken, grade.sign), items, shelf.duplicates, note)


def _parse(row: Row, grade: Grade) -> tuple[str, Key, Entry]:
    if grade.metric not in row:
        there = ", ".join(_metrics((row,))[0]) or "nothing"
        raise DataError(f"'{grade.metric}' is missing; the row is graded by {there}. --metric names one that all have.")
    value = number_of(grade.metric, row[grade.metric])
    answer = graded(grade.metric, value if value is None else grade.sign * value, _completion(row))
    number = row.get("doc_id")
    ordinal = number if isinstance(number, int) and number >= 0 else 0
    entry = Entry(answer, _prompt(row), _subject(row), None, _target(row))
    filter_name = row.get("filter", NO_FILTER)
    return filter_name if isinstance(filter_name, str) else shown(filter_name), (_document_hash(row), ordinal), entry


def _subject(row: Row) -> tuple[str, ...]:
    doc = row.get("doc")
    told = [doc.get(name) for name in SUBJECTS] if isinstance(doc, dict) else []
    return next(((text,) for text in told if isinstance(text, str) and text.strip()), ())


def _sliced(items: dict[Key, Entry], task: str) -> dict[Key, Entry]:
    """The slices of each answer: its task where there are several, and its subject where that tells answers apart."""
    subjects = {entry.categories for entry in items.values()}
    telling = 1 < len(subjects) <= len(items) // 2
    if telling and not task:
        return items
    first = (task,) if task else ()
    return {
        key: replace(entry, categories=(*first, *(f"{task}/{name}" for name in entry.categories if telling)))
        for key, entry in items.items()
    }


def _wanted(metric: str | None, task: str) -> tuple[str, str]:
    """The metric and the filter that `--metric` names for `task`, each empty if it names none."""
    words = [word.rpartition("=") for word in (metric or "").split()]
    said = {name: grade for name, _, grade in words}
    name, _, filter_name = said.get(task, said.get("", "")).partition(",")
    return name, filter_name


def _refuse_unknown_tasks(path: Path, metric: str | None, samples: Sequence[Path]) -> None:
    named = [task for sample in samples if (task := task_of(sample))]
    for word in (metric or "").split():
        task, equals, _ = word.rpartition("=")
        if equals and task not in named:
            raise DataError(f"{path}: --metric {word}: no such task. {choose(task, named)}")


def _metrics(rows: Sequence[Row]) -> tuple[list[str], list[str]]:
    """The metrics of the first rows: those of one number a sample, and those without."""
    names: dict[str, Any] = {}
    for row in rows:
        said = row.get("metrics")
        for name in said if isinstance(said, list) else row.keys() - BY_THE_HARNESS - HASHES:
            if isinstance(name, str) and name in row and (isinstance(said, list) or not isinstance(row[name], str)):
                names.setdefault(name, row[name])
    numbers = [name for name, value in names.items() if value is None or isinstance(value, bool | int | float)]
    return sorted(numbers), sorted(names.keys() - set(numbers))


def _choose(path: Path, wanted: str, there: list[str], lists: list[str], task: str) -> tuple[str, tuple[str, ...]]:
    """The metric to take, and a note where it was not the only one."""
    if wanted in lists:
        raise DataError(
            f"{path}: --metric {wanted}: is not one number a sample but a part of a sum over all of them, so that no "
            f"single answer gets better or worse by it. {choose(wanted, there)}"
        )
    if wanted and wanted not in there:
        raise DataError(f"{path}: --metric {wanted}: no such metric. {choose(wanted, there)}")
    if wanted:
        return wanted, ()
    default = there[0] if len(there) == 1 else next((name for name in DEFAULTS if name in there), None)
    if default is None:
        several = f"has several metrics. Choose one with --metric: {', '.join(there)}."
        parts = f"{', '.join(lists)}: parts of a sum over all samples, not one number a sample."
        none = parts if lists else "has no metric; was it graded?"
        raise DataError(f"{path}: {several if there else none}")
    others = [name for name in there if name != default]
    what = f"{task or path.name} is graded by {default}"
    return default, (f"{what}; --metric chooses another of {', '.join(others)}.",) if others else ()


def _falls(results: Row, task: str, metric: str) -> bool:
    """Whether a lower value is better, as the results say or else as the metric is known."""
    directions = results.get("higher_is_better")
    said = directions.get(task) if isinstance(directions, dict) else None
    higher = said.get(metric) if isinstance(said, dict) else None
    return not higher if isinstance(higher, bool) else metric in LOWER_IS_BETTER


def _document_hash(row: Row) -> str:
    given = row.get("doc_hash")
    if isinstance(given, str) and given:
        return given[:16]
    if "doc" not in row:
        raise DataError("has neither 'doc_hash' nor 'doc' to join it by.")
    return _sha256(json.dumps(row["doc"], indent=2, ensure_ascii=False))[:16]


def _target(row: Row) -> str | None:
    given = row.get("target_hash")
    if isinstance(given, str) and given:
        return given
    return _sha256(str(row["target"])) if "target" in row else None


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _prompt(row: Row) -> str | None:
    """What the model was shown: the first argument of the first request, as a list or by its name."""
    value = row.get("arguments")
    for _ in range(2):
        if isinstance(value, dict):
            value = next(iter(value.values()), None)
        elif isinstance(value, list):
            value = value[0] if value else None
    return value if isinstance(value, str) else None


def _completion(row: Row) -> str | None:
    """The answer where there is one text; log-likelihoods are none."""
    match row.get("resps"):
        case [[str(text)]]:
            return text
    return None
