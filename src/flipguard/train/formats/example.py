"""What every format turns its rows into, and what it says of a row that it cannot read."""

from __future__ import annotations

import os.path
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from flipguard.errors import shown
from flipguard.records import Row, RowId

Kind = Literal["pairs", "unpaired", "supervised", "prompts"]
Conversation = list[dict[str, str]]
Text = str | Conversation

MARKERS = re.compile(r"(?m)^\s*(?:Human|Assistant|User|System):|<\|[a-z_]+\|>|\[/?INST\]|<</?SYS>>")


class MalformedError(Exception):
    """A row that is not what its format says; the message is the reason, without the place."""


@dataclass(frozen=True, slots=True)
class Example:
    """A row in its one form: a prompt and its completions, all texts or all messages; a pair has chosen, rejected.

    `label` says of an unpaired row whether its completion is desirable, `differing` that the conversations of a pair
    part before their last answers, `tied` that both answers were graded alike.
    """

    prompt: Text
    completions: tuple[Text, ...]
    label: bool | None = None
    id: RowId | None = None
    differing: bool = False
    tied: bool = False


def one_turn(text: str) -> Conversation:
    """A text that has no turns of its own is what one user says."""
    return [{"role": "user", "content": text}]


@dataclass(frozen=True, slots=True)
class Format:
    """How the rows of one kind of data set look and are read.

    Args:
        name: what `data.format` calls it.
        kind: what its rows are; pairs serve every algorithm.
        refuses: why a row is not of this format, by its columns and values; None if it is.
        read: the row as an Example; None where the format's authors leave it out; raises MalformedError.
        turns: a whole text as turns, for formats that write conversations as texts.
        markers: what inside one turn looks like the start of another.
    """

    name: str
    kind: Kind
    refuses: Callable[[Row], str | None]
    read: Callable[[Row], Example | None]
    turns: Callable[[str], Conversation] = one_turn
    markers: re.Pattern[str] = MARKERS


def missing(row: Row, *columns: str) -> str | None:
    """The first of `columns` that `row` does not have, as a reason."""
    return next((f"no '{column}'" for column in columns if column not in row), None)


def text(row: Row, key: str) -> str:
    """`row[key]`, a text, which may be empty."""
    value = row.get(key)
    if not isinstance(value, str):
        raise MalformedError(f"'{key}' must be a text, found {shown(value)}")
    return value


def text_or_messages(row: Row, key: str) -> Text:
    """`row[key]`, a text, which may be empty, or a list of messages."""
    value = row.get(key)
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        raise MalformedError(f"'{key}' must be a text or a list of messages, found {shown(value)}")
    for message in value:
        if not isinstance(message, dict) or not all(isinstance(message.get(part), str) for part in ("role", "content")):
            raise MalformedError(f"'{key}' has a message without role and content: {shown(message)}")
    return value


def id_of(row: Row, *names: str) -> RowId | None:
    """The first of the columns `names` that is an id."""
    said = (row.get(name) for name in (*names, "id"))
    return next((value for value in said if isinstance(value, str | int) and not isinstance(value, bool)), None)


def parted(chosen: Conversation, rejected: Conversation, **said: Any) -> Example:
    """Two whole conversations as a pair: the prompt is the turns they share, at most all but the last."""
    shortest = min(len(chosen), len(rejected)) - 1
    turns = zip(chosen[:shortest], rejected[:shortest], strict=True)
    shared = next((number for number, (left, right) in enumerate(turns) if left != right), shortest)
    if len(chosen) < 2 or len(rejected) < 2:
        raise MalformedError("has no 'prompt'. Add one, or give whole conversations as lists of messages")
    differing = len(chosen) != len(rejected) or shared < shortest
    return Example(chosen[:shared], (chosen[shared:], rejected[shared:]), differing=differing, **said)


def shared_text(left: str, right: str) -> str:
    """The text that both begin with."""
    return os.path.commonprefix([left, right])  # noqa: RUF071 - letter by letter is what is meant
