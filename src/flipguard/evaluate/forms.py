"""The form of an answer, measured once, so that its text need not be kept: length, marks, fingerprint."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import or_
from typing import Final

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

NO_TEXT: Final = -1  # which `hash` never gives


@dataclass(slots=True)
class Forms:
    """The forms of many answers: length and marks of each, and the fingerprint of its text."""

    lengths: array[int]
    marks: bytearray
    prints: array[int]

    @classmethod
    def empty(cls) -> Forms:
        """Of no answer yet."""
        return cls(array("I"), bytearray(), array("q"))

    def extend(self, other: Forms) -> None:
        """Append those of further answers."""
        self.lengths.extend(other.lengths)
        self.marks.extend(other.marks)
        self.prints.extend(other.prints)

    def take(self, rows: Iterable[int]) -> Forms:
        """Those of the answers number `rows`."""
        numbers = list(rows)
        return Forms(
            array("I", [self.lengths[row] for row in numbers]),
            bytearray([self.marks[row] for row in numbers]),
            array("q", [self.prints[row] for row in numbers]),
        )


def measured(
    texts: Sequence[str | None], errors: Sequence[str | None], reasons: Sequence[str | None], *, many: bool = False
) -> Forms:
    """The forms of many answers, of which texts, errors and why they ended are given; None of what is not known.

    Where they are a part of very `many`, loading what looks at all bytes at once pays.
    """
    told = [text for text in texts if text is not None]
    if many:
        from flipguard.evaluate import vectors

        seen = vectors.noticed(told)
    else:
        seen = list(range(len(told)))
    lengths, marks, prints = list(map(len, told)), _marked(told, seen), list(map(hash, told))
    if len(told) < len(texts):
        lengths, marks = _spread(lengths, texts, 0), _spread(marks, texts, 0)
        prints = _spread(prints, texts, NO_TEXT)
    if reasons.count(None) < len(reasons):
        marks = list(map(or_, marks, map(_ended, reasons)))
    if errors.count(None) < len(errors):
        marks = [mark if error is None else 0 for mark, error in zip(marks, errors, strict=True)]
    return Forms(array("I", lengths), bytearray(marks), array("q", prints))


def fingerprints(texts: Sequence[str | None]) -> Sequence[int]:
    """Numbers that tell texts apart in this process and its copies, and nowhere else; NO_TEXT where there is no text.

    Of ten to the nineteenth pairs of different texts one has the same number.
    """
    told = [text for text in texts if text is not None]
    if not told:
        return [NO_TEXT] * len(texts)
    prints = list(map(hash, told))
    return prints if len(told) == len(texts) else _spread(prints, texts, NO_TEXT)


def _spread(values: Sequence[int], texts: Sequence[str | None], absent: int) -> list[int]:
    """One value of each text that is there, and `absent` for the others."""
    following = iter(values)
    return [absent if text is None else next(following) for text in texts]


def _marked(texts: Sequence[str], noticed: Iterable[int]) -> list[int]:
    """The marks that follow from the texts alone; only those `noticed` can have any but TOLD."""
    marks = [TOLD] * len(texts)
    for row in noticed:
        text, first = texts[row], texts[row].lstrip()[:1]
        code, refusing = CODE * ("```" in text), REFUSES * refuses(text)
        marks[row] |= code | refusing | JSON * (first in ("{", "[") and _is_json(text)) | EMPTY * (not first)
    return marks


def _ended(reason: str | None) -> int:
    return 0 if reason is None else ENDED | CUT if reason == "length" else ENDED


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text.strip())
    except orjson.JSONDecodeError:
        return False
    return True
