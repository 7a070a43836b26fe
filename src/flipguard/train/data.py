"""Rows of text -> rows of token ids, measured against the model's context, with a count of what was left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeVar

import jinja2

from flipguard.errors import DataError, ModelError
from flipguard.records import Row
from flipguard.train.recipe import DataSpec
from flipguard.train.sources import Conversation, read_rows, split_prompt

CHUNK = 2048  # rows tokenized at a time: the tokenizer works on a chunk in parallel
PAIR = ("chosen", "rejected")
SUPERVISED = ("completion", "messages", "chosen")

T = TypeVar("T")
Text = str | Conversation


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A prompt and its completions as token ids; a pair has two completions, chosen before rejected.

    Prompt and completion are tokenized as one text and cut where the prompt's own tokens end, as a model sees them.
    """

    place: str
    prompt: list[int]
    completions: tuple[list[int], ...]

    @property
    def length(self) -> int:
        """Tokens of the prompt and the longest completion."""
        return len(self.prompt) + max(map(len, self.completions))


@dataclass(frozen=True, slots=True)
class TokenData:
    """What training sees, and how many rows it does not see and why."""

    rows: list[TokenRow]
    left_out: Counter[str] = field(default_factory=Counter)

    def summary(self) -> str:
        """One line: "7,731 rows; left out: 269 with identical answers"."""
        lost = ", ".join(f"{count:,} {reason}" for reason, count in sorted(self.left_out.items()))
        return f"{len(self.rows):,} rows" + (f"; left out: {lost}" if lost else "")


def load_pairs(source: str, spec: DataSpec, tokenizer: Any, context: int | None) -> TokenData:
    """Read preference pairs: `chosen`, `rejected` and `prompt` (may be implicit), texts or messages.

    Args:
        source: file or hub id.
        spec: the limits of the recipe, in tokens; a row beyond them is left out and counted.
        tokenizer: of the model that will be trained.
        context: the longest sequence the model can read, in tokens; a row beyond it is an error.

    Raises:
        DataError: a row is malformed, empty, or longer than the model; or nothing is left to train on.
    """
    rows = ((place, split_prompt(row, PAIR, place)) for place, row in read_rows(source))
    return _load(source, rows, PAIR, spec, tokenizer, context)


def load_completions(source: str, spec: DataSpec, tokenizer: Any, context: int | None) -> TokenData:
    """Read supervised rows: `prompt` and `completion`, or `messages`, or the chosen half of preference pairs.

    Args and errors are those of `load_pairs`.
    """
    return _load(source, map(_supervised, read_rows(source)), ("completion",), spec, tokenizer, context)


def texts_of(tokenizer: Any, prompt: Text, completions: Iterable[Text], place: str) -> tuple[str, list[str]]:
    """Prompt and completions as the model reads them: through the chat template, or plain with the end token.

    Raises:
        ModelError: there is no chat template, or it rewrites the prompt once it is answered.
    """
    if isinstance(prompt, str):
        return prompt, [_ended(text, tokenizer) for text in completions if isinstance(text, str)]
    if tokenizer.chat_template is None:
        raise ModelError(
            f"{place}: has messages, but the tokenizer has no chat template. Use texts, or add a template."
        )
    try:
        asked = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
        answered = [tokenizer.apply_chat_template([*prompt, *text], tokenize=False) for text in completions]
    except jinja2.TemplateError as error:
        raise ModelError(f"{place}: the chat template refuses the conversation: {error}.") from None
    if not all(whole.startswith(asked) for whole in answered):
        raise ModelError(
            f"{place}: the chat template rewrites the prompt once it is answered, so the answer cannot be told apart. "
            "Use a template that keeps it (thinking models: one that keeps the thinking part)."
        )
    return asked, [whole[len(asked) :] for whole in answered]


def _supervised(item: tuple[str, Row]) -> tuple[str, dict[str, Text]]:
    place, row = item
    key = next((name for name in SUPERVISED if name in row), None)
    if key is None:
        raise DataError(f"{place}: has no completion. Give one of: {', '.join(SUPERVISED)}.")
    given = {name: value for name, value in row.items() if key != "messages" or name != "prompt"}
    parts = split_prompt(given, (key,), place)
    return place, {"prompt": parts["prompt"], "completion": parts[key]}


def _load(
    source: str,
    rows: Iterable[tuple[str, dict[str, Text]]],
    keys: tuple[str, ...],
    spec: DataSpec,
    tokenizer: Any,
    context: int | None,
) -> TokenData:
    data = TokenData([])
    for chunk in _chunks(rows):
        for row in _tokenize(chunk, keys, tokenizer):
            reason = _reason_to_leave_out(row, spec)
            if reason:
                data.left_out[reason] += 1
                continue
            _check_fits(row, context)
            data.rows.append(row)
    if not data.rows:
        raise DataError(f"{source}: nothing to train on ({data.summary()}).")
    return data


def _tokenize(chunk: list[tuple[str, dict[str, Text]]], keys: tuple[str, ...], tokenizer: Any) -> Iterator[TokenRow]:
    """All texts of a chunk in two calls of the tokenizer: the prompts, and the prompts with each completion."""
    chat = not isinstance(chunk[0][1]["prompt"], str)
    prompts: list[str] = []
    wholes: list[str] = []
    for place, parts in chunk:
        if chat is isinstance(parts["prompt"], str):
            raise DataError(f"{place}: texts and conversations are mixed in one file. Choose one.")
        asked, answered = texts_of(tokenizer, parts["prompt"], [parts[key] for key in keys], place)
        prompts.append(asked)
        wholes.extend(asked + answer for answer in answered)
    prompt_ids = tokenizer(prompts, add_special_tokens=not chat, verbose=False)["input_ids"]
    whole_ids = iter(tokenizer(wholes, add_special_tokens=not chat, verbose=False)["input_ids"])
    for (place, _), ids in zip(chunk, prompt_ids, strict=True):
        answers = [_ended_once(whole, tokenizer) for whole in islice(whole_ids, len(keys))]
        cut = min(_shared(_open_ended(ids, tokenizer), whole) for whole in answers)
        yield TokenRow(place, answers[0][:cut], tuple(whole[cut:] for whole in answers))


def _reason_to_leave_out(row: TokenRow, spec: DataSpec) -> str | None:
    if len(row.completions) == 2 and row.completions[0] == row.completions[1]:
        return "with identical answers"
    if len(row.prompt) > spec.max_prompt_tokens:
        return f"with prompts over {spec.max_prompt_tokens} tokens"
    if row.length - len(row.prompt) > spec.max_completion_tokens:
        return f"with completions over {spec.max_completion_tokens} tokens"
    return None


def _check_fits(row: TokenRow, context: int | None) -> None:
    if context is not None and row.length > context:
        raise DataError(
            f"{row.place}: prompt ({len(row.prompt)} tokens) and completion ({row.length - len(row.prompt)}) exceed "
            f"the model's context of {context}. Lower data.max_prompt_tokens or data.max_completion_tokens; "
            "longer rows are then left out."
        )


def _ended(text: str, tokenizer: Any) -> str:
    return text if text.endswith(tokenizer.eos_token) else text + tokenizer.eos_token


def _open_ended(ids: list[int], tokenizer: Any) -> list[int]:
    """A prompt without the end token that some tokenizers add to every text."""
    return ids[:-1] if ids and ids[-1] == tokenizer.eos_token_id else ids


def _ended_once(ids: list[int], tokenizer: Any) -> list[int]:
    """A whole text without the second end token that some tokenizers add to a text that has one."""
    return ids[:-1] if ids[-2:] == [tokenizer.eos_token_id] * 2 else ids


def _shared(prompt: list[int], whole: list[int]) -> int:
    """How many tokens of the prompt the whole text begins with: all, unless the last ones melt into the answer."""
    pairs = enumerate(zip(prompt, whole, strict=False))
    return next((place for place, (left, right) in pairs if left != right), min(len(prompt), len(whole)))


def _chunks(items: Iterable[T]) -> Iterator[list[T]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, CHUNK)):
        yield chunk
