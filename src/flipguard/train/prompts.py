"""What online algorithms ask: prompts that are checked as all data are, and the other keys of their rows."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from flipguard.errors import DataError
from flipguard.records import Row
from flipguard.train.data import Named, Read, left_out, sound_sources
from flipguard.train.dataspec import DataSpec
from flipguard.train.formats import FORMATS, Text
from flipguard.train.sampling import told
from flipguard.train.sources import read_rows
from flipguard.train.tokenizing import Reader

NOT_COLUMNS = ("prompt", "prompts", "completions")
"""Keys of a row that a scorer gets otherwise."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A prompt as a format reads it, a text or messages; its whole row, and where that stands."""

    prompt: Text
    row: Row
    place: str


@dataclass(frozen=True, slots=True)
class PromptData:
    """The prompts to ask.

    Args:
        asked: each of them once.
        order: their numbers, as often as they are trained on.
        left_out: how many rows are not asked, by reason.
    """

    asked: list[Asked]
    order: list[int]
    left_out: Counter[str] = field(default_factory=Counter)

    def columns(self) -> list[str]:
        """The other keys of all rows, in order of appearance."""
        keys = dict.fromkeys(key for item in self.asked for key in item.row)
        return [key for key in keys if key not in NOT_COLUMNS]

    def summary(self) -> str:
        """One line: "7,731 prompts; left out: 269 with prompts over 512 tokens"."""
        return told(len(self.order), "prompts", self.left_out)


def read_prompts(sources: Named, spec: DataSpec, tokenizer: Any, *, context: int | None, answer: int) -> PromptData:
    """Read the prompts of a recipe.

    Args:
        sources: a path or hub id, or what the recipe says of one or several.
        spec: the rest of the recipe's `data`.
        tokenizer: of the model.
        context: the longest sequence the model can read, in tokens.
        answer: how many tokens of it an answer may take.

    Raises:
        DataError: a row is malformed, or too long to be answered; or nothing is left to ask.
    """
    read = sound_sources(sources, spec, "prompts", tokenizer)
    asked: list[Asked] = []
    order: list[int] = []
    for item in read:
        _check_room(item, context, answer)
        wanted = item.table.columns["number"][item.selection.rows]
        found = _rows(item, set(wanted.tolist()), spec, tokenizer)
        places = {number: len(asked) + place for place, number in enumerate(found)}
        asked += found.values()
        order += [places[number] for number in wanted.tolist()]
    return PromptData(asked, order, left_out(read))


def _rows(item: Read, wanted: set[int], spec: DataSpec, tokenizer: Any) -> dict[int, Asked]:
    """The rows of a source with these numbers."""
    form = next(form for form in FORMATS if form.name == item.table.form)
    reader = Reader(form, "prompts", tokenizer, item.table.chat, spec.chat, item.source.where, str(item.source))
    found: dict[int, Asked] = {}
    for numbered in read_rows(item.source, streaming=spec.streaming):
        example = reader.example(numbered) if numbered.number in wanted else None
        if example is not None:
            found[numbered.number] = Asked(_plain(example.prompt), numbered.row, reader.place(numbered))
    return found


def _plain(prompt: Text) -> Text:
    """A conversation without what its messages hold beside role and content."""
    if isinstance(prompt, str):
        return prompt
    return [{"role": turn["role"], "content": turn["content"]} for turn in prompt]


def _check_room(item: Read, context: int | None, answer: int) -> None:
    rows = item.selection.rows
    lengths = item.table.columns["prompt"][rows]
    if context is None or not len(rows) or int(lengths.max()) + answer <= context:
        return
    row = int(rows[int(np.argmax(lengths + answer > context))])
    raise DataError(
        f"{item.place(row)}: the prompt ({int(item.table.columns['prompt'][row])} tokens) and rollout.max_new_tokens "
        f"({answer}) exceed the model's context of {context}. Lower one of data.max_prompt_tokens (longer prompts are "
        "then left out) and rollout.max_new_tokens."
    )
