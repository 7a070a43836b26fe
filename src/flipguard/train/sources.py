"""Where rows come from: local files and hub data sets, each row with the place it stands at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flipguard.errors import DataError, shown
from flipguard.files import read_jsonl
from flipguard.records import Row
from flipguard.weights import looks_local

JSONL = (".jsonl", ".jsonl.gz", ".ndjson")
Conversation = list[dict[str, str]]


def read_rows(source: str) -> Iterator[tuple[str, Row]]:
    """Yield `(place, row)` from a JSONL file, or from a hub data set named `owner/name` or `owner/name:split`."""
    path = Path(source)
    if path.exists() or looks_local(source) or path.suffix in (".jsonl", ".json", ".gz"):
        if not path.name.endswith(JSONL):
            raise DataError(f"{source}: this format is not read here. Choose one of: {', '.join(JSONL)}, or a hub id.")
        for line, row in read_jsonl(path):
            yield f"{source}:{line}", row
        return
    for number, row in enumerate(_from_hub(source)):
        yield f"{source}[{number}]", row


def _from_hub(source: str) -> Any:
    import datasets

    name, _, split = source.partition(":")
    try:
        return datasets.load_dataset(name, split=split or "train")
    except Exception as error:  # noqa: BLE001 - the hub client raises dozens of types; all mean "not to be had"
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{source}: no such file, and no such data set on the hub ({reason}).") from None


def text_or_messages(row: Row, key: str, place: str) -> str | Conversation:
    """`row[key]` if it is a non-empty text or a list of messages; otherwise a DataError that names the place."""
    if key not in row:
        raise DataError(f"{place}: has no '{key}'; its keys are {shown(', '.join(map(str, row)))}.")
    value = row[key]
    if isinstance(value, str):
        if not value.strip():
            raise DataError(f"{place}: '{key}' is empty. Remove the row or fill it.")
        return value
    if not isinstance(value, list) or not value:
        raise DataError(f"{place}: '{key}' must be a text or a list of messages, found {shown(value)}.")
    for message in value:
        if not isinstance(message, dict) or not all(isinstance(message.get(part), str) for part in ("role", "content")):
            raise DataError(f"{place}: '{key}' has a message without role and content: {shown(message)}.")
    if not value[-1]["content"].strip():
        raise DataError(f"{place}: '{key}' ends in an empty message. Remove the row or fill it.")
    return value


def split_prompt(row: Row, completion_keys: tuple[str, ...], place: str) -> dict[str, str | Conversation]:
    """Prompt and completions of a row; a prompt that is not said is the turns that all completions begin with."""
    parts = {key: text_or_messages(row, key, place) for key in completion_keys}
    if "prompt" in row:
        parts["prompt"] = text_or_messages(row, "prompt", place)
    else:
        parts = _implicit_prompt(parts, place)
    if len({isinstance(part, str) for part in parts.values()}) > 1:
        raise DataError(f"{place}: prompt and completions must all be texts, or all lists of messages.")
    return parts


def _implicit_prompt(parts: dict[str, str | Conversation], place: str) -> dict[str, str | Conversation]:
    conversations = list(parts.values())
    first = conversations[0]
    if any(isinstance(conversation, str) for conversation in conversations) or len(first) < 2:
        raise DataError(f"{place}: has no 'prompt'. Add one, or give whole conversations as lists of messages.")
    shared = first[:-1]
    if any(conversation[:-1] != shared for conversation in conversations):
        raise DataError(f"{place}: the conversations differ before their last message, so they share no prompt.")
    return {"prompt": shared, **{key: parts[key][-1:] for key in parts}}
