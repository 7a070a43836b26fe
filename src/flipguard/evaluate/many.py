"""What is asked of very many numbers at once: by numpy, and the same as is found number by number."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from flipguard.evaluate.outcomes import drop
from flipguard.records import ROUNDING, Moved

_MOVED: tuple[Moved, ...] = ("tie", "negative_flip", "positive_flip")
Floats = np.ndarray[tuple[int], np.dtype[np.float64]]


def floats(values: Sequence[float]) -> Floats:
    """The numbers side by side; those of an array stay where they are."""
    return np.frombuffer(values, np.float64) if isinstance(values, array) else np.array(values, np.float64)


def all_moved(old: Sequence[float], new: Sequence[float], margin: float) -> list[Moved]:
    """What the scores of each prompt make, as `moved` says of one."""
    before, after = floats(old), floats(new)
    with np.errstate(invalid="ignore", over="ignore"):
        change = after - before
    beyond = np.abs(change) - margin
    rounding = ROUNDING * np.maximum(np.maximum(np.abs(before), np.abs(after)), margin)
    kinds = np.where(beyond <= np.maximum(rounding, 0.0), 0, np.where(change < 0.0, 1, 2)).astype(np.uint8)
    return list(map(_MOVED.__getitem__, kinds.tobytes()))


def all_dropped(old: Sequence[float], new: Sequence[float], margin: float) -> list[float | None]:
    """How far the scores of each prompt fell, as `drop` says of one."""
    with np.errstate(invalid="ignore", over="ignore"):
        falls = floats(old) - floats(new) - margin
    if np.isnan(falls).any():
        return [drop(before, after, margin) for before, after in zip(old, new, strict=True)]
    found: list[float | None] = np.maximum(falls, 0.0).tolist()
    return found


def size(values: Sequence[float]) -> float:
    """The sum of all sizes."""
    with np.errstate(over="ignore"):
        return float(np.abs(floats(values)).sum())


def spread(values: Sequence[float], mean: float) -> float:
    """The root of the summed squares of what differs from the mean; infinite or NaN where that is too large."""
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.sqrt(np.square(floats(values) - mean).sum()))


def largest(values: Sequence[float], most: int) -> tuple[list[float], float]:
    """The `most` largest sizes, in descending order, and the root of the summed squares of the others.

    The others are measured in units of the largest, so that no square is too large or too small.
    """
    sizes = np.abs(floats(values))
    sizes.partition(len(sizes) - most)
    top = np.sort(sizes[len(sizes) - most :])[::-1]
    unit = float(top[0])
    return top.tolist(), unit * float(np.sqrt(np.square(sizes[: len(sizes) - most] / unit).sum()))


def added(chosen: Iterable[tuple[Sequence[float], bytes]]) -> list[float]:
    """The sums of numbers chosen from tables, one from each by each of its bytes."""
    totals: list[float] = sum(np.array(table)[np.frombuffer(places, np.uint8)] for table, places in chosen).tolist()  # type: ignore[union-attr]
    return totals


def same(one: array[int], other: array[int]) -> list[int]:
    """The numbers of the rows where two columns of 64 bits are equal."""
    rows: list[int] = np.flatnonzero(np.frombuffer(one, np.int64) == np.frombuffer(other, np.int64)).tolist()
    return rows


def counted(values: array[int], told: bytes | bytearray) -> Counter[int]:
    """How often each value is there, of those that are `told`, where a byte is not 0."""
    there, many = np.unique(np.frombuffer(values, np.uint32)[np.frombuffer(told, bool)], return_counts=True)
    return Counter(dict(zip(there.tolist(), many.tolist(), strict=True)))


def less(one: array[int], other: array[int], told: bytes | bytearray) -> list[int]:
    """The numbers of the rows that are `told` and whose one value is less than the other."""
    both = np.frombuffer(one, np.uint32) < np.frombuffer(other, np.uint32)
    rows: list[int] = np.flatnonzero(both & np.frombuffer(told, bool)).tolist()
    return rows


def pairs_counted(one: bytes | bytearray, other: bytes | bytearray) -> Counter[tuple[int, int]]:
    """How often one byte stands with the other."""
    both = np.frombuffer(one, np.uint8).astype(np.intp) << 8 | np.frombuffer(other, np.uint8)
    return Counter({divmod(code, 256): many for code, many in enumerate(np.bincount(both).tolist()) if many})
