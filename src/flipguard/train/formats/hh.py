r"""Anthropic/hh-rlhf: two whole dialogues as texts, "\n\nHuman: ... \n\nAssistant: ...".

The prompt is what both begin with, cut back to the last "\n\nAssistant:". Where one goes on with further turns after
that, the prompts of the two last answers differ.
"""

from __future__ import annotations

import re

from flipguard.records import Row
from flipguard.train.formats.example import (
    Conversation,
    Example,
    Format,
    MalformedError,
    id_of,
    missing,
    shared_text,
    text,
)

ASKED, ANSWERED = "\n\nHuman:", "\n\nAssistant:"
TURN = re.compile(r"\n\n(Human|Assistant):")
ROLES = {"Human": "user", "Assistant": "assistant"}


def _refuses(row: Row) -> str | None:
    absent = missing(row, "chosen", "rejected")
    if absent or "prompt" in row:
        return absent or "has a 'prompt' of its own"
    for side in ("chosen", "rejected"):
        value = row[side]
        if not isinstance(value, str) or not value.startswith(ASKED) or ANSWERED not in value:
            return rf"'{side}' is no text \n\nHuman: ... \n\nAssistant: ..."
    return None


def _read(row: Row) -> Example:
    chosen, rejected = text(row, "chosen"), text(row, "rejected")
    cut = shared_text(chosen, rejected).rfind(ANSWERED)
    if cut < 0:
        raise MalformedError(r"the dialogues share no text up to an '\n\nAssistant:'")
    cut += len(ANSWERED)
    differing = ANSWERED in chosen[cut:] or ANSWERED in rejected[cut:]
    return Example(chosen[:cut], (chosen[cut:], rejected[cut:]), id=id_of(row), differing=differing)


def turns(dialogue: str) -> Conversation:
    """The turns of a dialogue, each stripped; one that only opens an answer is empty."""
    _, *parts = TURN.split(dialogue)
    return [{"role": ROLES[who], "content": said.strip()} for who, said in zip(parts[::2], parts[1::2], strict=True)]


HH = Format("hh", "pairs", _refuses, _read, turns, re.compile(r"(?:Human|Assistant):|<\|[a-z_]+\|>|\[/?INST\]"))
