"""promptfoo: the output as one JSON document, or as JSONL with one result a line.

A test is known by its variables and assertions, not by its place in the file. Where the file holds several providers or
prompts, `FILE#PROVIDER` or `FILE#PROVIDER|PROMPT` names one. A test passed or not; `--metric score` takes its score,
`--metric NAME` a named score. A result with failureReason 2 is an error, not a failure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from flipguard.errors import DataError, choose, shown
from flipguard.evaluate.fields import rationale_of
from flipguard.evaluate.intake import Intake, gather, ranked
from flipguard.evaluate.numbers import graded, number_of, scale_of
from flipguard.evaluate.runs import Entry, Key, Run
from flipguard.evaluate.source import Source
from flipguard.files import to_json
from flipguard.records import Row

PASSED = ("Assertion passed", "All assertions passed")
ERROR = 2  # failureReason: 0 none, 1 an assertion, 2 an error


def recognise(source: Source) -> str | None:
    """A document with a list of results inside `results`, or rows with `vars` and `success`."""
    if _results(source.document) is not None:
        return None
    if not source.rows:
        return source.why_no_rows()
    return None if any(_is_result(row) for row in source.rows) else "no row has 'vars' and 'success'"


def read(source: Source, intake: Intake) -> Run:
    """The results of one provider with one prompt."""
    results = _results(source.document)
    rows = source if results is None else replace(source, kind="array", document=results)
    several = len({_prompt_name(row) for row in _first(rows)}) > 1
    metric = intake.metric or "success"

    def parse(row: Row) -> tuple[str, Key, Entry] | None:
        provider, name = _provider(row), _prompt_name(row)
        if source.part not in (None, provider, f"{provider}|{name}"):
            return None
        return f"{provider}|{name}" if several else provider, _key(row), _entry(row, metric)

    shelves = gather(rows, intake, parse, lenient=True)
    if len(shelves) > 1:
        raise DataError(
            f"{source.path}: holds several: {', '.join(shelves)}. Name the old and the new one: "
            f"'{source.path.name}#{next(iter(shelves))}'."
        )
    if not shelves:
        there = sorted({_provider(row) for row in _first(rows)})
        raise DataError(f"{source.path}: holds no result of {shown(source.part)}. {choose(source.part, there)}")
    name, shelf = next(iter(shelves.items()))
    entries = ranked(shelf.taken())
    if all(entry.answer.score is None for entry in entries.values()):
        raise DataError(f"{source.path}: no result has a grade by {shown(metric)}. {choose(metric, _grades(rows))}")
    scale = scale_of(entries.values())
    return Run(source.part or name, scale, entries, (source.path,), shelf.duplicates, {"": metric})


def _results(document: Any) -> list[Any] | None:
    """The list of results, one level down as newer versions have it or at the top."""
    for _ in range(2):
        document = document.get("results") if isinstance(document, dict) else document
    found = isinstance(document, list) and any(isinstance(row, dict) and _is_result(row) for row in document)
    return document if found else None


def _is_result(row: Row) -> bool:
    return isinstance(row.get("vars"), dict) and ("success" in row or "failureReason" in row)


def _first(source: Source) -> Iterator[Row]:
    items = source.document if source.kind == "array" else source.rows
    return (row for row in items if isinstance(row, dict))


def _entry(row: Row, metric: str) -> Entry:
    response = _object(row, "response")
    output = response.get("output")
    completion = output if isinstance(output, str) or output is None else to_json(output).decode()
    error, value = _failure(row), None
    if error is None:
        named = row if metric in ("success", "score") else _object(row, "namedScores")
        value = number_of(metric, named.get(metric))
        error = None if value is not None else f"not graded by {metric}"
    prompt = _object(row, "prompt").get("raw")
    answer = graded(metric, value, completion, error, rationale=_rationale(row))
    return Entry(answer, prompt if isinstance(prompt, str) else None)


def _rationale(row: Row) -> str | None:
    """What the assertions said, one a line, or what they said together; that they passed is the grade itself."""
    result = _object(row, "gradingResult")
    parts = [
        f"{'passed' if part.get('pass') else 'failed'}: {said}"
        for part in _objects(result.get("componentResults"))
        if (said := rationale_of(part.get("reason"))) not in (None, *PASSED)
    ]
    said = rationale_of(result.get("reason"))
    return "\n".join(parts) or (None if said in PASSED else said)


def _failure(row: Row) -> str | None:
    """Why the result must not be graded: promptfoo writes an `error` for a failed assertion too, which is a grade."""
    said, reason = row.get("error"), row.get("failureReason")
    text = said if isinstance(said, str) and said else "the test failed to run"
    if reason == ERROR or (reason is None and said and not row.get("gradingResult")):
        return text
    parts = [_object(row, "gradingResult"), *_objects(_object(row, "gradingResult").get("componentResults"))]
    return "the grader failed" if any(_object(part, "metadata").get("graderError") is True for part in parts) else None


def _key(row: Row) -> Key:
    case = _object(row, "testCase")
    variables = row.get("vars")
    if not isinstance(variables, dict):
        raise DataError(f"'vars' is {shown(variables)}; expected an object.")
    known = to_json([sorted(variables.items()), case.get("assert")])
    place = row.get("testIdx", 0)
    return hashlib.sha256(known).hexdigest()[:16], place if isinstance(place, int) and place >= 0 else 0


def _provider(row: Row) -> str:
    provider = row.get("provider")
    if isinstance(provider, dict):
        provider = provider.get("label") or provider.get("id")
    return provider if isinstance(provider, str) else "unknown"


def _prompt_name(row: Row) -> str:
    prompt = _object(row, "prompt")
    label = prompt.get("label")
    return str(row.get("promptIdx", 0)) if not isinstance(label, str) or label == prompt.get("raw") else label


def _grades(source: Source) -> list[str]:
    names = {name for row in _first(source) for name in _object(row, "namedScores")}
    return ["success", "score", *sorted(names)]


def _object(row: Row, name: str) -> Row:
    value = row.get(name)
    return value if isinstance(value, dict) else {}


def _objects(value: Any) -> list[Row]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
