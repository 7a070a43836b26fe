"""What an engine is: it turns questions into answers. The engines themselves are in `engines/`, one file each.

An engine file offers `def open_engine(settings: Settings) -> Engine` and its name stands in `engines.ENGINES`; from
elsewhere it is named as `package.module:function`.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from flipguard.errors import FlipGuardError, choose
from flipguard.evaluate.engines import ENGINES
from flipguard.functions import find_function, importable_here
from flipguard.records import FinishReason, Message, Row, RowId


@dataclass(frozen=True, slots=True)
class Settings:
    """Which model, and how it is to answer; temperature 0 is greedy, top_k 0 and top_p 1 restrict nothing."""

    model: str
    max_new_tokens: int
    temperature: float
    top_p: float
    top_k: int
    dtype: str
    device: str
    template: Literal["auto", "off"]


@dataclass(frozen=True, slots=True)
class Question:
    """One prompt; `where` is its file and line, for errors."""

    where: str
    id: RowId
    prompt: str | list[Message]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model said, and why it stopped."""

    completion: str
    finish_reason: FinishReason


Answerer = Callable[[Sequence[Question], int], list[Answer]]
"""(questions, seed) -> one answer each. The same questions with the same seed get the same answers."""


class Engine(ABC):
    """A way to get answers from a model."""

    @abstractmethod
    def identity(self) -> Row:
        """What, beside the settings, determines the answers (weights, device ...), without loading the model."""

    @abstractmethod
    def load(self, questions: Sequence[Question]) -> Answerer:
        """Get ready to answer, and make sure that every one of `questions` can be asked.

        Raises:
            ModelError: the model cannot be had, or a question does not fit it.
        """


def find_engine(name: str, settings: Settings) -> Engine:
    """The engine called `name`, or the one that `package.module:function` makes."""
    if name in ENGINES:
        module = importlib.import_module(f"flipguard.evaluate.engines.{name}")
        engine = module.open_engine(settings)
    elif ":" in name:
        with importable_here():
            engine = find_function(name, "--engine").function(settings)
    else:
        raise FlipGuardError(f"--engine: no engine is called '{name}'. {choose(name, ENGINES)}")
    if not isinstance(engine, Engine):
        raise FlipGuardError(
            f"--engine {name}: made a {type(engine).__name__}, not a flipguard.evaluate.engine.Engine."
        )
    return engine
