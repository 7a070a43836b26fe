"""Which flips a report shows and how much of each, worst first: chosen by size alone, the same every time."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import nlargest, nsmallest
from typing import Final

from flipguard.evaluate.comparison import Answer, Outcome, Pair, Slice
from flipguard.evaluate.pairs import Pairs
from flipguard.evaluate.report import formatting
from flipguard.evaluate.report.text import anchor, clip, one_line
from flipguard.evaluate.report.words import Part, marked

SHOWN: Final[tuple[Outcome, ...]] = ("negative_flip", "positive_flip", "inconsistent", "invalid")
_MOST: Final[Mapping[Outcome, int]] = {
    "negative_flip": 5_000,
    "positive_flip": 1_000,
    "inconsistent": 250,
    "invalid": 250,
}
_OF_MORE: Final[Mapping[Outcome, int]] = {**_MOST, "negative_flip": 2_000, "positive_flip": 500}
_BYTES: Final = 5_800_000  # of all flips in one page
_FRAME: Final = 880  # bytes of markup around one flip, and of its gist
_MARK_BYTES: Final = 120_000  # of all <mark> tags
_LIMITS: Final = (50_000, 20_000, 10_000, 5_000, 2_000, 1_000, 500, 250, 120, 60, 30)
_GIST: Final = 160
_ERROR: Final = 2_000
_WORK: Final = 40_000  # letters compared here; the page's script compares the other answers when they are opened


@dataclass(frozen=True, slots=True)
class Side:
    """One answer as it is shown."""

    name: str
    parts: Sequence[Part]
    cut: int
    score: str
    note: str
    error: str | None


@dataclass(frozen=True, slots=True)
class Card:
    """One pair as it is shown."""

    anchor: str
    id: str
    repeat: int
    outcome: Outcome
    gist: str
    prompt: str | None
    prompt_cut: int
    change: str
    moved: str
    categories: Sequence[str]
    slices: str
    old: Side
    new: Side
    verdicts: Sequence[tuple[str, str, str]]
    marked: bool


@dataclass(frozen=True, slots=True)
class Browser:
    """The cards, and what had to be left out of them."""

    cards: Sequence[Card]
    total: Mapping[Outcome, int]
    left_out: Mapping[Outcome, int]
    limit: int
    cut: int
    unmarked: int


_SIGNED = {"negative_flip": nsmallest, "positive_flip": nlargest}  # all changes of one sign


def worst_first(pairs: Pairs, outcome: Outcome, most: int) -> list[Pair]:
    """The `most` pairs of one outcome that moved furthest; those without scores come last, in their order."""
    changes, rows = pairs.changes(), pairs.where(outcome)
    if isinstance(changes, array) and outcome in _SIGNED:
        worst = _SIGNED[outcome](most, rows, key=changes.__getitem__)
    else:
        worst = nsmallest(most, rows, key=lambda row: (changes[row] is None, -abs(changes[row] or 0.0)))
    return [pairs[row] for row in worst]


def worst_slices(slices: Iterable[Slice]) -> list[Slice]:
    """Categories by their negative flip rate, those without a valid pair last."""
    return sorted(slices, key=lambda part: (part.nfr.value is None, -(part.nfr.value or 0.0), part.name))


def browse(pairs: Sequence[Pair], slices: Sequence[str]) -> Browser:
    """The pairs worth reading, as cards that fit in one page."""
    table = Pairs.of(pairs)
    total = Counter(table.outcomes)
    chosen = [pair for outcome in SHOWN for pair in worst_first(table, outcome, _most(outcome, total[outcome]))]
    limit = _limit(chosen)
    maker = _Maker(limit=limit, slices={name: str(index) for index, name in enumerate(slices)})
    cards = [maker.card(pair) for pair in chosen]
    shown = Counter(card.outcome for card in cards)
    return Browser(
        cards=cards,
        total={outcome: total[outcome] for outcome in SHOWN},
        left_out={name: total[name] - shown[name] for name in SHOWN if total[name] > shown[name]},
        limit=limit,
        cut=maker.cut,
        unmarked=sum(not card.marked for card in cards),
    )


def _most(outcome: Outcome, there: int) -> int:
    """How many of them to show: all that may be, or of too many fewer, each with more of its text."""
    return (_MOST if there <= _MOST[outcome] else _OF_MORE)[outcome]


def _texts(pair: Pair) -> list[str]:
    """Every long text of a pair."""
    reasons = [str(verdict.get("reason") or verdict.get("raw") or "") for verdict in pair.verdicts]
    sides = [text or "" for side in (pair.old, pair.new) for text in (side.completion, side.rationale)]
    return [pair.prompt or "", *sides, *reasons]


def _weight(text: str) -> tuple[int, int]:
    """Length in letters, and in bytes once escaped."""
    size = len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
    return len(text), size + 4 * sum(map(text.count, "<>&\"'"))


def _limit(pairs: Sequence[Pair]) -> int:
    """How many letters of a text are shown, so that all flips together fit."""
    weights = [_weight(text) for pair in pairs for text in _texts(pair) if text]
    room = _BYTES - _FRAME * len(pairs) - min(_MARK_BYTES, 30 * len(weights))
    for limit in _LIMITS:
        if sum(size if length <= limit else size * limit // length for length, size in weights) <= room:
            return limit
    return _LIMITS[-1]


class _Maker:
    """Makes cards one after the other while work and bytes for marks last."""

    def __init__(self, *, limit: int, slices: Mapping[str, str]) -> None:
        self.limit = limit
        self.cut = 0
        self._slices = slices
        self._names: dict[str, int] = {}
        self._work = _WORK
        self._mark_bytes = _MARK_BYTES

    def card(self, pair: Pair) -> Card:
        """One pair, cut to the limit, its differing words marked while the work lasts."""
        prompt, prompt_cut = clip(pair.prompt or "", self.limit)
        gist = one_line(pair.prompt or "", _GIST)
        old, old_cut = clip(pair.old.completion or "", self.limit)
        new, new_cut = clip(pair.new.completion or "", self.limit)
        self.cut += bool(prompt_cut or old_cut or new_cut)
        parts = self._marked(old, new)
        old_parts, new_parts = parts or ([(old, False)], [(new, False)])
        return Card(
            anchor=self._anchor(pair),
            id=str(pair.id),
            repeat=pair.repeat,
            outcome=pair.outcome,
            gist=gist,
            prompt=prompt if prompt.strip() and prompt != gist else None,
            prompt_cut=prompt_cut,
            change="" if pair.change is None else formatting.signed(pair.change),
            moved=_moved(pair.change),
            categories=pair.categories,
            slices=" ".join(self._slices[name] for name in pair.categories if name in self._slices),
            old=_side("Old", pair.old, old_parts, old_cut),
            new=_side("New", pair.new, new_parts, new_cut),
            verdicts=[*self._rationales(pair), *map(self._verdict, pair.verdicts)],
            marked=parts is not None,
        )

    def _anchor(self, pair: Pair) -> str:
        """A name that no other card has: the ids 1 and "1" may both be there."""
        name = anchor(pair.id, pair.repeat)
        seen = self._names.setdefault(name, 0)
        self._names[name] += 1
        return f"{name}-n{seen}" if seen else name

    def _marked(self, old: str, new: str) -> tuple[list[Part], list[Part]] | None:
        """Differing words, or None once too much was compared."""
        work = len(old) + len(new)
        if not old or not new or old == new:
            return [(old, False)], [(new, False)]
        if work > self._work or self._mark_bytes <= 0:
            return None
        self._work -= work
        parts = marked(old, new)
        self._mark_bytes -= 13 * (len(parts[0]) + len(parts[1])) // 2
        return parts

    def _rationales(self, pair: Pair) -> Iterator[tuple[str, str, str]]:
        """Why each answer was graded as it was, told as a verdict is."""
        for name, side in (("old answer", pair.old), ("new answer", pair.new)):
            if side.rationale:
                reason, cut = clip(side.rationale, self.limit)
                yield "" if side.score is None else formatting.score(side.score), name, reason + ("…" if cut else "")

    def _verdict(self, verdict: Mapping[str, object]) -> tuple[str, str, str]:
        """A judge's word: the order it saw, whom it chose, why."""
        order = {"old_first": "old answer first", "new_first": "new answer first"}
        winner = {"old": "old is better", "new": "new is better", "tie": "a tie", "invalid": "no verdict"}
        reason, cut = clip(str(verdict.get("reason") or verdict.get("raw") or ""), self.limit)
        said = str(verdict.get("winner", ""))
        shown = str(verdict.get("order", ""))
        return order.get(shown, shown), winner.get(said, said), reason + ("…" if cut else "")


def _moved(change: float | None) -> str:
    """How far the score moved, as a number that JavaScript reads; 1e999 is its way to write infinity."""
    return "" if change is None else f"{abs(change):.4g}" if math.isfinite(change) else "1e999"


def _side(name: str, answer: Answer, parts: Sequence[Part], cut: int) -> Side:
    """One answer; a note where there is nothing to read."""
    text = answer.completion
    note = "The text is not in the file." if text is None else "" if text.strip() else "The answer is empty."
    return Side(
        name=name,
        parts=() if note else parts,
        cut=cut,
        score="" if answer.score is None else formatting.score(answer.score),
        note="" if answer.error else note,
        error=answer.error and clip(answer.error, _ERROR)[0],
    )
