"""What an importer makes of a file: a Run (one model's graded answers) or Judged (both models', side by side)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from flipguard.evaluate.comparison import Answer
from flipguard.records import RowId, Verdict

Key = tuple[RowId, int]  # id and repeat: what identifies an answer within a run
Metric = Literal["score", "correct", "verdicts"]  # a number; right or wrong; a pairwise judge's words


@dataclass(frozen=True, slots=True)
class Entry:
    """One model's answer and what is known about its prompt; `target` is what a right answer is, or a hash of it."""

    answer: Answer
    prompt: str | None = None
    categories: tuple[str, ...] = ()
    cluster: str | None = None
    target: str | None = None


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
    """One model's answers.

    Attributes:
        name: of the model.
        metric: what a grade is.
        entries: the answers by key.
        files: what was really read.
        duplicates: rows that gave way to another of their key.
        graded: which grade of the file was taken, for each task; two runs must agree where both have the task.
        task: what was asked, where ids mean nothing outside of it.
        notes: what the reader of the verdict must know, one sentence each.
    """

    name: str
    metric: Metric
    entries: Mapping[Key, Entry]
    files: tuple[Path, ...]
    duplicates: int = 0
    graded: dict[str, str] = field(default_factory=dict)
    task: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class Judged:
    """Both models' answers from one place, matched already; `only_old` and `only_new` have no partner there."""

    old: str
    new: str
    metric: Metric
    judgments: dict[Key, Judgment] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    duplicates: int = 0
    only_old: tuple[Key, ...] = ()
    only_new: tuple[Key, ...] = ()
    changed_prompts: int = 0
    graded: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
