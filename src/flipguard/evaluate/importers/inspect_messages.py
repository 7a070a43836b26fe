"""The texts inside a sample of an Inspect log: content in parts, attachments apart, tools that were called."""

from __future__ import annotations

from typing import Any

from flipguard.files import to_json
from flipguard.records import Row

ATTACHMENT = "attachment://"
CUT_OFF = ("max_tokens", "model_length")


def resolved(value: Any, attachments: Row) -> Any:
    """`value` with each text that was attached put back in its place."""
    if isinstance(value, str) and value.startswith(ATTACHMENT):
        return attachments.get(value.removeprefix(ATTACHMENT), value)
    if isinstance(value, list):
        return [resolved(item, attachments) for item in value]
    if isinstance(value, dict):
        return {key: resolved(item, attachments) for key, item in value.items()}
    return value


def answer_text(row: Row, attachments: Row) -> str | None:
    """All that the model said and which tools it called: two agents may end alike and have done different things."""
    messages = [message for message in _objects(row.get("messages")) if message.get("role") == "assistant"]
    calls = any(message.get("tool_calls") for message in messages)
    if len(messages) < 2 and not calls:
        choices = _objects(_object(row.get("output")).get("choices"))
        messages = [_object(choices[0].get("message"))] if choices else messages
    parts = [part for message in messages for part in _said(message, attachments)]
    return "\n\n".join(parts) or None


def stopped_at(row: Row) -> str | None:
    """Why the last answer ended: "length" where it was cut off, None where the log does not say."""
    choices = _objects(_object(row.get("output")).get("choices"))
    reason = choices[0].get("stop_reason") if choices else None
    return "length" if reason in CUT_OFF else reason if isinstance(reason, str) else None


def _said(message: Row, attachments: Row) -> list[str]:
    content = resolved(message.get("content"), attachments)
    texts = [content] if isinstance(content, str) else [part.get("text") for part in _objects(content)]
    calls = [f"{call.get('function')}({_json(call.get('arguments'))})" for call in _objects(message.get("tool_calls"))]
    return [text for text in [*texts, *calls] if isinstance(text, str) and text]


def _json(value: Any) -> str:
    return to_json(value).decode()


def _objects(value: Any) -> list[Row]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _object(value: Any) -> Row:
    return value if isinstance(value, dict) else {}
