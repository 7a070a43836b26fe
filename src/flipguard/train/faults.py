"""What can be wrong with a row of preference data, seen without a model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from enum import IntFlag, auto
from itertools import pairwise

import orjson
from rapidfuzz.distance import Levenshtein

from flipguard.files import to_json
from flipguard.train.formats import Conversation, Example, Format, Text
from flipguard.train.formats.example import one_turn


class Fault(IntFlag):
    """One bit each, so that a row may have several; of a pair, most are said of either side."""

    MALFORMED = auto()
    EMPTY_PROMPT = auto()
    EMPTY_CHOSEN = auto()
    EMPTY_REJECTED = auto()
    DIFFERING_PROMPTS = auto()
    EQUAL_REPLIES = auto()
    TIED_SCORES = auto()
    MARKER_CHOSEN = auto()
    MARKER_REJECTED = auto()
    REPEATED_CHOSEN = auto()
    REPEATED_REJECTED = auto()
    PROMPT_TOO_LONG = auto()
    COMPLETION_TOO_LONG = auto()
    DUPLICATE = auto()
    CONTRADICTION = auto()
    DISPLACEMENT_RISK = auto()


# fault -> its field in `data.faults`, what is told of rows left out, what the report calls the rows
FAULTS: dict[Fault, tuple[str, str, str]] = {
    Fault.MALFORMED: ("malformed", "malformed", "malformed rows"),
    Fault.EMPTY_PROMPT: ("empty_prompt", "with empty prompts", "empty prompts"),
    Fault.EMPTY_CHOSEN: ("empty_reply", "with empty replies", "empty chosen replies"),
    Fault.EMPTY_REJECTED: ("empty_reply", "with empty replies", "empty rejected replies"),
    Fault.DIFFERING_PROMPTS: ("differing_prompts", "with differing prompts", "pairs whose prompts differ"),
    Fault.EQUAL_REPLIES: ("equal_replies", "with identical answers", "pairs with equal replies"),
    Fault.PROMPT_TOO_LONG: ("over_long", "with prompts over {prompt} tokens", "prompts over {prompt} tokens"),
    Fault.COMPLETION_TOO_LONG: (
        "over_long",
        "with completions over {completion} tokens",
        "completions over {completion} tokens",
    ),
    Fault.DUPLICATE: ("duplicate", "seen before", "duplicates of earlier rows"),
    Fault.CONTRADICTION: ("contradiction", "contradicting another", "pairs that also stand with their sides swapped"),
    Fault.TIED_SCORES: ("tied_scores", "with tied scores", "pairs whose answers have the same score"),
    Fault.MARKER_CHOSEN: ("role_marker", "with role markers", "role markers inside a turn of chosen"),
    Fault.MARKER_REJECTED: ("role_marker", "with role markers", "role markers inside a turn of rejected"),
    Fault.REPEATED_CHOSEN: ("repeated_speaker", "with a speaker twice", "same speaker twice in a row in chosen"),
    Fault.REPEATED_REJECTED: ("repeated_speaker", "with a speaker twice", "same speaker twice in a row in rejected"),
    Fault.DISPLACEMENT_RISK: (
        "displacement_risk",
        "at risk of likelihood displacement",
        "pairs at risk of likelihood displacement",
    ),
}

EMPTY = (Fault.EMPTY_CHOSEN, Fault.EMPTY_REJECTED)
MARKER = (Fault.MARKER_CHOSEN, Fault.MARKER_REJECTED)
REPEATED = (Fault.REPEATED_CHOSEN, Fault.REPEATED_REJECTED)


def faults_of(example: Example, form: Format) -> Fault:
    """What is wrong with an example by itself, before it is tokenized."""
    found = Fault(0)
    if not _said(example.prompt):
        found |= Fault.EMPTY_PROMPT
    if example.differing:
        found |= Fault.DIFFERING_PROMPTS
    if example.tied:
        found |= Fault.TIED_SCORES
    if len(example.completions) == 2 and example.completions[0] == example.completions[1]:
        found |= Fault.EQUAL_REPLIES
    for side, completion in enumerate(example.completions):
        if not _last(completion, form):
            found |= EMPTY[side]
        turns = _turns(example.prompt, completion, form)
        if any(form.markers.search(turn["content"]) for turn in turns):
            found |= MARKER[side]
        roles = [turn["role"] for turn in turns if turn["role"] in ("user", "assistant")]
        if any(left == right for left, right in pairwise(roles)):
            found |= REPEATED[side]
    return found


def digests(example: Example) -> tuple[int, int]:
    """64-bit hashes of the example, and of it with its sides swapped; equal examples have equal ones."""
    parts = (example.prompt, *example.completions)
    prompt, *sides = (to_json(part, orjson.OPT_SORT_KEYS) for part in parts)
    said = str(example.label).encode()
    return _hash([prompt, *sides, said]), _hash([prompt, *reversed(sides), said])


def edit_distance(left: Sequence[int], right: Sequence[int]) -> float:
    """Levenshtein distance of two token sequences over the length of the longer, from 0 (equal) to 1.

    Pairs that differ in few tokens are those on which DPO lowers the likelihood of the chosen answer too (Pal et al.,
    arXiv 2402.13228). It is a proxy that needs no model: Razin et al. (arXiv 2410.08847) predict the same from hidden
    states (CHES), and better.
    """
    return Levenshtein.normalized_distance(left, right)


def _said(text: Text) -> bool:
    return bool(text.strip()) if isinstance(text, str) else any(turn["content"].strip() for turn in text)


def _last(completion: Text, form: Format) -> bool:
    """Whether the last answer says anything."""
    if isinstance(completion, str):
        # A text with turns of its own, as where the prompts differ, is judged by its last one.
        turns = form.turns(completion) if form.turns is not one_turn and "\n\n" in completion else []
        return bool((turns[-1]["content"] if turns else completion).strip())
    return bool(completion[-1]["content"].strip()) if completion else False


def _turns(prompt: Text, completion: Text, form: Format) -> Conversation:
    if isinstance(prompt, str) or isinstance(completion, str):
        if form.turns is one_turn:
            return [{"role": "", "content": str(completion)}]  # a prompt may write roles in a way of its own
        return form.turns(f"{prompt}{completion}")
    return [*prompt, *completion]


def _hash(parts: list[bytes]) -> int:
    return int.from_bytes(hashlib.blake2b(b"\0".join(parts), digest_size=8).digest(), "little")
