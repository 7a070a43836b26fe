"""What lies beside MT-Bench's judgments: question.jsonl with categories and prompts, and what the models answered.

FastChat keeps `question.jsonl`, `model_judgment/` and `model_answer/MODEL.jsonl` in one folder. Where the questions lie
elsewhere, `--questions` names them; answers are then looked for beside them too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flipguard.errors import DataError
from flipguard.evaluate.fields import categories_of
from flipguard.evaluate.intake import Intake
from flipguard.files import read_jsonl
from flipguard.records import Row

ENDINGS = ("", ".gz")


class Questions:
    """The questions that were asked, by their number, and the answers to them; none where no file of them lies near."""

    def __init__(self, judgments: Path, intake: Intake) -> None:
        self._named = intake.questions
        near = judgments.parents[:2]
        beside = (
            [self._named] if self._named else [folder / f"question.jsonl{end}" for folder in near for end in ENDINGS]
        )
        found = beside if self._named else [path for path in beside if path.is_file()]
        self._folders = [*([self._named.parent] if self._named else []), *near]
        self._files = found[:1]
        self._rows = {key: row for path in self._files for key, row in _by_question(path)}
        self._answers: dict[str, dict[Any, list[Any]]] = {}
        self._met = False

    @property
    def files(self) -> tuple[Path, ...]:
        """What was really read."""
        return tuple(self._files)

    def categories(self, row: Row) -> tuple[str, ...]:
        """The categories of the question that `row` judges, or what the row itself says."""
        question = self._rows.get(row["question_id"])
        self._met = self._met or question is not None
        return categories_of(question or {}) or categories_of(row)

    def prompt(self, row: Row) -> str | None:
        """The turn that `row` judges."""
        turns = self._rows.get(row["question_id"], {}).get("turns")
        return _turn(turns if isinstance(turns, list) else [], row)

    def answer(self, row: Row, model: str) -> str | None:
        """What `model` answered in the turn that `row` judges; None where no file has it."""
        if model not in self._answers:
            self._answers[model] = self._read_answers(model)
        return _turn(self._answers[model].get(row["question_id"], []), row)

    def check(self) -> None:
        """Raise a DataError if the questions that were named are not those that were judged."""
        if self._named and not self._met:
            raise DataError(f"--questions {self._named}: has none of the questions that were judged, by 'question_id'.")

    def _read_answers(self, model: str) -> dict[Any, list[Any]]:
        """The turns of each answer, as the judge saw them: the first choice, of the last row of a question."""
        if Path(model).name != model:  # a name out of the data leads nowhere else
            return {}
        places = [folder / "model_answer" / f"{model}.jsonl{end}" for folder in self._folders for end in ENDINGS]
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            return {}
        self._files.append(path)
        return {key: _turns(row) for key, row in _by_question(path)}


def _by_question(path: Path) -> list[tuple[str | int, Row]]:
    rows = [row for _, row in read_jsonl(path)]
    return [(row["question_id"], row) for row in rows if isinstance(row.get("question_id"), str | int)]


def _turns(row: Row) -> list[Any]:
    choices = row.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    turns = first.get("turns") if isinstance(first, dict) else None
    return turns if isinstance(turns, list) else []


def _turn(turns: list[Any], row: Row) -> str | None:
    at = row["turn"] - 1
    return turns[at] if at < len(turns) and isinstance(turns[at], str) else None
