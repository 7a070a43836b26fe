"""From measuring to training: the rows of a data set that an earlier comparison found to be negative flips.

`flipguard compare` writes them to flips.jsonl: answers the old model got right and the new one got worse. What such a
row tells is its id and its prompt.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from flipguard.errors import DataError, RecipeError
from flipguard.files import read_jsonl
from flipguard.processes import is_first
from flipguard.records import Row
from flipguard.train.data import TokenRow

Ids = tuple[int, ...]


def guard_weights(rows: Sequence[TokenRow], source: str, weight: float, tokenizer: Any, *, place: str) -> list[float]:
    """What multiplies gamma on each row: `weight` where an earlier comparison found a negative flip, else 1.

    A row is found by its id, or by its prompt, a text being the same as one user message. Where a flip says its prompt
    too, an id alone is not believed: numbered rows of two data sets share their ids by accident.

    Args:
        rows: the training rows.
        source: a flips.jsonl.
        weight: of the rows found, >= 0.
        tokenizer: the one that made the rows.
        place: the recipe's file, for errors.

    Raises:
        DataError: the file cannot be read, or a line has neither id nor prompt.
        RecipeError: not one of its flips is a training row.
    """
    by_id: dict[str, set[Ids]] = {}
    prompts: set[Ids] = set()
    count = 0
    for line, flip in read_jsonl(Path(source)):
        if flip.get("id") is None and flip.get("prompt") is None:
            raise DataError(f"{source}:{line}: has neither 'id' nor 'prompt'. Give a flips.jsonl of flipguard compare.")
        asked = _as_tokens(flip, tokenizer)
        prompts |= asked
        by_id.setdefault(str(flip.get("id")), set()).update(asked)
        count += 1
    found = [_is_flip(row, by_id, prompts) for row in rows]
    if not any(found):
        raise RecipeError(
            f"{place}: constraint.flips: not one of the {count:,} flips of {source} is a training row, by id or by "
            "prompt. Compare on prompts of the training data, or remove constraint.flips and flip_weight."
        )
    if is_first():
        sys.stderr.write(f"{source}: {count:,} flips; {sum(found):,} of {len(rows):,} training rows weigh {weight:g}\n")
    return [weight if flip else 1.0 for flip in found]


def _is_flip(row: TokenRow, by_id: dict[str, set[Ids]], prompts: set[Ids]) -> bool:
    if tuple(row.prompt) in prompts:
        return True
    said = by_id.get(str(row.id)) if row.id is not None else None
    return said is not None and not said  # an id without a prompt that could contradict it


def _as_tokens(flip: Row, tokenizer: Any) -> set[Ids]:
    """A flip's prompt as the token ids it may have in a training row; none where it has no prompt."""
    prompt = flip.get("prompt")
    forms: list[Any] = []
    if isinstance(prompt, str):
        forms.append(tokenizer(prompt, verbose=False)["input_ids"])
        prompt = [{"role": "user", "content": prompt}]
    if isinstance(prompt, list) and tokenizer.chat_template is not None:
        try:
            text = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
            forms.append(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
        except jinja2.TemplateError:
            pass  # a conversation that the template refuses is no training row either
    return {tuple(ids[:-1] if ids[-1:] == [tokenizer.eos_token_id] else ids) for ids in forms}
