"""What a pairwise judge says in one order and in the other: the bracket of the NFR, and whether place decides.

A flip counts only if both orders agree. That is the strict end of a bracket whose other end counts a flip if either
order sees one; what a judge asked once would have said lies between.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from flipguard.evaluate.comparison import Pair, Proportion, Test
from flipguard.evaluate.sampling import INDEPENDENT, Sampling

Order = Literal["old_first", "new_first"]
ORDERS: tuple[Order, Order] = ("old_first", "new_first")
WORDS = ("old", "tie", "new")
FIRST_PLACE: dict[str, tuple[str, int]] = {"old_first": ("old", 1), "new_first": ("new", -1)}


@dataclass(frozen=True, slots=True)
class Orders:
    """The `n` valid pairs that were judged in both orders, or need no judge because both answers are identical.

    `both`, `either`, `old_first`, `new_first`: share whose old answer was called better in both orders, in at least
    one, in that one. `inconsistent`: the orders disagree. `first_place` and `second_place` count pairs whose
    verdicts favour the answer shown there; `p_value` is the sign test on the two, equally likely without position
    bias. `decided` verdicts name a winner, and `first_wins` of them name the answer shown first. `table[first][second]`
    counts pairs by who was called better with the old answer shown first, and with the new one first; `torn` are the
    pairs that are not in it, because the judge said two things in one order.
    """

    n: int
    both: Proportion
    either: Proportion
    old_first: Proportion
    new_first: Proportion
    inconsistent: Proportion
    first_place: int
    second_place: int
    p_value: float
    first_wins: int
    decided: int
    test: Test
    table: dict[str, dict[str, int]]
    torn: int


def orders(pairs: Iterable[Pair], how: Sampling = INDEPENDENT) -> Orders | None:
    """Take verdicts apart by the order in which answers were shown; None where no valid pair was judged in both.

    Byte-identical answers are a tie in every order, whatever was said; the test of position still hears what was said,
    since nothing but the place tells such answers apart.
    """
    known = [pair for pair in pairs if pair.outcome != "invalid" and (_twice(pair) or _same(pair))]
    if not any(map(_twice, known)):
        return None
    old_first, new_first = ([pair for pair in known if _worse(pair, order)] for order in ORDERS)
    either = [pair for pair in known if any(_worse(pair, order) for order in ORDERS)]
    first, second = ([pair for pair in known if _twice(pair) and sign * _lean(pair) > 0] for sign in (1, -1))
    p_value, test = how.test(first, second, "place")
    said_both = Counter((_word(pair, ORDERS[0]), _word(pair, ORDERS[1])) for pair in known)
    table = {one: {other: said_both[one, other] for other in WORDS} for one in WORDS}
    said = [verdict for pair in known for verdict in pair.verdicts if verdict["winner"] in ("old", "new")]
    return Orders(
        n=len(known),
        both=how.share([pair for pair in known if pair.outcome == "negative_flip"], known, "both orders"),
        either=how.share(either, known, "either order"),
        old_first=how.share(old_first, known, "old first"),
        new_first=how.share(new_first, known, "new first"),
        inconsistent=how.share([pair for pair in known if pair.outcome == "inconsistent"], known, "inconsistent"),
        first_place=len(first),
        second_place=len(second),
        p_value=p_value,
        test=test,
        table=table,
        torn=len(known) - sum(sum(row.values()) for row in table.values()),
        first_wins=sum(verdict["winner"] == FIRST_PLACE[verdict["order"]][0] for verdict in said),
        decided=len(said),
    )


def _twice(pair: Pair) -> bool:
    return len({verdict["order"] for verdict in pair.verdicts}) == len(FIRST_PLACE)


def _same(pair: Pair) -> bool:
    return pair.old.completion is not None and pair.old.completion == pair.new.completion


def _worse(pair: Pair, order: Order) -> bool:
    """Whether all verdicts of this order prefer the old answer."""
    if _same(pair):
        return False
    return all(verdict["winner"] == "old" for verdict in pair.verdicts if verdict["order"] == order)


def _word(pair: Pair, order: Order) -> str | None:
    """What all verdicts of this order say; None where they say two things."""
    said = {verdict["winner"] for verdict in pair.verdicts if verdict["order"] == order}
    return "tie" if _same(pair) else said.pop() if len(said) == 1 else None


def _lean(pair: Pair) -> int:
    """Verdicts for the answer shown first less those for the one shown second."""
    wins = {"old": 1, "new": -1}
    return sum(wins.get(verdict["winner"], 0) * FIRST_PLACE[verdict["order"]][1] for verdict in pair.verdicts)
