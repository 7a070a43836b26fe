"""What a scorer is, and how it is called: every broken promise is told, nothing ungraded becomes a number.

    f(prompts, completions, **columns) -> list[float | None]

is the signature of TRL's reward functions, so one function serves training and judging. As there, a prompt that is a
list of messages comes with its completion as `[{"role": "assistant", "content": ...}]`, a prompt that is a text with a
text. The columns are the other keys of the prompt rows, None where a row lacks one. None means: cannot be graded.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import math
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

from flipguard.errors import FlipGuardError, JudgeError, choose, shown
from flipguard.evaluate.functions import find_function, where_it_failed
from flipguard.evaluate.judges import JUDGES
from flipguard.records import Row

GENERATED = ("completion", "model", "finish_reason", "repeat", "error")
"""The keys of a generation row that are not of its prompt row."""


@dataclass(frozen=True, slots=True)
class Scorer:
    """A scorer and what is known about it.

    Attributes:
        name: as the user wrote it.
        function: the scorer itself.
        file: where it was found.
        sha256: of that file; an edited scorer is another one.
        grade: "correct" if its 1.0 and 0.0 mean right and wrong, else "score".
        ungraded: what its None means.
    """

    name: str
    function: Callable[..., Any]
    file: str | None
    sha256: str | None
    grade: Literal["score", "correct"] = "score"
    ungraded: str = "the scorer returned None"


@dataclass(frozen=True, slots=True)
class Grade:
    """The score of one answer, or the reason why it has none."""

    score: float | None
    error: str | None = None


def find_scorer(name: str) -> Scorer:
    """The judge called `name`, or the function `package.module:function` stands for.

    Raises:
        JudgeError: there is none, or it cannot take the columns.
    """
    if name in JUDGES:
        module = importlib.import_module(f"flipguard.evaluate.judges.{name}")
        found = find_function(f"{module.__name__}:{name}", "judge")
        return Scorer(name, found.function, found.file, found.sha256, module.GRADE, module.UNGRADED)
    if ":" not in name:
        raise JudgeError(f"--judge: '{name}' is unknown. {choose(name, JUDGES)} Or write package.module:function.")
    found = find_function(name, "judge")
    _check_signature(name, found.function)
    return Scorer(name, found.function, found.file, found.sha256)


def score(scorer: Scorer, rows: Sequence[Row], keys: Sequence[str], *, place: str) -> list[Grade]:
    """Grade the generation `rows`.

    Args:
        scorer: the scorer.
        rows: generation rows with a completion.
        keys: the columns it gets.
        place: which rows these are, for errors.

    Raises:
        JudgeError: the scorer raised, or returned something else than a list with one number or None for each row.
    """
    if not rows:
        return []
    prompts = [copy.deepcopy(row["prompt"]) for row in rows]  # a scorer may change what it is given
    columns = {key: [row.get(key) for row in rows] for key in keys}
    try:
        with redirect_stdout(sys.stderr):  # standard output belongs to the result
            values = scorer.function(prompts, [_completion(row) for row in rows], **columns)
    except FlipGuardError:
        raise
    except (Exception, SystemExit) as error:  # a scorer is the user's code and may raise anything
        raise JudgeError(f"{scorer.name}: failed on {place}: {where_it_failed(error, scorer.file)}") from error
    if not isinstance(values, list | tuple):
        raise JudgeError(
            f"{scorer.name}: returned a {type(values).__name__} for {place}, not a list. "
            "Return one float or None per completion; a tensor or array has .tolist()."
        )
    if len(values) != len(rows):
        raise JudgeError(
            f"{scorer.name}: returned {len(values)} values for the {len(rows)} completions of {place}. "
            "Return one float or None per completion."
        )
    return [_grade(scorer, value, row, place) for value, row in zip(values, rows, strict=True)]


def column_keys(rows: Sequence[Row]) -> list[str]:
    """The keys that reach the scorer as columns: all of the prompt rows but `prompt`, in order of appearance."""
    keys = dict.fromkeys(key for row in rows for key in row)
    return [key for key in keys if key not in ("prompt", "prompts", "completions", *GENERATED)]


def _grade(scorer: Scorer, value: Any, row: Row, place: str) -> Grade:
    if value is None:
        return Grade(None, scorer.ungraded)
    if isinstance(value, bool) or not isinstance(value, Real):
        raise JudgeError(
            f"{scorer.name}: returned {shown(value)} ({type(value).__name__}) for id {shown(row['id'])} in {place}. "
            "Return a float, or None where it cannot be graded."
        )
    if not math.isfinite(value):
        return Grade(None, f"the scorer returned {float(value)}")
    return Grade(float(value))


def _completion(row: Row) -> Any:
    if isinstance(row["prompt"], str):
        return row["completion"]
    return [{"role": "assistant", "content": row["completion"]}]


def _check_signature(name: str, function: Callable[..., Any]) -> None:
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # compiled code does not tell
        return
    if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        raise JudgeError(
            f"--judge {name}: must take the other keys of the rows too. "
            f"Write def {name.partition(':')[2]}(prompts, completions, **columns)."
        )
