"""What an importer makes of a file: a Run (one model's graded answers) or Judged (both models', side by side)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from flipguard.evaluate.comparison import Answer
from flipguard.records import RowId, Verdict

Key = tuple[RowId, int]  # id and repeat: what identifies an answer within a run
Metric = Literal["score", "correct", "verdicts"]  # a number; right or wrong; a pairwise judge's words


@dataclass(frozen=True, slots=True)
class Entry:
    """One model's answer and what is known about its prompt."""

    answer: Answer
    prompt: str | None = None
    categories: tuple[str, ...] = ()
    cluster: str | None = None


@dataclass(frozen=True, slots=True)
class Judgment:
    """Both models' answers to one prompt, with the verdicts of a pairwise judge if there was one."""

    old: Answer
    new: Answer
    prompt: str | None = None
    categories: tuple[str, ...] = ()
    cluster: str | None = None
    verdicts: tuple[Verdict, ...] = ()


@dataclass(slots=True)
class Run:
    """One model's answers; `files` were really read, `duplicates` rows gave way to another of their key."""

    name: str
    metric: Metric
    entries: dict[Key, Entry]
    files: tuple[Path, ...]
    duplicates: int = 0


@dataclass(slots=True)
class Judged:
    """Both models' answers from one place; every pair is matched by construction."""

    old: str
    new: str
    metric: Metric
    judgments: dict[Key, Judgment] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    duplicates: int = 0
