"""The texts of many rows looked at as one array of bytes; worth numpy where there are thousands.

What `forms` and `refusing` have to say of a text is asked only where something in it was noticed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from operator import itemgetter

import numpy as np

from flipguard.evaluate.refusing import HINTS, OPENING

Bytes = np.ndarray[tuple[int], np.dtype[np.uint8]]
Numbers = np.ndarray[tuple[int], np.dtype[np.intp]]

_END = b"\xff"  # between texts; it is in no UTF-8
_BITS, _CODES = 5, 32  # what is kept of a byte, which takes small and large letters for the same
_REACH = 6  # bytes of a hint that are compared
_opening = itemgetter(slice(OPENING))


def noticed(texts: Sequence[str]) -> list[int]:
    """The numbers of the texts that may be empty, hold a code block, be JSON, or refuse."""
    openings = _encoded(list(map(_opening, map(str.lstrip, texts))))
    whole = np.frombuffer(_END.join([b"", *openings, _END * _REACH]), np.uint8)
    ends = np.flatnonzero(whole == _END[0])[: len(texts)]
    first = whole[ends + 1]
    begun = np.flatnonzero((first == ord("{")) | (first == ord("[")) | (first == _END[0]))
    refusing = np.searchsorted(ends, _hints_at(whole)) - 1
    fenced = [row for row, text in enumerate(texts) if "`" in text]
    return sorted({*fenced, *begun.tolist(), *refusing.tolist()})


def _encoded(texts: Sequence[str]) -> list[bytes]:
    """The texts in UTF-8, lone surrogates too."""
    try:
        return list(map(str.encode, texts))
    except UnicodeEncodeError:
        return [text.encode("utf-8", "surrogatepass") for text in texts]


def _hints_at(whole: Bytes) -> Numbers:
    """Where something begins that looks like a hint, by three bytes and then by the next three."""
    codes = (whole & (_CODES - 1)).astype(np.uint16)
    triples = codes[:-2] << 2 * _BITS | codes[1:-1] << _BITS | codes[2:]
    begin, follow = _hints()
    at = np.flatnonzero(begin.astype(bool).take(triples[:-3], mode="wrap"))
    found: Numbers = at[(begin[triples[at]] & follow[triples[at + 3]]) != 0]
    return found


@cache
def _hints() -> tuple[np.ndarray[tuple[int], np.dtype[np.uint32]], ...]:
    """Of each three bytes, the hints that begin with them, and those that go on with them, as bits."""
    begin, follow = (np.zeros((_CODES, _CODES, _CODES), np.uint32) for _ in range(2))
    for bit, hint in enumerate(HINTS):
        codes: list[int | slice] = [byte % _CODES for byte in hint[:_REACH]]
        codes += [slice(None)] * (_REACH - len(codes))
        begin[tuple(codes[:3])] |= np.uint32(1 << bit)
        follow[tuple(codes[3:])] |= np.uint32(1 << bit)
    return begin.reshape(-1), follow.reshape(-1)
