"""A source becomes a table of tokens: recognised, read, checked and tokenized once, then found in the cache."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import Any

import numpy as np

from flipguard.errors import DataError, RecipeError
from flipguard.progress import follow
from flipguard.records import Message
from flipguard.rewards.opening import open_reward
from flipguard.rewards.spec import RewardSpec
from flipguard.scorers import Answered, grade
from flipguard.train import tables
from flipguard.train.dataspec import DataSpec, SourceSpec
from flipguard.train.formats import LOOKED_AT, Example, Format, Kind, MalformedError, Text, recognise
from flipguard.train.sources import Numbered, how_many, hub_data, local_path, parted, read_rows
from flipguard.train.tokenizing import Part, Reader, read_parts


def open_table(source: SourceSpec, spec: DataSpec, kind: Kind, tokenizer: Any) -> tables.Table:
    """The source as tokens, from the cache where it has been read before.

    Raises:
        DataError: the source cannot be had, or no format fits it.
        ModelError: the chat template does not serve.
    """
    said = {
        "identity": _identity(source, spec),
        "kind": kind,
        "format": source.format or spec.format,
        "chat": spec.chat,
        "where": source.where,
        "max_rows": source.max_rows,
        "relabel": source.relabel,
    }
    key = tables.fingerprint(said, tokenizer)
    known = tables.cached(key)
    if known is not None:
        return known
    rows = read_rows(source, streaming=spec.streaming)
    first = list(islice(rows, LOOKED_AT))
    form = recognise([item.row for item in first], kind, source.format or spec.format, str(source))
    chat = spec.chat or _are_conversations(form, first)
    swaps = _swaps(source.relabel, str(source)) if source.relabel else None
    reader = Reader(form, kind, tokenizer, chat, spec.chat, source.where, str(source), swaps)
    parts = _followed(read_parts(reader, chain(first, rows), spec.workers), source)
    return tables.write(key, parts, form=form.name, chat=chat)


def sha256_of(source: SourceSpec) -> str | None:
    """One hash over the bytes of a local file or folder; None for a hub data set."""
    path = local_path(source)
    if path is None:
        return None
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(item for item in path.rglob("*") if item.is_file())
    for item in files:
        with item.open("rb") as file:
            digest.update(f"{item.relative_to(path)} ".encode())
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _identity(source: SourceSpec, spec: DataSpec) -> list[str | None]:
    path = local_path(source)
    if path is not None:
        return [path.suffix, sha256_of(source), source.split]
    hub = parted(source)
    if not spec.streaming:
        return [hub_data(hub, streaming=False)._fingerprint]  # noqa: SLF001 - what `datasets` itself caches by
    if hub.revision is None:
        raise RecipeError(f"{source}: data.streaming needs a revision, a commit, so that a resumed run reads the same.")
    return [hub.path, hub.name, hub.revision, hub.split]


def _are_conversations(form: Format, rows: list[Numbered]) -> bool:
    """Whether most of the first rows are lists of messages."""
    votes = [not isinstance(example.prompt, str) for example in _readable(form, rows)]
    return sum(votes) * 2 > len(votes) or (sum(votes) * 2 == len(votes) and votes[:1] == [True])


def _readable(form: Format, rows: list[Numbered]) -> Iterator[Example]:
    for item in rows:
        try:
            example = None if form.refuses(item.row) else form.read(item.row)
        except MalformedError:
            continue
        if example is not None:
            yield example


def _followed(parts: Iterator[Part], source: SourceSpec) -> Iterator[Part]:
    """Say how far reading has come, where it is known how many rows there are."""
    total = how_many(source)
    if total is None:
        yield from parts
        return
    with follow(f"tokenizing {source}", total) as advance:
        for part in parts:
            advance(len(np.unique(part.rows["number"])))
            yield part


def _swaps(reward: str, source: str) -> Callable[[list[Example]], list[bool]]:
    """PRO's relabelling: the answer that the reward model likes better is the chosen one; ties stay as they are."""
    scorer = open_reward(RewardSpec(path=reward), f"{source}: relabel")

    def scores(pairs: list[Example], side: int) -> list[float | None]:
        answers = [Answered(number, _prompt(pair), _answer(pair, side)) for number, pair in enumerate(pairs)]
        return [item.score for item in grade(scorer, answers, {}, place=source)]

    def swaps(pairs: list[Example]) -> list[bool]:
        if any(len(pair.completions) != 2 for pair in pairs):
            raise DataError(f"{source}: relabel orders pairs, and these rows are none. Remove it.")
        sides = zip(scores(pairs, 0), scores(pairs, 1), strict=True)
        return [left is not None and right is not None and right > left for left, right in sides]

    return swaps


def _prompt(pair: Example) -> str | list[Message]:
    if isinstance(pair.prompt, str):
        return pair.prompt
    return [{"role": turn["role"], "content": turn["content"]} for turn in pair.prompt]


def _answer(pair: Example, side: int) -> str:
    answer: Text = pair.completions[side]
    return answer if isinstance(answer, str) else answer[-1]["content"]
