"""What was measured beyond the rates, as rows of names and values: clusters, orders, floor, rival, change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flipguard.evaluate.comparison import Comparison, Outcome, Proportion
from flipguard.evaluate.report import formatting

if TYPE_CHECKING:
    from flipguard.evaluate.bootstrap import Clustered
    from flipguard.evaluate.change import Change
    from flipguard.evaluate.health import Health
    from flipguard.evaluate.orders import Orders
    from flipguard.evaluate.rivals import Rival

PREFERRED = {"old": "old better", "tie": "a tie", "new": "new better"}
AGREED: dict[str, Outcome] = {"old": "negative_flip", "tie": "tie", "new": "positive_flip"}

Row = tuple[str, str]
Table = tuple[str, tuple[Row, ...]]


def tables(comparison: Comparison) -> Iterator[Table]:
    """A title and rows for each part that was measured; both may hold names from the data."""
    if comparison.clustered is not None:
        yield _clustered(comparison.clustered)
    if comparison.rival is not None:
        yield _rival(comparison.rival)
    if comparison.change is not None:
        yield _change(comparison.change)


def of_the_judge(comparison: Comparison) -> Iterator[Table]:
    """The same for what says how far the judge can be trusted."""
    if comparison.orders is not None:
        yield _orders(comparison.orders)
    if comparison.floor is not None:
        yield from _floor(comparison.floor)
    if comparison.health is not None:
        yield _health(comparison.health)


@dataclass(frozen=True, slots=True)
class Grid:
    """Counts of pairs by two words, one of each of `sides` (rows, columns), and what became of those in each cell."""

    title: str
    sides: tuple[str, str]
    head: tuple[str, ...]
    rows: tuple[tuple[str, tuple[tuple[Outcome, str], ...]], ...]
    note: str


def grid_of_orders(comparison: Comparison) -> Grid | None:
    """What the judge said in one order against what it said in the other, where it was asked in both."""
    told = comparison.orders
    if told is None:
        return None
    rows = tuple(
        (name, tuple((_became(one, other), formatting.count(told.table[one][other])) for other in PREFERRED))
        for one, name in PREFERRED.items()
    )
    torn = f" Torn within one order, and not in the table: {formatting.count(told.torn)}." if told.torn else ""
    return Grid(
        "Which answer the judge called better, in one order and in the other",
        ("old answer first", "new answer first"),
        tuple(PREFERRED.values()),
        rows,
        f"Where the orders disagree the pair is inconsistent.{torn}",
    )


def _became(one: str, other: str) -> Outcome:
    return AGREED[one] if one == other else "inconsistent"


def _share(share: Proportion) -> str:
    return f"{formatting.rate(share)}, {formatting.ratio(share)}"


def _clustered(told: Clustered) -> Table:
    ends = f"at least {formatting.percent(told.nfr.lower)}, at most {formatting.percent(told.nfr.upper)}"
    rows = [
        ("negative flips, each bound alone", ends),
        ("pairs in a cluster", f"up to {formatting.count(told.largest)}"),
    ]
    if told.design_effect is not None:
        rows.append(("variance", f"{formatting.score(told.design_effect)} times that of independent pairs"))
    count = formatting.count
    return f"Pairs share {count(told.clusters)} clusters, resampled {count(told.draws)} times", tuple(rows)


def _orders(told: Orders) -> Table:
    count = formatting.count
    place = f"{count(told.first_place)} for the first, {count(told.second_place)} for the second"
    rows = (
        ("worse in both orders", _share(told.both)),
        ("worse in either order", _share(told.either)),
        ("worse, old answer shown first", _share(told.old_first)),
        ("worse, new answer shown first", _share(told.new_first)),
        ("orders disagree", _share(told.inconsistent)),
        ("place decides", f"{place}; {formatting.tested(told.p_value, told.test)}"),
        ("won by the first place", f"{count(told.first_wins)} of {count(told.decided)} verdicts"),
    )
    return f"The judge in either order, {count(told.n)} pairs", rows


def _health(told: Health) -> Table:
    shares = (("identical answers graded apart", told.identical), ("another word when asked again", told.retest))
    return "What a sound judge never does", tuple((name, _share(share)) for name, share in shares if share is not None)


def _floor(told: Mapping[str, Any]) -> Iterator[Table]:
    """Rows of a floor in full; one that holds less than `compare` writes is left to the sentence beside the rate."""
    nfr, excess = told.get("nfr"), told.get("excess")
    if not isinstance(nfr, Mapping) or not isinstance(excess, Mapping) or "only_floor" not in excess:
        return
    ends = formatting.between(excess["low"], excess["high"])
    count = formatting.count
    only = f"{count(excess['only_update'])} only by the update, {count(excess['only_floor'])} only by chance"
    yield (
        "The old model against itself",
        (
            ("negative flips", f"{formatting.percent(nfr['value'])} [{formatting.interval(nfr['low'], nfr['high'])}]"),
            ("the update adds", f"{formatting.points(excess['value'])} [{ends}]"),
            ("pairs in common", f"{count(excess['n'])}: {only}"),
        ),
    )


def _rival(told: Rival) -> Table:
    count = formatting.count
    broken = f"{count(told.only_this)} only by this one, {count(told.only_other)} only by the other"
    rows = (
        ("negative flips of the other", _share(told.nfr)),
        ("broken", f"{broken}, of {count(told.n)}; {formatting.tested(told.p_value, told.test)}"),
    )
    return f"Against another candidate: {told.name}", rows


def _change(told: Change) -> Table:
    ends = "" if told.low is None or told.high is None else f" [{_number(told.low)} to {_number(told.high)}]"
    how = f"{formatting.count(told.draws)} random signs" if told.draws else "exact"
    rows = (
        ("mean, new minus old", f"{_number(told.mean)}{ends}"),
        ("paired permutation test", f"{formatting.equation(told.p_value)}, {how}"),
    )
    return f"Scores of {formatting.count(told.n)} pairs", rows


def _number(value: float) -> str:
    return formatting.signed(value)
