"""Read prompt rows and generation rows, checked: what is wrong names its file and line."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import orjson

from flipguard.errors import DataError, shown
from flipguard.files import read_jsonl
from flipguard.records import Row, RowId

FINISH_REASONS = ("stop", "length", "error")


@dataclass(frozen=True, slots=True)
class Located:
    """A row, and where it stands: `file:line`."""

    where: str
    row: Row


def read_prompts(path: Path) -> list[Located]:
    """The prompt rows of `path`; ids are unique.

    Raises:
        DataError: a row is not a prompt row, an id comes twice, or there are no rows.
    """
    located = []
    seen: dict[RowId, str] = {}
    for number, row in read_jsonl(path):
        where = f"{path}:{number}"
        _check_prompt(where, row)
        if row["id"] in seen:
            raise DataError(
                f"{where}: id {shown(row['id'])} was already used at {seen[row['id']]}. Give each row its own."
            )
        seen[row["id"]] = where
        located.append(Located(where, row))
    return _not_empty(path, located)


def read_generations(path: Path) -> dict[tuple[RowId, int], Located]:
    """The generation rows of `path` by (id, repeat), in the order of the file.

    Raises:
        DataError: a row is not a generation row, an (id, repeat) comes twice, or there are no rows.
    """
    located: dict[tuple[RowId, int], Located] = {}
    for number, row in read_jsonl(path):
        where = f"{path}:{number}"
        _check_prompt(where, row)
        _check_answer(where, row)
        key = (row["id"], row.get("repeat", 0))
        if key in located:
            raise DataError(
                f"{where}: id {shown(key[0])}, repeat {key[1]} already stands at {located[key].where}. "
                "Keep one, or number them with `repeat`."
            )
        located[key] = Located(where, row)
    _not_empty(path, list(located.values()))
    return located


def rows_sha256(located: Iterable[Located]) -> str:
    """One hash of all rows: of what they say, not of the spaces between."""
    digest = hashlib.sha256()
    for item in located:
        digest.update(orjson.dumps(item.row) + b"\n")
    return digest.hexdigest()


def _not_empty(path: Path, located: list[Located]) -> list[Located]:
    if not located:
        raise DataError(f"{path}: no rows. Each line is one JSON object with at least id and prompt.")
    return located


def _check_prompt(where: str, row: Row) -> None:
    if "id" not in row:
        raise DataError(f"{where}: no id. Each row needs one: text or a whole number, different from all others.")
    if isinstance(row["id"], bool) or not isinstance(row["id"], str | int):
        raise DataError(f"{where}: id {shown(row['id'])} is neither text nor a whole number.")
    if "prompt" not in row:
        raise DataError(f"{where}: id {shown(row['id'])} has no prompt. Found: {', '.join(map(shown, row))}.")
    prompt = row["prompt"]
    if isinstance(prompt, str):
        if not prompt.strip():
            raise DataError(f"{where}: id {shown(row['id'])} has an empty prompt.")
        return
    if not isinstance(prompt, list) or not prompt:
        raise DataError(f"{where}: prompt {shown(prompt)} is neither text nor a list of messages.")
    for message in prompt:
        _check_message(where, message)


def _check_message(where: str, message: object) -> None:
    if not isinstance(message, dict):
        raise DataError(f"{where}: message {shown(message)} is not an object with role and content.")
    for key in ("role", "content"):
        if not isinstance(message.get(key), str):
            raise DataError(f"{where}: message {shown(message)} has no text under '{key}'.")


def _check_answer(where: str, row: Row) -> None:
    reason = row.get("finish_reason", "stop")
    if reason not in FINISH_REASONS:
        raise DataError(f"{where}: finish_reason {shown(reason)}. Choose one of: {', '.join(FINISH_REASONS)}.")
    if not isinstance(row.get("completion"), str) and reason != "error":
        raise DataError(
            f"{where}: id {shown(row['id'])} has no completion text, found {shown(row.get('completion'))}. "
            "These must be rows that `flipguard generate` wrote, or rows like them."
        )
    repeat = row.get("repeat", 0)
    if isinstance(repeat, bool) or not isinstance(repeat, int) or repeat < 0:
        raise DataError(f"{where}: repeat {shown(repeat)} is not a whole number from 0 up.")
