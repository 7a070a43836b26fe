"""The checked keys of many rows, column by column: what is usual is seen from a column, else each row is asked.

What a key may hold, and what is wrong with it else, stands in `fields`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any, Final

from flipguard.evaluate.fields import (
    categories_of,
    cluster_of,
    completion_of,
    finish_reason_of,
    grade_of,
    key_of,
    prompt_of,
    reference_of,
)
from flipguard.evaluate.runs import Metric
from flipguard.records import Row, RowId

NAMES = 4_096  # categories remembered, so that the same ones are the same object
_NONE: Final = type(None)
_TROUBLE: Final = ("error", "finish_reason")  # where an answer says that it failed


class Block:
    """Some rows, and all the keys that they have."""

    __slots__ = ("names", "rows")

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows
        self.names = frozenset[str]().union(*rows)


def keys(block: Block) -> tuple[list[RowId], list[int]]:
    """The ids and the repeats."""
    ids, repeats = _values(block, "id"), _values(block, "repeat", 0)
    if _only(ids, str, int) and ("repeat" not in block.names or (_only(repeats, int) and min(repeats) >= 0)):
        return ids, repeats
    return _unzipped([key_of(row) for row in block.rows])


def grades(block: Block, metric: Metric) -> tuple[list[float | None], list[str | None]]:
    """The grades, and why answers failed."""
    values = _values(block, metric)
    if block.names.isdisjoint(_TROUBLE) or (
        _only(_values(block, "error"), _NONE) and "error" not in finish_reasons(block)
    ):
        if metric == "score" and _only(values, float) and math.isfinite(sum(values)):
            return values, [None] * len(block.rows)
        if metric == "correct" and _only(values, bool):
            return list(map(float, values)), [None] * len(block.rows)
    return _unzipped([grade_of(row, metric) for row in block.rows])


def completions(block: Block) -> list[str | None]:
    """What the model said."""
    return _texts(block, "completion", completion_of)


def prompts(block: Block) -> list[str | None]:
    """The prompts, each as one text."""
    return _texts(block, "prompt", prompt_of)


def references(block: Block) -> list[str | None]:
    """What right answers are, as texts."""
    return _texts(block, "reference", reference_of)


def clusters(block: Block) -> list[str | None]:
    """The names of the groups of rows that are not independent of each other."""
    return _texts(block, "cluster", cluster_of)


def finish_reasons(block: Block) -> list[str | None]:
    """Why answers ended."""
    reasons = _texts(block, "finish_reason", finish_reason_of)
    return [reason and sys.intern(reason) for reason in reasons] if "finish_reason" in block.names else reasons


def categories(block: Block) -> list[tuple[str, ...]]:
    """The slices the rows belong to."""
    values = _values(block, "category")
    if _only(values, str):
        return list(map(_NAMED.__getitem__, values))
    return [()] * len(block.rows) if _only(values, _NONE) else [_same(categories_of(row)) for row in block.rows]


class _Named(dict[str, tuple[str, ...]]):
    """Each category by itself, the same ones as the same object."""

    def __missing__(self, name: str) -> tuple[str, ...]:
        if len(self) >= NAMES:
            self.clear()
        return self.setdefault(name, _same((name,)))


_NAMED: Final = _Named()


@lru_cache(NAMES)
def _same(names: tuple[str, ...]) -> tuple[str, ...]:
    return names


def _texts(block: Block, name: str, text_of: Callable[[Row], str | None]) -> list[str | None]:
    if name not in block.names:
        return [None] * len(block.rows)
    values = _values(block, name)
    return values if _only(values, str, _NONE) else list(map(text_of, block.rows))


def _values(block: Block, name: str, absent: Any = None) -> list[Any]:
    if name not in block.names:
        return [absent] * len(block.rows)
    try:
        return list(map(itemgetter(name), block.rows))
    except KeyError:
        return [row.get(name, absent) for row in block.rows]


def _only(values: Sequence[Any], *types: type) -> bool:
    return set(map(type, values)).issubset(types)


def _unzipped(pairs: Sequence[tuple[Any, Any]]) -> tuple[list[Any], list[Any]]:
    return [one for one, _ in pairs], [other for _, other in pairs]
