"""Right means: the completion is the row's `reference`, to the letter.

Before comparing, both are put into Unicode normal form C, and every run of white space, also at the ends, counts as one
space or none. Case and punctuation matter. A row without `reference` cannot be graded.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any

from flipguard.errors import JudgeError, shown
from flipguard.functions import find_function
from flipguard.scorers import Scorer


def open_judge(model: str | None) -> Scorer:
    """The scorer below; it needs no model."""
    if model is not None:
        raise JudgeError(f"--model {model}: exact_match asks no model. Leave --model out, or --judge reward_model.")
    found = find_function(f"{__name__}:exact_match", "--judge")
    return Scorer("exact_match", found.function, found.file, found.sha256, "correct", "no reference")


def exact_match(
    prompts: Sequence[Any],
    completions: Sequence[Any],
    reference: Sequence[str | None] | None = None,
    **columns: Any,  # noqa: ARG001 (every scorer gets all columns)
) -> list[float | None]:
    """1.0 where the completion equals the reference, 0.0 where not, None where there is no reference.

    >>> exact_match(["2 + 2 =", "Capital?"], [" 4 ", "paris"], reference=["4", "Paris"])
    [1.0, 0.0]
    >>> exact_match(["2 + 2 ="], ["4"])
    [None]
    """
    references = [None] * len(prompts) if reference is None else reference
    return [_grade(completion, expected) for completion, expected in zip(completions, references, strict=True)]


def _grade(completion: Any, expected: object) -> float | None:
    if expected is None:
        return None
    if not isinstance(expected, str):
        raise JudgeError(f"exact_match: reference must be text, found {shown(expected)}. Write it in quotes.")
    text = completion if isinstance(completion, str) else completion[-1]["content"]
    return float(_normal(text) == _normal(expected))


def _normal(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())
