"""Rows of text -> rows of token ids, checked, measured against the model's context, with a count of what was left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeVar

from flipguard.errors import DataError, ModelError
from flipguard.records import Row
from flipguard.train.recipe import DataSpec
from flipguard.train.sources import Conversation, read_rows, split_prompt

CHUNK = 2048  # rows tokenized at a time: the tokenizer works on a chunk in parallel

T = TypeVar("T")
Text = str | Conversation


@dataclass(frozen=True, slots=True)
class TokenPair:
    """One preference pair as token ids; the completions end with the end token."""

    place: str
    prompt: list[int]
    chosen: list[int]
    rejected: list[int]


@dataclass(frozen=True, slots=True)
class PairData:
    """What training sees, and how many rows it does not see and why."""

    rows: list[TokenPair]
    left_out: Counter[str] = field(default_factory=Counter)

    def summary(self) -> str:
        """One line: "7,731 pairs; left out: 269 identical answers"."""
        lost = ", ".join(f"{count:,} {reason}" for reason, count in sorted(self.left_out.items()))
        return f"{len(self.rows):,} pairs" + (f"; left out: {lost}" if lost else "")


def load_pairs(source: str, spec: DataSpec, tokenizer: Any, context: int | None) -> PairData:
    """Read preference pairs and tokenize them.

    Args:
        source: file or hub id; rows with `prompt`, `chosen`, `rejected`, texts or messages (prompt may be implicit).
        spec: the limits of the recipe, in tokens; a row beyond them is left out and counted.
        tokenizer: of the model that will be trained.
        context: the longest sequence the model can read, in tokens; a row beyond it is an error.

    Raises:
        DataError: a row is malformed, empty, or longer than the model; or nothing is left to train on.
    """
    data = PairData([])
    for chunk in _chunks(read_rows(source)):
        for pair in _tokenize(chunk, tokenizer):
            reason = _too_long(pair, spec, context)
            if pair.chosen == pair.rejected:
                reason = "identical answers"
            if reason:
                data.left_out[reason] += 1
            else:
                data.rows.append(pair)
    if not data.rows:
        raise DataError(f"{source}: no pair to train on ({data.summary()}).")
    return data


def load_completions(source: str) -> list[Row]:
    """Read supervised rows as `{"prompt", "completion"}`: so given, as `messages`, or the chosen half of a pair."""
    rows = []
    for place, row in read_rows(source):
        key = next((name for name in ("completion", "messages", "chosen") if name in row), None)
        if key is None:
            raise DataError(f"{place}: has none of 'completion', 'messages', 'chosen'.")
        given = {name: value for name, value in row.items() if key != "messages" or name != "prompt"}
        parts = split_prompt(given, (key,), place)
        rows.append({"prompt": parts["prompt"], "completion": parts[key]})
    if not rows:
        raise DataError(f"{source}: has no rows.")
    return rows


def texts_of(tokenizer: Any, prompt: Text, completions: Iterable[Text], place: str) -> tuple[str, list[str]]:
    """Prompt and completions as the model reads them: through the chat template, or plain with the end token."""
    if isinstance(prompt, str):
        return prompt, [_ended(text, tokenizer) for text in completions if isinstance(text, str)]
    if tokenizer.chat_template is None:
        raise ModelError(f"{place}: has messages, but the tokenizer has no chat template. Use texts, or add a template.")
    asked = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
    answered = [tokenizer.apply_chat_template([*prompt, *text], tokenize=False) for text in completions]
    if not all(whole.startswith(asked) for whole in answered):
        raise ModelError(
            f"{place}: the chat template rewrites the prompt once it is answered, so the answer cannot be told apart. "
            "Use a template that keeps it (thinking models: one that keeps the thinking part)."
        )
    return asked, [whole[len(asked) :] for whole in answered]


def _tokenize(chunk: list[tuple[str, Row]], tokenizer: Any) -> Iterator[TokenPair]:
    """Prompt and completions are tokenized apart, as at generation, where the completion follows fixed prompt tokens."""
    prompts, chosen, rejected = [], [], []
    chat = None
    for place, row in chunk:
        parts = split_prompt(row, ("chosen", "rejected"), place)
        if chat not in (None, not isinstance(parts["prompt"], str)):
            raise DataError(f"{place}: is a {'text' if chat else 'conversation'}, unlike the rows before it. Choose one.")
        chat = not isinstance(parts["prompt"], str)
        asked, (good, bad) = texts_of(tokenizer, parts["prompt"], (parts["chosen"], parts["rejected"]), place)
        prompts.append(asked)
        chosen.append(good)
        rejected.append(bad)
    prompt_ids = tokenizer(prompts, add_special_tokens=not chat)["input_ids"]
    columns = (prompt_ids, *(tokenizer(texts, add_special_tokens=False)["input_ids"] for texts in (chosen, rejected)))
    for (place, _), asked_ids, good_ids, bad_ids in zip(chunk, *columns, strict=True):
        yield TokenPair(place, _open_ended(asked_ids, tokenizer), good_ids, bad_ids)


def _too_long(pair: TokenPair, spec: DataSpec, context: int | None) -> str | None:
    longest = max(len(pair.chosen), len(pair.rejected))
    if len(pair.prompt) > spec.max_prompt_tokens:
        return f"prompts over {spec.max_prompt_tokens} tokens"
    if longest > spec.max_completion_tokens:
        return f"completions over {spec.max_completion_tokens} tokens"
    if context is not None and len(pair.prompt) + longest > context:
        raise DataError(
            f"{pair.place}: prompt ({len(pair.prompt)} tokens) and completion ({longest}) exceed the model's context of "
            f"{context}. Lower data.max_prompt_tokens or data.max_completion_tokens to leave such rows out."
        )
    return None


def _ended(text: str, tokenizer: Any) -> str:
    return text if tokenizer.eos_token is None or text.endswith(tokenizer.eos_token) else text + tokenizer.eos_token


def _open_ended(ids: list[int], tokenizer: Any) -> list[int]:
    """A prompt without the end token that some tokenizers add to every text."""
    return ids[:-1] if ids and ids[-1] == tokenizer.eos_token_id else ids


def _chunks(items: Iterable[T]) -> Iterator[list[T]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, CHUNK)):
        yield chunk
