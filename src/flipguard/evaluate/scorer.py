"""Which scorer a name means, and how it grades generation rows."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from flipguard.errors import JudgeError, choose
from flipguard.evaluate.judges import JUDGES
from flipguard.records import Row
from flipguard.scorers import Answered, Grade, Scorer, grade, user_scorer

GENERATED = ("completion", "model", "finish_reason", "repeat", "error")
"""The keys of a generation row that are not of its prompt row."""


def find_scorer(name: str, model: str | None = None) -> Scorer:
    """The judge called `name`, or the function `package.module:function` stands for.

    Args:
        name: of a judge or function.
        model: what the judge asks, if it asks one.

    Raises:
        JudgeError: there is none, or it cannot take the columns.
    """
    if name in JUDGES:
        module = importlib.import_module(f"flipguard.evaluate.judges.{name}")
        scorer: Scorer = module.open_judge(model)
        return scorer
    if ":" not in name:
        raise JudgeError(f"--judge: '{name}' is unknown. {choose(name, JUDGES)} Or write package.module:function.")
    if model is not None:
        raise JudgeError(f"--model {model}: a function asks no model. Leave --model out, or --judge reward_model.")
    return user_scorer(name, "--judge")


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
    answers = [Answered(row["id"], row["prompt"], row["completion"]) for row in rows]
    return grade(scorer, answers, {key: [row.get(key) for row in rows] for key in keys}, place=place)


def column_keys(rows: Sequence[Row]) -> list[str]:
    """The keys that reach the scorer as columns: all of the prompt rows but `prompt`, in order of appearance."""
    keys = dict.fromkeys(key for row in rows for key in row)
    return [key for key in keys if key not in ("prompt", "prompts", "completions", *GENERATED)]
