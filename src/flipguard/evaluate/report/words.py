"""Which words of two answers differ, so that a reader's eye goes there; n log n, whatever the texts."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import itemgetter

Part = tuple[str, bool]

# Words, marks, and the space after them; languages written without spaces go letter by letter.
_TOKEN = re.compile(r"(?:[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|\w+|[^\w\s])\s*|\s+")


def marked(old: str, new: str) -> tuple[list[Part], list[Part]]:
    """Both texts as parts, each with whether it differs from the other text.

    Answers that have next to nothing in common are left unmarked: everything marked says nothing.

    >>> marked("it is blue", "it is red")
    ([('it is ', False), ('blue', True)], [('it is ', False), ('red', True)])
    """
    if old == new:
        return [(old, False)], [(new, False)]
    left, right = _TOKEN.findall(old), _TOKEN.findall(new)
    in_old, in_new = _kept([token.rstrip() for token in left], [token.rstrip() for token in right])
    if 5 * sum(in_old) < min(len(left), len(right)):
        return [(old, False)], [(new, False)]
    return _parts(left, in_old), _parts(right, in_new)


def _kept(left: Sequence[str], right: Sequence[str]) -> tuple[list[bool], list[bool]]:
    """Which tokens of each side the other side has too, in the same order.

    The second "the" of one side can only be the second "the" of the other; the longest run of such pairs that keeps
    the order is kept, then grown to equal neighbours.
    """
    in_old, in_new = [False] * len(left), [False] * len(right)
    places = {key: place for place, key in enumerate(_numbered(right))}
    pairs = [(place, places[key]) for place, key in enumerate(_numbered(left)) if key in places]
    for start, other in _rising(pairs):
        for step in (1, -1):
            one, two = (start, other) if step > 0 else (start - 1, other - 1)
            while 0 <= one < len(left) and 0 <= two < len(right) and left[one] == right[two]:
                if in_old[one] or in_new[two]:
                    break
                in_old[one] = in_new[two] = True
                one, two = one + step, two + step
    return in_old, in_new


def _numbered(tokens: Iterable[str]) -> list[tuple[str, int]]:
    """Each token with how often it came before."""
    seen: dict[str, int] = {}
    keys = []
    for token in tokens:
        number = seen.get(token, 0)
        seen[token] = number + 1
        keys.append((token, number))
    return keys


def _rising(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The longest run of pairs in which the second place rises too (patience sorting)."""
    tops: list[int] = []
    ends: list[int] = []
    before: list[int] = []
    for index, (_, place) in enumerate(pairs):
        pile = bisect_left(tops, place)
        before.append(ends[pile - 1] if pile else -1)
        tops[pile : pile + 1] = [place]
        ends[pile : pile + 1] = [index]
    run = []
    index = ends[-1] if ends else -1
    while index >= 0:
        run.append(pairs[index])
        index = before[index]
    return run[::-1]


def _parts(tokens: Sequence[str], kept: Sequence[bool]) -> list[Part]:
    """Neighbours with the same mark joined; the space after a marked run stays outside of it."""
    parts: list[Part] = []
    for keep, run in groupby(zip(tokens, kept, strict=True), key=itemgetter(1)):
        text = "".join(token for token, _ in run)
        if keep:
            _plain(parts, text)
            continue
        word = text.rstrip()
        if word:
            parts.append((word, True))
        _plain(parts, text[len(word) :])
    return parts


def _plain(parts: list[Part], text: str) -> None:
    """Append text without a mark."""
    if parts and not parts[-1][1]:
        parts[-1] = (parts[-1][0] + text, False)
    elif text:
        parts.append((text, False))
