"""What a scorer is, and how it is called: every broken promise is told, nothing ungraded becomes a number.

    f(prompts, completions, **columns) -> list[float | None]

is the signature of TRL's reward functions, so one function serves training and judging. As there, a prompt that is a
list of messages comes with its completion as `[{"role": "assistant", "content": ...}]`, a prompt that is a text with a
text. The columns are the other keys of the prompt rows, None where a row lacks one. None means: cannot be graded.
"""

from __future__ import annotations

import copy
import inspect
import math
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

from flipguard.errors import FlipGuardError, JudgeError, shown
from flipguard.functions import find_function, where_it_failed
from flipguard.records import Message, RowId


@dataclass(frozen=True, slots=True)
class Scorer:
    """A scorer and what is known about it.

    Attributes:
        name: as the user wrote it.
        function: the scorer itself.
        file: where it was found.
        sha256: of that file, or of the weights behind it; an edited scorer is another one.
        grade: "correct" if its 1.0 and 0.0 mean right and wrong, else "score".
        ungraded: what its None means.
        told: asked at the end: what the reader must know of how the answers were graded, or None.
    """

    name: str
    function: Callable[..., Any]
    file: str | None
    sha256: str | None
    grade: Literal["score", "correct"] = "score"
    ungraded: str = "the scorer returned None"
    told: Callable[[], str | None] = lambda: None


@dataclass(frozen=True, slots=True)
class Grade:
    """The score of one answer, or the reason why it has none."""

    score: float | None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """A prompt, an answer to it, and the id by which an error names the two."""

    id: RowId
    prompt: str | list[Message]
    completion: str


def user_scorer(name: str, place: str) -> Scorer:
    """The scorer `package.module:function` stands for; `place` is who asked for it: `--judge`, `ppo.yaml: reward`.

    Raises:
        JudgeError: there is none, or it cannot take the columns.
    """
    found = find_function(name, place)
    _check_signature(f"{place} {name}", name, found.function)
    return Scorer(name, found.function, found.file, found.sha256)


def grade(scorer: Scorer, answers: Sequence[Answered], columns: dict[str, list[Any]], *, place: str) -> list[Grade]:
    """Grade `answers`, one Grade each.

    Args:
        scorer: the scorer.
        answers: prompts and answers.
        columns: the other keys of the prompt rows, a list as long as `answers` each.
        place: which answers these are, for errors.

    Raises:
        JudgeError: the scorer raised, or returned something else than a list with one number or None for each row.
    """
    if not answers:
        return []
    prompts = [copy.deepcopy(answer.prompt) for answer in answers]  # a scorer may change what it is given
    try:
        with redirect_stdout(sys.stderr):  # standard output belongs to the result
            values = scorer.function(prompts, [_completion(answer) for answer in answers], **columns)
    except FlipGuardError:
        raise
    except (Exception, SystemExit) as error:  # a scorer is the user's code and may raise anything
        raise JudgeError(f"{scorer.name}: failed on {place}: {where_it_failed(error, scorer.file)}") from error
    if not isinstance(values, list | tuple):
        raise JudgeError(
            f"{scorer.name}: returned a {type(values).__name__} for {place}, not a list. "
            "Return one float or None per completion; a tensor or array has .tolist()."
        )
    if len(values) != len(answers):
        raise JudgeError(
            f"{scorer.name}: returned {len(values)} values for the {len(answers)} completions of {place}. "
            "Return one float or None per completion."
        )
    return [_grade(scorer, value, answer, place) for value, answer in zip(values, answers, strict=True)]


def _grade(scorer: Scorer, value: Any, answer: Answered, place: str) -> Grade:
    if value is None:
        return Grade(None, scorer.ungraded)
    if isinstance(value, bool) or not isinstance(value, Real):
        raise JudgeError(
            f"{scorer.name}: returned {shown(value)} ({type(value).__name__}) for id {shown(answer.id)} in {place}. "
            "Return a float, or None where it cannot be graded."
        )
    if not math.isfinite(value):
        return Grade(None, f"the scorer returned {float(value)}")
    return Grade(float(value))


def _completion(answer: Answered) -> Any:
    if isinstance(answer.prompt, str):
        return answer.completion
    return [{"role": "assistant", "content": answer.completion}]


def _check_signature(place: str, name: str, function: Callable[..., Any]) -> None:
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # compiled code does not tell
        return
    if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        raise JudgeError(
            f"{place}: must take the other keys of the rows too. "
            f"Write def {name.partition(':')[2]}(prompts, completions, **columns)."
        )
