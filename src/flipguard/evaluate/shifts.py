"""What changed in the form of the answers: length, truncation, emptiness, code blocks, JSON.

Judges like long answers and scorers dislike cut ones: a shift of form is the first suspect where many answers flip, so
it stands beside the rates. Each shift is paired, and tested by the exact sign test on the pairs that changed.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import accumulate, compress
from operator import and_, lt, mul

from flipguard.evaluate.columns import MANY
from flipguard.evaluate.comparison import Pair, Proportion, Test
from flipguard.evaluate.forms import CODE, CUT, EMPTY, ENDED, JSON, TOLD
from flipguard.evaluate.pairs import Pairs, Part
from flipguard.evaluate.sampling import INDEPENDENT, Sampling

CUT_OFF = "cut off"

Marks = Counter[tuple[int, int]]  # how many pairs have these marks, before and after


@dataclass(frozen=True, slots=True)
class Lengths:
    """Characters per answer, old and new, over the `n` pairs with both answers.

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


def measure(pairs: Iterable[Pair], how: Sampling = INDEPENDENT) -> Shifts | None:
    """The shifts of form between the two sides; None where the files hold neither answers nor why they ended.

    Truncation is known where both sides have a `finish_reason`. An answer that failed has no form.

    Args:
        pairs: matched pairs, ungraded ones included.
        how: how pairs were drawn.
    """
    table = Pairs.of(pairs)
    counts = _marks(table)
    if not any(before & after & (TOLD | ENDED) for before, after in counts):
        return None
    kinds = [
        _shift(CUT_OFF, table, counts, (ENDED, CUT), how),
        _shift("empty", table, counts, (TOLD, EMPTY), how),
        _shift("code block", table, counts, (TOLD, CODE), how),
        _shift("JSON", table, counts, (TOLD, JSON), how),
    ]
    told = any(before & after & TOLD for before, after in counts)
    lengths = _lengths(table, how) if told else None
    return Shifts(lengths, tuple(kind for kind in kinds if kind.old or kind.new or (kind.name == CUT_OFF and kind.n)))


def _lengths(pairs: Pairs, how: Sampling) -> Lengths:
    before, after = pairs.old.forms(), pairs.new.forms()
    told = bytes(map(and_, before.marks, after.marks)).translate(_TOLD)
    old, new = _counted(before.lengths, told), _counted(after.lengths, told)
    longer, shorter = (
        pairs.part(_less(before.lengths, after.lengths, told)),
        pairs.part(_less(after.lengths, before.lengths, told)),
    )
    p_value, test = how.test(longer, shorter, "length")
    return Lengths(
        n=old.total(),
        old_median=_median(old),
        new_median=_median(new),
        old_mean=_mean(old),
        new_mean=_mean(new),
        longer=len(longer),
        shorter=len(shorter),
        p_value=p_value,
        test=test,
        nfr_longer=_nfr(longer, how, "longer"),
        nfr_shorter=_nfr(shorter, how, "shorter"),
    )


_TOLD = bytes(bool(marks & TOLD) for marks in range(256))


def _marks(pairs: Pairs) -> Marks:
    before, after = pairs.old.forms().marks, pairs.new.forms().marks
    if len(pairs) < MANY:
        return Counter(zip(before, after, strict=True))
    from flipguard.evaluate.many import pairs_counted

    return pairs_counted(before, after)


def _counted(lengths: array[int], told: bytes) -> Counter[int]:
    """How many of the answers that are `told` have so many characters."""
    if len(lengths) < MANY:
        return Counter(compress(lengths, told))
    from flipguard.evaluate.many import counted

    return counted(lengths, told)


def _less(one: array[int], other: array[int], told: bytes) -> Iterable[int]:
    """The numbers of the pairs that are `told` and are shorter here than there."""
    if len(told) < MANY:
        return compress(range(len(told)), map(mul, told, map(lt, one, other)))
    from flipguard.evaluate.many import less

    return less(one, other, told)


def _median(counts: Counter[int]) -> float:
    """The middle value, or the mean of the two in the middle, by how often each value is there."""
    values = sorted(counts)
    reached = list(accumulate(counts[value] for value in values))
    middle = ((reached[-1] - 1) // 2, reached[-1] // 2)
    low, high = (values[bisect_right(reached, place)] for place in middle)
    return (low + high) / 2.0


def _mean(counts: Counter[int]) -> float:
    return sum(value * n for value, n in counts.items()) / counts.total()


def _nfr(part: Part, how: Sampling, name: str) -> Proportion:
    valid = part.valid()
    return how.share(valid.of_outcome("negative_flip"), valid, name)


def _shift(name: str, pairs: Pairs, counts: Marks, marks: tuple[int, int], how: Sampling) -> Shift:
    """A property by the mark of those of whom it is known, and the mark of those that have it."""
    known, mark = marks
    told = {both: many for both, many in counts.items() if both[0] & both[1] & known}
    gained = _turned(pairs, {both for both in told if ~both[0] & both[1] & mark})
    lost = _turned(pairs, {both for both in told if both[0] & ~both[1] & mark})
    p_value, test = how.test(gained, lost, name)
    old, new = (sum(many for both, many in told.items() if both[side] & mark) for side in (0, 1))
    return Shift(name, sum(told.values()), old, new, len(gained), len(lost), p_value, test)


def _turned(pairs: Pairs, wanted: AbstractSet[tuple[int, int]]) -> Part:
    """The pairs with these marks, before and after."""
    both = zip(pairs.old.forms().marks, pairs.new.forms().marks, strict=True)
    return pairs.part(compress(range(len(pairs)), map(wanted.__contains__, both)) if wanted else ())
