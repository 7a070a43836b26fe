"""The form of an answer, measured once, so that its text need not be kept: length, marks, fingerprint."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from zlib import crc32

import orjson

from flipguard.evaluate.refusing import refuses

# Marks of one answer, the bits of a byte. An answer that failed has none: it has no form.
TOLD: Final = 1  # its text is known
EMPTY: Final = 2
CODE: Final = 4  # a code block
JSON: Final = 8  # the whole text is a JSON object or array
REFUSES: Final = 16
ENDED: Final = 32  # it is known why it ended
CUT: Final = 64

NO_TEXT: Final = -1

# Written without spaces between words: each character counts as a word. Their punctuation counts as space.
_LETTERS = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")
_PUNCTUATION = re.compile("[\u3000-\u303f\uff00-\uff0f\uff1a-\uff20]")
_BELOW_THEM = bytes(range(0xE3))  # the bytes of UTF-8 that begin no letter and no punctuation of the two above
_SPACES = bytes(32 if byte < 128 and chr(byte).isspace() else 120 for byte in range(256))  # every other byte is an "x"


@dataclass(slots=True)
class Forms:
    """The forms of many answers: words and marks of each, and the fingerprint of its text."""

    words: array[int]
    marks: bytearray
    prints: array[int]

    @classmethod
    def empty(cls) -> Forms:
        """Of no answer yet."""
        return cls(array("I"), bytearray(), array("q"))

    def take(self, rows: Iterable[int]) -> Forms:
        """Those of the answers number `rows`."""
        numbers = list(rows)
        return Forms(
            array("I", [self.words[row] for row in numbers]),
            bytearray([self.marks[row] for row in numbers]),
            array("q", [self.prints[row] for row in numbers]),
        )


def form(text: str | None, error: str | None, reason: str | None) -> tuple[int, int, int]:
    """Words, marks and fingerprint of one answer; `reason` is why it ended."""
    ended = 0 if reason is None or error is not None else ENDED | CUT if reason == "length" else ENDED
    if text is None:
        return 0, ended, NO_TEXT
    data = text.encode("utf-8", "surrogatepass")
    number = _ascii_words(data) if len(data) == len(text) else words(text)
    printed = len(data) << 32 | crc32(data)
    if error is not None:
        return number, 0, printed
    marks = TOLD | ended
    if not number and not text.strip():
        return number, marks | EMPTY, printed
    if "```" in text:
        marks |= CODE
    if _is_json(text):
        marks |= JSON
    if refuses(text):
        marks |= REFUSES
    return number, marks, printed


def fingerprint(text: str | None) -> int:
    """A number that tells texts apart, but for one pair of different ones in four thousand million; NO_TEXT of none."""
    if text is None:
        return NO_TEXT
    data = text.encode("utf-8", "surrogatepass")
    return len(data) << 32 | crc32(data)


def words(text: str) -> int:
    """How many words `text` has; in Chinese, Japanese and Korean, how many letters.

    >>> words("Hello, world!"), words("你好，世界 and you")
    (2, 6)
    """
    data = text.encode("utf-8", "surrogatepass")
    if len(data) == len(text):
        return _ascii_words(data)
    if not data.translate(None, _BELOW_THEM):
        return len(text.split())
    spaced, runs = _LETTERS.subn(" ", text)
    if not runs:
        return len(_PUNCTUATION.sub(" ", text).split())
    letters = len(text) - len(spaced) + runs
    return letters + len(_PUNCTUATION.sub(" ", spaced).split())


def _ascii_words(data: bytes) -> int:
    """Words begin where something other than space follows space."""
    shape = data.translate(_SPACES)
    return shape.count(b" x") + shape.startswith(b"x")


def _is_json(text: str) -> bool:
    """Whether the whole answer is a JSON object or array."""
    if text.lstrip()[:1] not in ("{", "["):
        return False
    try:
        orjson.loads(text.strip())
    except orjson.JSONDecodeError:
        return False
    return True
