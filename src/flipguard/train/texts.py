"""Examples -> token ids, by the chat template or as plain texts."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import jinja2

from flipguard.errors import ModelError
from flipguard.train.formats import Example


def tokenize(examples: list[Example], places: list[str], tokenizer: Any) -> Iterator[list[list[int]]]:
    """Prompt and completions of each example as token ids.

    Prompt and completion are tokenized as one text and cut where the prompt's own tokens end, as a model sees them.
    """
    if not examples:
        return
    chat = not isinstance(examples[0].prompt, str)
    asked, wholes = texts_of(tokenizer, examples, places)
    prompt_ids = tokenizer(asked, add_special_tokens=not chat, verbose=False)["input_ids"]
    whole_ids = iter(tokenizer(wholes, add_special_tokens=not chat, verbose=False)["input_ids"] if wholes else [])
    for example, ids in zip(examples, prompt_ids, strict=True):
        answers = [_ended_once(whole, tokenizer) for whole in islice(whole_ids, len(example.completions))]
        asked_ids = _open_ended(ids, tokenizer)
        cut = min((_shared(asked_ids, whole) for whole in answers), default=len(asked_ids))
        yield [[*answers, asked_ids][0][:cut], *(whole[cut:] for whole in answers)]


def texts_of(tokenizer: Any, examples: list[Example], places: list[str]) -> tuple[list[str], list[str]]:
    """Prompts, and prompts with each completion, as the model reads them: by the chat template, or plain and ended.

    Raises:
        ModelError: there is no chat template, or it rewrites the prompt once it is answered.
    """
    if isinstance(examples[0].prompt, str):
        ended = [_ended(f"{example.prompt}{text}", tokenizer) for example in examples for text in example.completions]
        return [str(example.prompt) for example in examples], ended
    if tokenizer.chat_template is None:
        raise ModelError(
            f"{places[0]}: has messages, but the tokenizer has no chat template. Use texts, or add a template."
        )
    prompts = [example.prompt for example in examples]
    answered = [[*example.prompt, *text] for example in examples for text in example.completions]
    asked = _templated(tokenizer, prompts, places, add_generation_prompt=True)
    sides = [len(example.completions) for example in examples]
    owners = [number for number, count in enumerate(sides) for _ in range(count)]
    theirs = [places[owner] for owner in owners]
    wholes = _templated(tokenizer, answered, theirs, add_generation_prompt=False) if answered else []
    for owner, whole in zip(owners, wholes, strict=True):
        if not whole.startswith(asked[owner]):
            raise ModelError(
                f"{places[owner]}: the chat template rewrites the prompt once it is answered, so the answer cannot be "
                "told apart. Use a template that keeps it (thinking models: one that keeps the thinking part)."
            )
    return asked, wholes


def _templated(
    tokenizer: Any, conversations: list[Any], places: list[str], *, add_generation_prompt: bool
) -> list[str]:
    how = {"tokenize": False, "add_generation_prompt": add_generation_prompt}
    try:
        return tokenizer.apply_chat_template(conversations, **how)
    except jinja2.TemplateError:
        for conversation, place in zip(conversations, places, strict=True):
            try:
                tokenizer.apply_chat_template(conversation, **how)
            except jinja2.TemplateError as error:
                raise ModelError(f"{place}: the chat template refuses the conversation: {error}.") from None
        raise


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
    if whole[: len(prompt)] == prompt:
        return len(prompt)
    pairs = enumerate(zip(prompt, whole, strict=False))
    return next((place for place, (left, right) in pairs if left != right), min(len(prompt), len(whole)))
