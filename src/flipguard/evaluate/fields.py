"""The checked keys of a row. Each function returns the value or raises a DataError that says what is wrong with it.

The caller, who knows the file and the line, puts them in front.
"""

from __future__ import annotations

import math
from typing import Any

from flipguard.errors import DataError, choose, shown
from flipguard.evaluate.comparison import Answer
from flipguard.evaluate.runs import Key, Metric
from flipguard.files import to_json
from flipguard.records import Row, Verdict

ORDERS = ("old_first", "new_first")
WINNERS = ("old", "new", "tie", "invalid")


def key_of(row: Row) -> Key:
    """The row's id and repeat. Ids keep their type: 1 and "1" are two ids."""
    value, repeat = row.get("id"), row.get("repeat", 0)
    if type(value) is str and type(repeat) is int and repeat >= 0:
        return value, repeat
    if "id" not in row:
        raise DataError(f"'id' is missing; the row has {_keys(row)}. Give each prompt the same id in both runs.")
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise DataError(f"'id' is {shown(value)}; expected text or a whole number of at most 64 bits.")
    if not isinstance(repeat, int) or isinstance(repeat, bool) or repeat < 0:
        raise DataError(f"'repeat' is {shown(repeat)}; expected a whole number, 0 for the first sample.")
    return value, repeat


def answer_of(row: Row, metric: Metric) -> Answer:
    """The graded answer in `row`. An answer with an `error` is never graded, whatever its score says."""
    score, error = grade_of(row, metric)
    return Answer(score, completion_of(row), error, finish_reason_of(row), rationale_of(row.get("reason")))


def rationale_of(value: object) -> str | None:
    """Why a grader graded so; nothing where it said nothing in words."""
    return value if isinstance(value, str) and value.strip() else None


def grade_of(row: Row, metric: Metric) -> tuple[float | None, str | None]:
    """The grade in `row` and why the answer failed; one of them is None, or both where it was not graded."""
    error, score = _error(row), None
    if error is None or metric in row:
        score = _correct(row) if metric == "correct" else _score(row)
    return score if error is None else None, error


def completion_of(row: Row) -> str | None:
    """What the model said."""
    return _text(row, "completion")


def finish_reason_of(row: Row) -> str | None:
    """Why the answer ended."""
    reason = row.get("finish_reason")
    return reason if isinstance(reason, str) else None


def ungraded_answer_of(row: Row) -> Answer:
    """The answer in `row` where the verdict stands elsewhere."""
    return Answer(None, completion_of(row), _error(row), finish_reason_of(row))


def categories_of(row: Row) -> tuple[str, ...]:
    """The slices the row belongs to, without repetition."""
    value = row.get("category")
    if value is None:
        return ()
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return tuple(dict.fromkeys(value))
    raise DataError(f"'category' is {shown(value)}; expected text or a list of texts.")


def cluster_of(row: Row) -> str | None:
    """The name of the group of rows that are not independent of each other."""
    return _text(row, "cluster")


def prompt_of(row: Row) -> str | None:
    """The prompt as one text; messages become "role: content", one after the other."""
    value = row.get("prompt")
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(turn, dict) for turn in value):
        return "\n\n".join(f"{turn.get('role', 'unknown')}: {_content(turn.get('content'))}" for turn in value)
    raise DataError(f"'prompt' is {shown(value)}; expected text or a list of messages with role and content.")


def reference_of(row: Row) -> str | None:
    """What a right answer is, as text; anything that is not text already, as JSON."""
    value = row.get("reference")
    return value if value is None or isinstance(value, str) else to_json(value).decode()


def verdicts_of(row: Row) -> tuple[Verdict, ...]:
    """What the pairwise judge said, in the order it was asked."""
    value = row.get("verdicts")
    if not isinstance(value, list) or not all(isinstance(verdict, dict) for verdict in value):
        raise DataError(f"'verdicts' is {shown(value)}; expected a list of objects with 'order' and 'winner'.")
    for verdict in value:
        for name, choices in (("order", ORDERS), ("winner", WINNERS)):
            if verdict.get(name) not in choices:
                raise DataError(
                    f"'verdicts' has {name} {shown(verdict.get(name))}. {choose(verdict.get(name), choices)}"
                )
        if any(isinstance(part, list | dict) for part in verdict.values()):
            to_json(verdict)  # which will be asked for when the flips are written
    return tuple(value)


def _score(row: Row) -> float | None:
    value = row.get("score")
    if type(value) is float and math.isfinite(value):
        return value
    value = _grade(row, "score")
    if value is None:
        return None
    if isinstance(value, bool):
        raise DataError(f"'score' is {shown(value)}; right or wrong belongs into 'correct', 'score' holds a number.")
    if isinstance(value, str):
        raise DataError(
            f"'score' is the text {shown(value)}; write a number without quotes, or null if it was not graded."
        )
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise DataError(f"'score' is {shown(value)}; expected one number, or null if it was not graded.")
    return float(value)


def _correct(row: Row) -> float | None:
    value = _grade(row, "correct")
    if value is None:
        return None
    if not isinstance(value, bool):
        raise DataError(f"'correct' is {shown(value)}; expected true or false, or null if it was not graded.")
    return 1.0 if value else 0.0


def _grade(row: Row, name: str) -> Any:
    if name not in row:
        raise DataError(
            f"'{name}' is missing; the row has {_keys(row)}. "
            "A file is graded by one key throughout: null says that an answer was not graded, --metric names the key."
        )
    return row[name]


def _error(row: Row) -> str | None:
    value = row.get("error")
    if value is None or value is False or value == "":
        return "the generation failed" if row.get("finish_reason") == "error" else None
    return value if isinstance(value, str) else shown(value, 200)


def _text(row: Row, name: str) -> str | None:
    value = row.get(name)
    if value is None or isinstance(value, str):
        return value
    raise DataError(f"'{name}' is {shown(value)}; expected text.")


def _content(value: Any) -> str:
    return value if isinstance(value, str) else to_json(value).decode()


def _keys(row: Row) -> str:
    return ", ".join(shown(key) for key in list(row)[:8]) or "no keys"
