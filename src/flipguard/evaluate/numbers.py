"""The grades that other tools write: what is a number, what is right or wrong, and what is neither."""

from __future__ import annotations

import math
from collections.abc import Iterable

from flipguard.errors import DataError, shown
from flipguard.evaluate.comparison import Answer
from flipguard.evaluate.runs import Entry, Metric


def number_of(name: str, value: object) -> float | None:
    """The grade `value` as a number; None where it is NaN, infinite or null, which is an answer that was not graded."""
    if value is None:
        return None
    if isinstance(value, bool | int | float):
        return _finite(value)
    kind = "a list" if isinstance(value, list) else "an object" if isinstance(value, dict) else "text"
    raise DataError(f"'{name}' is {kind}, {shown(value, 40)}; expected one number.")


def graded(
    name: str,
    value: float | None,
    completion: str | None = None,
    error: str | None = None,
    finish_reason: str | None = None,
    rationale: str | None = None,
) -> Answer:
    """The answer graded `value`; without a value, or with an error, it is not graded and says why."""
    if error is None and value is None:
        error = f"{name} is not a number"
    return Answer(value if error is None else None, completion, error, finish_reason, rationale)


def scale_of(entries: Iterable[Entry]) -> Metric:
    """Right or wrong if every grade is 0 or 1, else a score: a probability is never rounded to a decision."""
    scores = {entry.answer.score for entry in entries}
    return "correct" if scores <= {0.0, 1.0, None} and scores != {None} else "score"


def _finite(value: float) -> float | None:
    try:
        number = float(value)
    except OverflowError:  # a whole number of more than 308 digits
        return None
    return number if math.isfinite(number) else None
