"""TRL's formats: preference pairs with a said or unsaid prompt, unpaired preferences, supervised rows, prompts."""

from __future__ import annotations

from flipguard.errors import shown
from flipguard.records import Row
from flipguard.train.formats.example import (
    Example,
    Format,
    MalformedError,
    Text,
    id_of,
    missing,
    parted,
    shared_text,
    text_or_messages,
)

LABELS = {True: True, False: False, "true": True, "false": False, "True": True, "False": False}


def _pair(row: Row) -> Example:
    chosen, rejected = text_or_messages(row, "chosen"), text_or_messages(row, "rejected")
    if "prompt" in row:
        return Example(*_alike(text_or_messages(row, "prompt"), chosen, rejected), id=id_of(row))
    if isinstance(chosen, list) and isinstance(rejected, list):
        return parted(chosen, rejected, id=id_of(row))
    if isinstance(chosen, list) or isinstance(rejected, list):
        raise MalformedError("chosen and rejected must both be texts, or both lists of messages")
    shared = shared_text(chosen, rejected)
    cut = max(shared.rfind(" "), shared.rfind("\n") + 1) if shared not in (chosen, rejected) else 0
    if not shared[: max(cut, 0)].strip():
        raise MalformedError("has no 'prompt', and its texts begin with none. Add one")
    return Example(shared[:cut], (chosen[cut:], rejected[cut:]), id=id_of(row))


def _alike(prompt: Text, *completions: Text) -> tuple[Text, tuple[Text, ...]]:
    if len({isinstance(part, str) for part in (prompt, *completions)}) > 1:
        raise MalformedError("prompt and completions must all be texts, or all lists of messages")
    return prompt, completions


def _unpaired(row: Row) -> Example:
    label = row.get("label")
    if not isinstance(label, str | bool) or label not in LABELS:
        raise MalformedError(f"'label' must be true (desirable) or false, found {shown(label)}")
    prompt, completions = _alike(text_or_messages(row, "prompt"), text_or_messages(row, "completion"))
    return Example(prompt, completions, LABELS[label], id_of(row))


def _supervised(row: Row) -> Example:
    if "completion" in row:
        if "prompt" not in row:
            raise MalformedError("has no 'prompt'. Add one")
        return Example(*_alike(text_or_messages(row, "prompt"), text_or_messages(row, "completion")), id=id_of(row))
    messages = text_or_messages(row, "messages")
    if isinstance(messages, str) or len(messages) < 2:
        raise MalformedError("'messages' must be a list of at least two messages")
    return Example(messages[:-1], (messages[-1:],), id=id_of(row))


def _prompt(row: Row) -> Example:
    return Example(text_or_messages(row, "prompt"), (), id=id_of(row))


def _neither(row: Row) -> str | None:
    return None if "completion" in row or "messages" in row else "no 'completion' or 'messages'"


PAIRS = Format("pairs", "pairs", lambda row: missing(row, "chosen", "rejected"), _pair)
UNPAIRED = Format("unpaired", "unpaired", lambda row: missing(row, "prompt", "completion", "label"), _unpaired)
SUPERVISED = Format("supervised", "supervised", _neither, _supervised)
PROMPTS = Format("prompts", "prompts", lambda row: missing(row, "prompt"), _prompt)
