"""Inspect logs, `.eval` or `.json`, versions 2 and 3, or a folder of them: one model's samples, epochs as repeats.

C is right and I wrong; P counts half and N, no answer, nothing, as Inspect has it. `--metric SCORER` chooses among
several scorers, `--metric SCORER.KEY` within a scorer that leaves several values. A sample with an error, without a
score, or that a cancelled log never ran, is not graded; one stopped by a limit keeps the score it got, and is counted.
In a folder each task is a slice, and `--metric TASK=SCORER` chooses for each.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from flipguard.errors import DataError, choose, shown
from flipguard.evaluate.comparison import Answer
from flipguard.evaluate.fields import key_of, prompt_of, rationale_of
from flipguard.evaluate.importers.inspect_folder import holds_logs, read_folder
from flipguard.evaluate.importers.inspect_messages import answer_text, resolved, stopped_at
from flipguard.evaluate.intake import Intake, Shelf
from flipguard.evaluate.numbers import graded, number_of, scale_of
from flipguard.evaluate.runs import Entry, Key, Run
from flipguard.evaluate.source import Source
from flipguard.files import to_json
from flipguard.records import Row

LETTERS = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0, "yes": 1.0, "no": 0.0, "true": 1.0, "false": 0.0}
NUMBER = re.compile(r"-?\d+(\.\d+)?")


@dataclass(frozen=True, slots=True)
class Sample:
    """What a sample says, before it is known which scorer counts."""

    scores: dict[str, Any]
    explained: dict[str, Any]
    answer: Answer
    limited: bool
    prompt: str | None
    target: str | None


def recognise(source: Source) -> str | None:
    """A log is a document with `eval` and `status`; an archive has a header, or the journal of one that broke off."""
    if source.kind == "zip":
        return _why_not_archive(source)
    if source.kind == "folder":
        return None if holds_logs(source.path) else "it is a folder without logs, .eval or .json"
    document = source.document
    if isinstance(document, dict):
        found = isinstance(document.get("eval"), dict) and ("status" in document or "plan" in document)
        return None if found else "it has no 'eval' and 'status'"
    return "it is neither a document with 'eval' and 'status' nor an archive"


def read(source: Source, intake: Intake) -> Run:
    """The samples of one log, or of one log for each task in a folder."""
    if source.kind == "folder":
        return read_folder(source, intake, _header, _read)
    return _read(source, intake)


def _read(source: Source, intake: Intake) -> Run:
    header, samples = _header(source), _samples(source)
    spec = _object(header, "eval")
    status = header.get("status", "started")
    shelf: Shelf[Sample] = Shelf(source, intake.duplicates)
    for number, row in enumerate(samples, start=1):
        try:
            shelf.put(_key(row), number, _sample(row))
        except DataError as error:
            intake.bad.meet(f"{source.path}: sample {number}: {error}")
    items = shelf.taken()
    if not items:
        raise DataError(f"{source.path}: holds no samples; the status of the log is {shown(status)}.")
    scorer = _scorer(source, intake.metric, items)
    entries = _entries(source, intake, items, scorer)
    unrun = [] if status == "success" else _unrun(spec, items)
    missing = Entry(Answer(error=f"never run: the log is {status}"))
    notes = []
    if status != "success":
        notes.append(f"The log {source.path.name} is {status}: {len(unrun):,} samples were never run.")
    if limited := sum(item.limited for item in items.values()):
        notes.append(f"Samples of {source.path.name} stopped by a limit: {limited:,}.")
    return Run(
        name=_text(spec, "model") or source.stem,
        metric=scale_of(entries.values()),
        entries=entries | dict.fromkeys(unrun, missing),
        files=(source.path,),
        duplicates=shelf.duplicates,
        graded={"": scorer},
        task=_text(spec, "task").rpartition("/")[2] or None,
        notes=tuple(notes),
    )


def _why_not_archive(source: Source) -> str | None:
    from flipguard.evaluate import archive

    try:
        names = archive.names(source.path)
    except DataError as error:
        return str(error).removeprefix(f"{source.path}: ").removesuffix(".")
    found = any(name == "header.json" or name.startswith(("_journal/", "samples/")) for name in names)
    return None if found else "it is an archive without header.json and samples/"


def _header(source: Source) -> Row:
    """What the log says of itself."""
    if source.kind != "zip":
        if not isinstance(source.document, dict):
            raise DataError(f"{source.path}: {source.fault or 'is not one JSON object'}.")
        return source.document
    from flipguard.evaluate import archive

    heads = dict(archive.documents(source.path, lambda name: name in ("header.json", "_journal/start.json")))
    header = heads.get("header.json", heads.get("_journal/start.json"))
    if not isinstance(header, dict):
        raise DataError(f"{source.path}: its header is missing or not an object.")
    return header


def _samples(source: Source) -> Iterator[Any]:
    """The samples of the log, one by one."""
    if source.kind != "zip":
        samples = source.document.get("samples")
        return iter(samples if isinstance(samples, list) else [])
    from flipguard.evaluate import archive

    wanted = archive.documents(source.path, lambda name: name.startswith("samples/") and name.endswith(".json"))
    return (document for _, document in wanted)


def _key(row: Any) -> Key:
    if not isinstance(row, dict):
        raise DataError(f"expected an object, found {shown(row)}.")
    epoch = row.get("epoch", 1)
    if not isinstance(epoch, int) or isinstance(epoch, bool) or epoch < 1:
        raise DataError(f"'epoch' is {shown(epoch)}; expected a whole number, 1 for the first.")
    return key_of({"id": row.get("id"), "repeat": epoch - 1})


def _sample(row: Row) -> Sample:
    attachments = _object(row, "attachments")
    target = row.get("target")
    scores, explained = _scores(row)
    return Sample(
        scores=scores,
        explained=resolved(explained, attachments),
        answer=Answer(None, answer_text(row, attachments), _failure(row), stopped_at(row)),
        limited=row.get("limit") is not None,
        prompt=prompt_of({"prompt": resolved(row.get("input"), attachments)}),
        target=None if target is None else target if isinstance(target, str) else to_json(target).decode(),
    )


def _scores(row: Row) -> tuple[dict[str, Any], dict[str, Any]]:
    """The values of all scorers and why they gave them; those of a scorer with several become SCORER.KEY."""
    scores = row.get("scores")
    if not isinstance(scores, dict):
        scores = {"score": row["score"]} if isinstance(row.get("score"), dict) else {}
    flat, explained = dict[str, Any](), dict[str, Any]()
    for name, score in scores.items():
        value = score.get("value") if isinstance(score, dict) else score
        values = {f"{name}.{key}": part for key, part in value.items()} if isinstance(value, dict) else {name: value}
        flat.update(values)
        if isinstance(score, dict):
            explained.update(dict.fromkeys(values, score.get("explanation")))
    return flat, explained


def _rationale(sample: Sample, scorer: str) -> str | None:
    """Why this scorer gave its score; many only repeat the answer, which stands there already."""
    said = rationale_of(sample.explained.get(scorer))
    return None if said is None or said.strip() in (sample.answer.completion or "") else said


def _failure(row: Row) -> str | None:
    """Why the sample must not be graded, whatever its scores say."""
    error = row.get("error")
    if error is not None:
        said = error.get("message") if isinstance(error, dict) else error
        return said if isinstance(said, str) and said else "the sample failed"
    return "the sample was invalidated" if row.get("invalidation") is not None else None


def _scorer(source: Source, wanted: str | None, items: dict[Key, Sample]) -> str:
    there: dict[str, bool] = {}
    for item in items.values():
        for name, value in item.scores.items():
            there[name] = there.get(name, False) or not isinstance(value, list)
    numbers = [name for name, is_number in there.items() if is_number]
    if not there:
        failed = [item.answer.error for item in items.values() if item.answer.error is not None]
        why = f"The first error: {shown(failed[0], 200)}." if failed else "Score it: inspect score LOG."
        raise DataError(f"{source.path}: none of its {len(items):,} samples has a score. {why}")
    if wanted is not None and wanted not in numbers:
        why = "its value is a list, not one number" if wanted in there else "no such scorer"
        raise DataError(f"{source.path}: --metric {wanted}: {why}. {choose(wanted, numbers)}")
    if wanted is None and len(numbers) != 1:
        lists = ", ".join(there)
        several = f"has several scorers. Choose one with --metric: {', '.join(numbers)}."
        raise DataError(f"{source.path}: {several if numbers else f'the value of {lists} is a list, not one number.'}")
    return wanted or numbers[0]


def _entries(source: Source, intake: Intake, items: dict[Key, Sample], scorer: str) -> dict[Key, Entry]:
    entries = {}
    for key, item in items.items():
        answer, error = item.answer, item.answer.error
        try:
            value = _value(scorer, item.scores[scorer]) if scorer in item.scores else None
        except DataError as wrong:
            intake.bad.meet(f"{source.path}: sample {shown(key[0])}, epoch {key[1] + 1}: {wrong}")
            continue
        if value is None and error is None:
            error = f"not scored by {scorer}"
        rationale = _rationale(item, scorer)
        graded_answer = graded(scorer, value, answer.completion, error, answer.finish_reason, rationale)
        entries[key] = Entry(graded_answer, item.prompt, target=item.target)
    return entries


def _value(scorer: str, value: object) -> float | None:
    if not isinstance(value, str):
        return number_of(scorer, value)
    if value in LETTERS or value.lower() in LETTERS:
        return LETTERS.get(value, LETTERS.get(value.lower()))
    if NUMBER.fullmatch(value.strip()):
        return number_of(scorer, float(value))
    raise DataError(f"{shown(scorer)} gave {shown(value)}; expected C, I, P, N or a number.")


def _unrun(spec: Row, items: dict[Key, Sample]) -> list[Key]:
    """The samples that the log was to run and did not."""
    ids = _object(spec, "dataset").get("sample_ids")
    epochs = _object(spec, "config").get("epochs")
    repeats = range(epochs if isinstance(epochs, int) and 0 < epochs < 1000 else 1)
    named = [name for name in (ids if isinstance(ids, list) else []) if isinstance(name, str | int)]
    return [(name, repeat) for name in named for repeat in repeats if (name, repeat) not in items]


def _object(row: Row, name: str) -> Row:
    value = row.get(name)
    return value if isinstance(value, dict) else {}


def _text(row: Row, name: str) -> str:
    value = row.get(name)
    return value if isinstance(value, str) else ""
