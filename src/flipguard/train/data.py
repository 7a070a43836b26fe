"""Rows of text -> rows of token ids, measured against the model's context, with a count of what was left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeVar

import jinja2

from flipguard.errors import DataError, ModelError, shown
from flipguard.records import Row, RowId
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
    `label` says of an unpaired row whether its completion is desirable; `id` is what the row calls itself.
    """

    place: str
    prompt: Sequence[int]
    completions: tuple[Sequence[int], ...]
    label: bool | None = None
    id: RowId | None = None

    @property
    def length(self) -> int:
        """Tokens of the prompt and the longest completion."""
        return len(self.prompt) + max(map(len, self.completions))


@dataclass(frozen=True, slots=True)
class _Example:
    """A row of text, in its one form: a prompt, its completions, and what else the row says."""

    place: str
    prompt: Text
    completions: tuple[Text, ...]
    label: bool | None = None
    id: RowId | None = None


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
    examples = (_pair(place, row) for place, row in read_rows(source))
    return _load(source, examples, spec, tokenizer, context)


def are_conversations(source: str) -> bool:
    """Whether the pairs of `source` are lists of messages rather than texts, by the first of them."""
    place, row = next(iter(read_rows(source)))
    return not isinstance(split_prompt(row, PAIR, place)["prompt"], str)


def load_unpaired(source: str, spec: DataSpec, tokenizer: Any, context: int | None) -> TokenData:
    """Read unpaired preferences: `prompt`, `completion` and `label`; a pair becomes a desirable and an undesirable row.

    Args and errors are those of `load_pairs`.
    """
    examples = (example for place, row in read_rows(source) for example in _unpaired(place, row))
    return _load(source, examples, spec, tokenizer, context)


def load_completions(source: str, spec: DataSpec, tokenizer: Any, context: int | None) -> TokenData:
    """Read supervised rows: `prompt` and `completion`, or `messages`, or the chosen half of preference pairs.

    Args and errors are those of `load_pairs`.
    """
    return _load(source, (_supervised(place, row) for place, row in read_rows(source)), spec, tokenizer, context)


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


def _pair(place: str, row: Row) -> _Example:
    parts = split_prompt(row, PAIR, place)
    return _Example(place, parts["prompt"], tuple(parts[key] for key in PAIR), id=_id(row))


def _unpaired(place: str, row: Row) -> list[_Example]:
    if "label" not in row and all(key in row for key in PAIR):
        pair = _pair(place, row)
        sides = zip(pair.completions, (True, False), strict=True)
        return [_Example(place, pair.prompt, (text,), label, pair.id) for text, label in sides]
    label = row.get("label")
    if not isinstance(label, bool):
        raise DataError(f"{place}: 'label' must be true (desirable) or false, found {shown(label)}.")
    given = {key: value for key, value in row.items() if key != "messages"}
    parts = split_prompt(given, ("completion",), place)
    return [_Example(place, parts["prompt"], (parts["completion"],), label, _id(row))]


def _supervised(place: str, row: Row) -> _Example:
    key = next((name for name in SUPERVISED if name in row), None)
    if key is None:
        raise DataError(f"{place}: has no completion. Give one of: {', '.join(SUPERVISED)}.")
    given = {name: value for name, value in row.items() if key != "messages" or name != "prompt"}
    parts = split_prompt(given, (key,), place)
    return _Example(place, parts["prompt"], (parts[key],), id=_id(row))


def _id(row: Row) -> RowId | None:
    said = row.get("id")
    return said if isinstance(said, str | int) else None


def _load(source: str, examples: Iterable[_Example], spec: DataSpec, tokenizer: Any, context: int | None) -> TokenData:
    data = TokenData([])
    for chunk in _chunks(examples):
        for row in _tokenize(chunk, tokenizer):
            reason = _reason_to_leave_out(row, spec)
            if reason:
                data.left_out[reason] += 1
                continue
            _check_fits(row, context)
            data.rows.append(row)
    if not data.rows:
        raise DataError(f"{source}: nothing to train on ({data.summary()}).")
    return data


def _tokenize(chunk: list[_Example], tokenizer: Any) -> Iterator[TokenRow]:
    """All texts of a chunk in two calls of the tokenizer: the prompts, and the prompts with each completion."""
    chat = not isinstance(chunk[0].prompt, str)
    prompts: list[str] = []
    wholes: list[str] = []
    for item in chunk:
        if chat is isinstance(item.prompt, str):
            raise DataError(f"{item.place}: texts and conversations are mixed in one file. Choose one.")
        asked, answered = texts_of(tokenizer, item.prompt, item.completions, item.place)
        prompts.append(asked)
        wholes.extend(asked + answer for answer in answered)
    prompt_ids = tokenizer(prompts, add_special_tokens=not chat, verbose=False)["input_ids"]
    whole_ids = iter(tokenizer(wholes, add_special_tokens=not chat, verbose=False)["input_ids"])
    for item, ids in zip(chunk, prompt_ids, strict=True):
        answers = [_ended_once(whole, tokenizer) for whole in islice(whole_ids, len(item.completions))]
        cut = min(_shared(_open_ended(ids, tokenizer), whole) for whole in answers)
        completions = tuple(whole[cut:] for whole in answers)
        yield TokenRow(item.place, answers[0][:cut], completions, item.label, item.id)


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
