"""What changed in the form of the answers: length, truncation, emptiness, code blocks, JSON.

Judges like long answers and scorers dislike cut ones: a shift of form is the first suspect where many answers flip, so
it stands beside the rates. Each shift is paired, and tested by the exact sign test on the pairs that changed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, median

import orjson

from flipguard.evaluate.comparison import Answer, Pair, Proportion, Test
from flipguard.evaluate.sampling import INDEPENDENT, Sampling

CUT = "cut off"

# Written without spaces between words: each character counts as a word. Their punctuation counts as space.
_LETTERS = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_PUNCTUATION = re.compile("[\u3000-\u303f\uff00-\uff0f\uff1a-\uff20]")


@dataclass(frozen=True, slots=True)
class Lengths:
    """Words per answer, old and new, over the `n` pairs with both answers.

    `p_value` is the two-sided sign test of longer against shorter. `nfr_longer` and `nfr_shorter` are the rates
    of negative flips among graded pairs whose new answer is longer or shorter: far apart, they point at the grader.
    """

    n: int
    old_median: float
    new_median: float
    old_mean: float
    new_mean: float
    longer: int
    shorter: int
    p_value: float
    nfr_longer: Proportion
    nfr_shorter: Proportion
    test: Test


@dataclass(frozen=True, slots=True)
class Shift:
    """A property of answers: of `n` pairs, how many had it before and after, gained it and lost it.

    `p_value` is that of `test` on gained against lost.
    """

    name: str
    n: int
    old: int
    new: int
    gained: int
    lost: int
    p_value: float
    test: Test = "exact McNemar"


@dataclass(frozen=True, slots=True)
class Shifts:
    """Shifts of form; `lengths` is None without completions, `kinds` holds what was seen on either side at all."""

    lengths: Lengths | None
    kinds: tuple[Shift, ...]


def words(text: str) -> int:
    """How many words `text` has; in Chinese, Japanese and Korean, how many letters.

    >>> words("Hello, world!"), words("你好，世界 and you")
    (2, 6)
    """
    if text.isascii():
        return len(text.split())
    return len(_LETTERS.sub(" x ", _PUNCTUATION.sub(" ", text)).split())


def measure(pairs: Iterable[Pair], how: Sampling = INDEPENDENT) -> Shifts | None:
    """The shifts of form between the two sides; None where the files hold neither answers nor why they ended.

    Truncation is known where both sides have a `finish_reason`. An answer that failed has no form.

    Args:
        pairs: matched pairs, ungraded ones included.
        how: how pairs were drawn.
    """
    sound = [pair for pair in pairs if pair.old.error is None and pair.new.error is None]
    told = [pair for pair in sound if pair.old.completion is not None and pair.new.completion is not None]
    ended = [pair for pair in sound if pair.old.finish_reason is not None and pair.new.finish_reason is not None]
    if not told and not ended:
        return None
    kinds = [
        _shift(CUT, ended, lambda answer: answer.finish_reason == "length", how),
        _shift("empty", told, lambda answer: not (answer.completion or "").strip(), how),
        _shift("code block", told, lambda answer: "```" in (answer.completion or ""), how),
        _shift("JSON", told, lambda answer: _is_json(answer.completion or ""), how),
    ]
    lengths = _lengths(told, how) if told else None
    return Shifts(lengths, tuple(kind for kind in kinds if kind.old or kind.new or (kind.name == CUT and kind.n)))


def _lengths(pairs: Sequence[Pair], how: Sampling) -> Lengths:
    old, new = ([words(side.completion or "") for side in sides] for sides in _sides(pairs))
    longer = [pair for pair, before, after in zip(pairs, old, new, strict=True) if after > before]
    shorter = [pair for pair, before, after in zip(pairs, old, new, strict=True) if after < before]
    p_value, test = how.test(longer, shorter, "length")
    return Lengths(
        n=len(pairs),
        old_median=float(median(old)),
        new_median=float(median(new)),
        old_mean=fmean(old),
        new_mean=fmean(new),
        longer=len(longer),
        shorter=len(shorter),
        p_value=p_value,
        test=test,
        nfr_longer=_nfr(longer, how, "longer"),
        nfr_shorter=_nfr(shorter, how, "shorter"),
    )


def _sides(pairs: Sequence[Pair]) -> tuple[list[Answer], list[Answer]]:
    return [pair.old for pair in pairs], [pair.new for pair in pairs]


def _nfr(pairs: Iterable[Pair], how: Sampling, name: str) -> Proportion:
    valid = [pair for pair in pairs if pair.outcome != "invalid"]
    return how.share([pair for pair in valid if pair.outcome == "negative_flip"], valid, name)


def _shift(name: str, pairs: Sequence[Pair], has: Callable[[Answer], bool], how: Sampling) -> Shift:
    old, new = ([has(side) for side in sides] for sides in _sides(pairs))
    sides = list(zip(pairs, old, new, strict=True))
    gained = [pair for pair, before, after in sides if after and not before]
    lost = [pair for pair, before, after in sides if before and not after]
    p_value, test = how.test(gained, lost, name)
    return Shift(name, len(pairs), sum(old), sum(new), len(gained), len(lost), p_value, test)


def _is_json(text: str) -> bool:
    """Whether the whole answer is a JSON object or array."""
    text = text.strip()
    if text[:1] not in ("{", "["):
        return False
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True
