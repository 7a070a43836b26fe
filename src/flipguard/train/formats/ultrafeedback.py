"""HuggingFaceH4/ultrafeedback_binarized: a prompt beside two whole conversations and their scores."""

from __future__ import annotations

from flipguard.errors import shown
from flipguard.records import Row
from flipguard.train.formats.example import (
    Example,
    Format,
    MalformedError,
    id_of,
    missing,
    parted,
    text,
    text_or_messages,
)


def _refuses(row: Row) -> str | None:
    absent = missing(row, "prompt", "chosen", "rejected")
    if absent:
        return absent
    if not isinstance(row["prompt"], str):
        return "'prompt' is no text"
    return next((f"'{side}' is no conversation" for side in ("chosen", "rejected") if isinstance(row[side], str)), None)


def _read(row: Row) -> Example:
    asked, chosen, rejected = text(row, "prompt"), text_or_messages(row, "chosen"), text_or_messages(row, "rejected")
    if isinstance(chosen, str) or isinstance(rejected, str):
        raise MalformedError("chosen and rejected must be lists of messages")
    said = [message["content"] for message in chosen[:-1] if message["role"] == "user"]
    if said and asked.strip() != said[0].strip() and asked.strip() != said[-1].strip():
        raise MalformedError(f"'prompt' is not what the user says in 'chosen': {shown(asked)}")
    tied = row.get("score_chosen") is not None and row.get("score_chosen") == row.get("score_rejected")
    return parted(chosen, rejected, id=id_of(row, "prompt_id"), tied=tied)


ULTRAFEEDBACK = Format("ultrafeedback", "pairs", _refuses, _read)
