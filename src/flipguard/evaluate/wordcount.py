"""How many words texts have, counted in the bytes of many texts at once.

Chinese, Japanese and Korean are written without spaces between words: each of their letters counts as a word, and their
punctuation as space.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from itertools import chain
from typing import Final

_LETTERS = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_SPACE = re.compile("[\\s\u3000-\u303f\uff00-\uff0f\uff1a-\uff20]")

# What stands for a letter that is a word, for any other one, for a space, and between two texts.
_LETTER, _OTHER, _GAP, _END = b"L", b"x", b" ", b"\xff"
_ASCII_AND_END = bytes(range(0x80)) + _END
_CONTINUE: Final = bytes(range(0x80, 0xC0))  # bytes of UTF-8 that begin no character
_ALL_LETTERS: Final = (*range(0xE4, 0xEA), 0xEB, 0xEC)  # bytes that begin nothing else than letters that are words
_MOSTLY_SPACE: Final = (0xE3, 0xEF)  # what begins the punctuation, and rarer characters


def _shape(byte: int) -> bytes:
    if byte in _MOSTLY_SPACE or (byte < 0x80 and chr(byte).isspace()):
        return _GAP
    return _END if byte == _END[0] else _LETTER if byte in _ALL_LETTERS else _OTHER


_SHAPES: Final = b"".join(map(_shape, range(256)))


def words(text: str) -> int:
    """How many words `text` has; in Chinese, Japanese and Korean, how many letters.

    >>> words("Hello, world!"), words("你好，世界 and you")
    (2, 6)
    """
    return count_words([text.encode("utf-8", "surrogatepass")])[0]


def count_words(texts: Sequence[bytes]) -> list[int]:
    """How many words each text has, given in UTF-8.

    Every character becomes one byte, by the byte that it begins with; characters of which that tells too little are
    replaced before. Then words begin where something other than space follows space.
    """
    if not texts:
        return []
    whole = _GAP + (_END + _GAP).join(texts)
    foreign = whole.translate(None, _ASCII_AND_END)
    if foreign:
        for found, shown in set(chain.from_iterable(map(_stand_in, set(foreign.decode("utf-8", "surrogatepass"))))):
            whole = whole.replace(found, shown)
    shapes = whole.translate(_SHAPES, _CONTINUE)
    if foreign and _LETTER in shapes:
        shapes = shapes.replace(_LETTER, _GAP + _OTHER + _GAP)
    return [shape.count(_GAP + _OTHER) for shape in shapes.split(_END)]


@cache
def _stand_in(character: str) -> tuple[tuple[bytes, bytes], ...]:
    """What to replace, and by what, so that the first byte tells what `character` is; nothing where it does already.

    Where all characters that differ in the last byte alone are of one kind, that byte may stay: it begins none.
    """
    data = character.encode("utf-8", "surrogatepass")
    kind = _kind(character)
    if kind == _SHAPES[data[0] : data[0] + 1]:
        return ()
    shown = bytes(_ALL_LETTERS[:1]) if kind == _LETTER else kind
    alike = all(_kind(other) == kind for other in _neighbours(data))
    return (((data[:-1] if alike else data), shown),)


def _neighbours(data: bytes) -> str:
    every = chain.from_iterable((*data[:-1], last) for last in _CONTINUE)
    return bytes(every).decode("utf-8", "surrogatepass")


def _kind(character: str) -> bytes:
    return _LETTER if _LETTERS.match(character) else _GAP if _SPACE.match(character) else _OTHER
