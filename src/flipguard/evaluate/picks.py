"""Some values of a column."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from operator import itemgetter
from typing import TypeVar

Item = TypeVar("Item")


def pick(column: Sequence[Item], rows: Sequence[int]) -> Sequence[Item]:
    """The values number `rows` of a column."""
    values = list(itemgetter(*rows)(column)) if len(rows) > 1 else [column[row] for row in rows]
    return array(column.typecode, values) if isinstance(column, array) else values  # type: ignore[arg-type, return-value]
