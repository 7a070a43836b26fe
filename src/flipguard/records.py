"""The rows that travel between stages, as they stand in JSONL files. Unknown keys are kept.

    prompts → generations → judgments → comparison.json

A row is a plain `dict`; these types say which keys it has and what they mean.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

Row = dict[str, Any]
RowId = str | int
FinishReason = Literal["stop", "length", "error"]
Winner = Literal["old", "new", "tie", "invalid"]
Moved = Literal["negative_flip", "positive_flip", "tie"]

ROUNDING = 1e-12  # 0.8 - 0.7 is not 0.1 in binary; a change this close to the margin, relative to the scores, equals it


class Message(TypedDict):
    """One turn of a conversation."""

    role: str
    content: str


class PromptRow(TypedDict):
    """What a model is asked."""

    id: RowId
    prompt: str | list[Message]
    category: NotRequired[str | list[str]]
    cluster: NotRequired[str]
    reference: NotRequired[str]


class GenerationRow(PromptRow):
    """What a model answered: the prompt row and these."""

    completion: str
    model: str
    finish_reason: FinishReason
    repeat: int


class ScoreRow(TypedDict):
    """One graded answer; either `score` or `correct` is there, null means it could not be graded."""

    id: RowId
    score: NotRequired[float | None]
    correct: NotRequired[bool | None]
    category: NotRequired[str | list[str]]
    cluster: NotRequired[str]
    repeat: NotRequired[int]
    prompt: NotRequired[str | list[Message]]
    completion: NotRequired[str]
    error: NotRequired[str]


class Verdict(TypedDict):
    """What a pairwise judge said once, with the answers shown in one order."""

    order: Literal["old_first", "new_first"]
    winner: Winner
    reason: NotRequired[str]
    raw: NotRequired[str]


class JudgmentRow(TypedDict):
    """Both answers to one prompt, judged: scores within `old` and `new`, or `verdicts` beside them."""

    id: RowId
    judge: str
    category: NotRequired[str | list[str]]
    cluster: NotRequired[str]
    prompt: NotRequired[str | list[Message]]
    repeat: NotRequired[int]
    old: dict[str, Any]
    new: dict[str, Any]
    verdicts: NotRequired[list[Verdict]]


def moved(old: float, new: float, margin: float) -> Moved:
    """What two scores of one prompt make: worse by more than `margin` is a negative flip, better a positive one.

    One definition for training and measuring. For binary correctness (1.0 right, 0.0 wrong) the margin is 0.

    >>> moved(1.0, 0.4, 0.5), moved(0.8, 0.7, 0.1)
    ('negative_flip', 'tie')
    """
    change = new - old
    beyond = abs(change) - margin
    if beyond <= 0.0 or beyond <= ROUNDING * max(abs(old), abs(new), margin):
        return "tie"
    return "negative_flip" if change < 0.0 else "positive_flip"
