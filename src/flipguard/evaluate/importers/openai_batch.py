"""OpenAI Batch results: the answers of a judge, joined by `custom_id`.

Each answer is a JSON object that holds the grade: `correct` or `score`, or what `--metric` names. A request that
failed, was refused or cut off, and an answer that is no such object, is not graded. A batch of a model's own answers
has no grades to compare: those go through `flipguard judge` first.
"""

from __future__ import annotations

import re
from typing import Any

from flipguard.errors import DataError, choose, shown
from flipguard.evaluate.fields import key_of, rationale_of
from flipguard.evaluate.intake import Intake, gather, only
from flipguard.evaluate.numbers import graded, number_of, scale_of
from flipguard.evaluate.runs import Entry, Key, Run
from flipguard.evaluate.source import Source, lenient_json
from flipguard.records import Row

DEFAULTS = ("correct", "score")
REASONS = ("reason", "rationale", "explanation", "reasoning")
DONE = 200
FENCED = re.compile(r"\s*```(?:json)?\s*\n(.*)\n\s*```\s*", re.DOTALL)  # as models write it without structured output


def recognise(source: Source) -> str | None:
    """Rows have a `custom_id` and a `response`."""
    if not source.rows:
        return source.why_no_rows()
    keys = {"custom_id", "response"}
    return None if any(keys <= row.keys() for row in source.rows) else "no row has 'custom_id' and 'response'"


def read(source: Source, intake: Intake) -> Run:
    """The grades that one batch gave."""
    found = [answer for row in source.rows if isinstance(answer := _answer(row)[0], dict)]
    there = list(dict.fromkeys(key for answer in found for key, value in answer.items() if _is_grade(value)))
    name = intake.metric or next((name for name in DEFAULTS if name in there), None)
    if not there:
        raise DataError(
            f'{source.path}: its answers hold no grades, such as {{"score": 7}}. If they are a model\'s answers, write '
            "them as generations and grade them with flipguard judge."
        )
    if name is None or name not in there:
        asked = f"--metric {name}: no such grade." if name else "choose the grade with --metric."
        raise DataError(f"{source.path}: {asked} {choose(name or '', there)}")

    def parse(row: Row) -> tuple[str, Key, Entry]:
        answer, error = _answer(row)
        value = number_of(name, answer.get(name)) if isinstance(answer, dict) else None
        if error is None and value is None:
            error = f"the answer holds no {name}"
        said = (rationale_of(answer.get(key)) for key in REASONS) if isinstance(answer, dict) else ()
        rationale = next(filter(None, said), None)
        return "", key_of({"id": row.get("custom_id")}), Entry(graded(name, value, error=error, rationale=rationale))

    shelf = only(source, intake, gather(source, intake, parse, lenient=True))
    entries = shelf.taken()
    return Run(source.stem, scale_of(entries.values()), entries, (source.path,), shelf.duplicates, {"": name})


def _answer(row: Row) -> tuple[Any, str | None]:
    """What the judge answered, as JSON, or why there is nothing."""
    response = row.get("response")
    failed = row.get("error")
    if failed is not None or not isinstance(response, dict):
        said = failed.get("message") if isinstance(failed, dict) else failed
        return None, said if isinstance(said, str) and said else "the request failed"
    body = response.get("body")
    if response.get("status_code", DONE) != DONE or not isinstance(body, dict):
        return None, f"the request failed with status {shown(response.get('status_code'))}"
    text, cut_off = _text(body)
    if cut_off:
        return None, "the answer was cut off"
    try:
        fenced = FENCED.fullmatch(text)
        return lenient_json((fenced[1] if fenced else text).encode("utf-8", "surrogatepass")), None
    except ValueError:
        return None, "the answer is not JSON"


def _text(body: Row) -> tuple[str, bool]:
    """The text of a chat completion or of a response, and whether it was cut off."""
    choices = body.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        message = choices[0].get("message")
        content = message.get("content") if isinstance(message, dict) else None
        return content if isinstance(content, str) else "", choices[0].get("finish_reason") == "length"
    items = body.get("output")
    parts = [part for item in _objects(items) for part in _objects(item.get("content"))]
    texts = [part["text"] for part in parts if isinstance(part.get("text"), str)]
    return "".join(texts), body.get("status") == "incomplete"


def _objects(value: Any) -> list[Row]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _is_grade(value: object) -> bool:
    return isinstance(value, bool | int | float)
