"""ShareGPT preferences, as LLaMA-Factory has them: `conversations`, then `chosen` and `rejected`, of {from, value}."""

from __future__ import annotations

from typing import Any

from flipguard.errors import shown
from flipguard.records import Row
from flipguard.train.formats.example import Conversation, Example, Format, MalformedError, id_of, missing

ROLES = {"human": "user", "gpt": "assistant", "user": "user", "assistant": "assistant", "system": "system"}


def _read(row: Row) -> Example:
    prompt = _messages(row, "conversations")
    if isinstance(row.get("system"), str) and row["system"]:
        prompt = [{"role": "system", "content": row["system"]}, *prompt]
    return Example(prompt, (_messages(row, "chosen"), _messages(row, "rejected")), id=id_of(row))


def _messages(row: Row, key: str) -> Conversation:
    value = row[key]
    turns = value if isinstance(value, list) else [value]
    if not turns:
        raise MalformedError(f"'{key}' is an empty list")
    return [_message(turn, key) for turn in turns]


def _message(turn: Any, key: str) -> dict[str, str]:
    role = ROLES.get(str(turn.get("from"))) if isinstance(turn, dict) else None
    if role is None or not isinstance(turn.get("value"), str):
        raise MalformedError(f"'{key}' has a turn without from ({', '.join(ROLES)}) and value: {shown(turn)}")
    return {"role": role, "content": turn["value"]}


SHAREGPT = Format("sharegpt", "pairs", lambda row: missing(row, "conversations", "chosen", "rejected"), _read)
