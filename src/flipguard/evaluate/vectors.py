"""The texts of many rows looked at as one array of bytes; worth numpy where there are thousands.

What is found here is what `wordcount` and `refusing` say of one text: words are counted the same, and no answer that
deserves a mark is passed over.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from operator import itemgetter

import numpy as np

from flipguard.evaluate.refusing import HINTS, OPENING
from flipguard.evaluate.texts import encoded
from flipguard.evaluate.wordcount import LETTERS, SPACE

Bytes = np.ndarray[tuple[int], np.dtype[np.uint8]]
Numbers = np.ndarray[tuple[int], np.dtype[np.intp]]

_TICK = b"`"
_GAP, _END = b" ", b"\xff"  # between texts; the latter is in no UTF-8
_OTHER, _SPACE, _LETTER = range(3)  # kinds of characters, as `wordcount` has them
_FIRST = 0xC2  # the least byte of UTF-8 that begins a character beyond ASCII
_PLANE = 0x10000  # characters beyond are neither letters that are words, nor space
_BITS, _CODES = 5, 32  # what is kept of a byte, which takes small and large letters for the same
_REACH = 6  # bytes of a hint that are compared


def count_words(bodies: Sequence[bytes]) -> list[int]:
    """How many words each text has, given in UTF-8."""
    whole = np.frombuffer(_GAP.join([b"", *bodies, b""]), np.uint8)
    space = (whole - 9 <= 4) | (whole - 28 <= 4)  # as bytes: what lies below wraps around
    letters = _mark_foreign(whole, space)
    begins = (space[:-1] > space[1:]).view(np.uint8)
    begins[letters - 1] = 1
    lengths = np.fromiter(map(len, bodies), np.intp, len(bodies)) + len(_GAP)
    counts: list[int] = np.add.reduceat(begins, np.cumsum(lengths) - lengths, dtype=np.uint32).tolist()
    return counts


def _mark_foreign(whole: Bytes, space: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Numbers:
    """Where the letters are that are words; they become space, as all space does that is not ASCII."""
    at = np.flatnonzero(whole >= _FIRST)
    at = at[_maybe_special()[whole[at]]]
    first, second = (whole[at + step].astype(np.uint16) for step in (0, 1))
    wide = at[first >= 0xE0]
    code = (first & 31) << 6 | second & 63
    code[first >= 0xE0] = (code[first >= 0xE0] << 6) | whole[wide + 2] & 63
    kind = _kinds()[code]
    special = kind != _OTHER
    for step in (0, 1):
        space[at[special] + step] = True
    space[at[special & (first >= 0xE0)] + 2] = True
    letters: Numbers = at[kind == _LETTER]
    return letters


@cache
def _maybe_special() -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Of each byte, whether a character of three bytes or less begins with it that is a word or space."""
    special = np.flatnonzero(_kinds()[0x80:] != _OTHER) + 0x80
    found = np.zeros(0x100, bool)
    found[np.where(special < 0x800, 0xC0 | special >> 6, 0xE0 | special >> 12)] = True
    return found


@cache
def _kinds() -> Bytes:
    """The kind of each character below `_PLANE`."""
    found = np.full(_PLANE, _OTHER, np.uint8)
    every = "".join(map(chr, range(_PLANE)))
    for kind, letters in ((_LETTER, LETTERS), (_SPACE, SPACE)):
        for part in re.finditer(f"[{letters}]+", every):
            found[part.start() : part.end()] = kind
    return found


def noticed(texts: Sequence[str], bodies: Sequence[bytes]) -> list[int]:
    """The numbers of the texts that may hold a code block, be JSON, or refuse; `bodies` has them in UTF-8."""
    openings = encoded(list(map(_opening, map(str.lstrip, texts))))
    whole = np.frombuffer(_END.join([b"", *openings, _END * _REACH]), np.uint8)
    ends = np.flatnonzero(whole == _END[0])[: len(texts)]
    first = whole[ends + 1]
    documents = np.flatnonzero((first == ord("{")) | (first == ord("[")))
    refusing = np.searchsorted(ends, _hints_at(whole)) - 1
    fenced = [row for row, body in enumerate(bodies) if b"`" in body] if _TICK in _END.join(bodies) else []
    return sorted({*fenced, *documents.tolist(), *refusing.tolist()})


_opening = itemgetter(slice(OPENING))


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
