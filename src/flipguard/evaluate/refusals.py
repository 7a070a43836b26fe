"""Refusals: answered before, refuses now. A counter of its own, because no score has to fall for it.

Where the built-in detector does not fit, `--refusal-detector package.module:function` names another, from a
completion to a bool.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import compress
from operator import add
from typing import Final

from flipguard.errors import JudgeError, shown
from flipguard.evaluate.comparison import Answer, Pair, Proportion, Test
from flipguard.evaluate.forms import REFUSES, TOLD
from flipguard.evaluate.pairs import Pairs, Part
from flipguard.evaluate.sampling import INDEPENDENT, Sampling
from flipguard.records import RowId

Detector = Callable[[str], bool]

BUILT_IN = "refuses"
EXAMPLES = 20  # ids kept of each kind

UNKNOWN: Final = 4  # who refuses, of the two; else a sum of:
NEITHER, NO_MORE, NOW = 0, 1, 2
BOTH: Final = NO_MORE + NOW


@dataclass(frozen=True, slots=True)
class RefusalSlice:
    """One category: of `n` pairs, how many refuse only now, and how many only refused before."""

    name: str
    n: int
    refuses_now: Proportion
    answers_now: int


@dataclass(frozen=True, slots=True)
class Refusals:
    """Refusals before and after, over the `n` pairs with both answers at hand.

    `refuses_now` counts answered before and refused now, `answers_now` the reverse; `p_value` is that of `test` on
    the two. The ids are the first few of each.
    """

    detector: str
    n: int
    old: int
    new: int
    refuses_now: Proportion
    answers_now: Proportion
    p_value: float
    slices: tuple[RefusalSlice, ...]
    refuses_now_ids: tuple[RowId, ...]
    answers_now_ids: tuple[RowId, ...]
    test: Test = "exact McNemar"


def count(pairs: Iterable[Pair], detector: str | None = None, *, how: Sampling = INDEPENDENT) -> Refusals | None:
    """Count refusal flips over all pairs whose two answers are at hand; None where there is no such pair.

    Args:
        pairs: matched pairs; ones that could not be graded count too, an answer that failed does not.
        detector: `package.module:function` of your own, None for `refuses`.
        how: how pairs were drawn.
    """
    table = Pairs.of(pairs)
    kinds = _kinds(table) if detector is None else _kinds_by(_foreign(detector), table)
    every = range(len(kinds))
    known = Part(table, list(compress(every, map(UNKNOWN.__ne__, kinds))) if UNKNOWN in kinds else every)
    if not known:
        return None
    now, no_more = (table.part(compress(range(len(kinds)), map(wanted.__eq__, kinds))) for wanted in (NOW, NO_MORE))
    p_value, test = how.test(no_more, now, "refusals")
    return Refusals(
        detector=detector or BUILT_IN,
        n=len(known),
        old=len(no_more) + kinds.count(BOTH),
        new=len(now) + kinds.count(BOTH),
        refuses_now=how.share(now, known, "refuses now"),
        answers_now=how.share(no_more, known, "answers now"),
        p_value=p_value,
        test=test,
        slices=tuple(_slices(known, now, no_more, how)),
        refuses_now_ids=tuple(pair.id for pair in now.first(EXAMPLES)),
        answers_now_ids=tuple(pair.id for pair in no_more.first(EXAMPLES)),
    )


def _kinds(pairs: Pairs) -> bytes:
    """Of each pair, who refuses: measured when the answers were read."""
    old, new = pairs.old.forms().marks.translate(_BEFORE), pairs.new.forms().marks.translate(_AFTER)
    return bytes(map(add, old, new)).translate(_BOTH_SIDES)


def _sides(refuses: int) -> bytes:
    """What each sum of marks says of one side."""
    return bytes(refuses * bool(marks & REFUSES) if marks & TOLD else UNKNOWN for marks in range(256))


_BEFORE, _AFTER = _sides(NO_MORE), _sides(NOW)
_BOTH_SIDES = bytes(min(kind, UNKNOWN) for kind in range(256))


def _kinds_by(detector: Detector, pairs: Pairs) -> bytes:
    """The same by another detector, which must read all answers."""
    return bytes(_kind_by(detector, pairs.old.answer(row), pairs.new.answer(row)) for row in range(len(pairs)))


def _kind_by(detector: Detector, old: Answer, new: Answer) -> int:
    if old.completion is None or new.completion is None or old.error is not None or new.error is not None:
        return UNKNOWN
    before = detector(old.completion)
    after = before if new.completion == old.completion else detector(new.completion)
    return NEITHER + before * NO_MORE + after * NOW


def _slices(known: Part, now: Part, no_more: Part, how: Sampling) -> Iterator[RefusalSlice]:
    refusing, answering, none = now.by_category(), no_more.by_category(), known.table.part(())
    for name, part in sorted(known.by_category().items()):
        share = how.share(refusing.get(name, none), part, f"refuses now in {name}")
        yield RefusalSlice(name, len(part), share, len(answering.get(name, none)))


def _foreign(name: str) -> Detector:
    """The user's function, held to its contract: a completion in, a bool out."""
    from flipguard.functions import find_function, importable_here, where_it_failed

    with importable_here():
        found = find_function(name, "--refusal-detector")

    def detector(completion: str) -> bool:
        try:
            said = found.function(completion)
        except Exception as error:  # code of the user may raise anything
            place = where_it_failed(error, found.file)
            raise JudgeError(f"--refusal-detector {name}: failed on {shown(completion)}: {place}") from error
        if not isinstance(said, bool):
            raise JudgeError(f"--refusal-detector {name}: returned {shown(said)}, expected True or False.")
        return said

    return detector
