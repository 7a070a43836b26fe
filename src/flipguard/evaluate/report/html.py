"""The report a person reads: one HTML file that works from disk, without a network and without JavaScript."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import compress
from typing import Any

from flipguard.evaluate.comparison import Comparison, Outcome, Pair, Proportion, Slice
from flipguard.evaluate.pairs import Pairs
from flipguard.evaluate.report import formatting
from flipguard.evaluate.report.beside import changes, judge, rules, unknown_of_the_judge
from flipguard.evaluate.report.flips import browse, worst_slices
from flipguard.evaluate.report.page import drawing, fill
from flipguard.evaluate.report.scatter import Point, repeats, scatter, thinned
from flipguard.evaluate.report.svg import Interval, forest_axis, forest_row, share_axis, stacked, strip
from flipguard.evaluate.report.uncertainty import grid_of_orders

_TOLD = ("command", "notes", "margin", "alpha")  # what of the provenance stands elsewhere on the page
_MOST_SLICES = 200
_LOOKED_AT = 50_000  # pairs from which the drawn ones are taken
_LARGEST = 1e300  # beyond, an axis has no round values left
_OF_BOUNDS = ("bounds", "worst", "draws")
_SEVERITY = {
    "mean": "Mean over all pairs",
    "mean_flip": "Mean flip",
    "median": "Median flip",
    "p90": "90 % of flips within",
    "max": "Worst flip",
}


def render(comparison: Comparison, pairs: Sequence[Pair]) -> str:
    """The whole report as one page; every negative flip is in it, or a note says how many are not."""
    slices = worst_slices(comparison.slices)
    browser = browse(pairs, [part.name for part in slices])
    return fill(
        "report.html.jinja",
        title=f"{comparison.old} → {comparison.new}",
        c=comparison,
        figures=_figures(comparison),
        strip=_strip(comparison),
        legend=_legend(comparison),
        outcomes=_outcomes(comparison),
        matrix=_matrix(comparison),
        scatter=None if comparison.nfr_given_correct else _scatter(comparison, pairs),
        slices=_forest(comparison, slices),
        browser=browser,
        rules=rules(comparison),
        judge=judge(comparison),
        orders=grid_of_orders(comparison),
        unknown=unknown_of_the_judge(comparison),
        beside=changes(comparison),
        slice_names=[part.name for part in slices],
        severe=comparison.nfr_given_correct is None and any(card.moved for card in browser.cards),
        severity=_severity(comparison.severity),
        floor=_floor_sentence(comparison),
        provenance=_table({key: value for key, value in comparison.provenance.items() if key not in _TOLD}),
    )


def interval(proportion: Proportion) -> Interval:
    """A proportion as something to draw."""
    return Interval(proportion.value, proportion.low, proportion.high)


def limit_of(comparison: Comparison) -> float | None:
    """The NFR limit the verdict was held against, where there is one."""
    limit = comparison.provenance.get("max_nfr")
    return float(limit) if isinstance(limit, int | float) else None


def _figures(comparison: Comparison) -> list[dict[str, Any]]:
    """The numbers that stand beside the verdict."""
    nfr, wins, net = comparison.nfr, comparison.win_rate, comparison.net
    level = formatting.level(comparison.alpha)
    figures = [
        _figure("neg", "Negative flip rate", nfr, ("got worse", level)),
        _figure("pos", "Win rate", wins, ("got better", level)),
    ]
    if net.value is not None:
        test = "exact sign test" if net.test == "exact McNemar" else "sign test of whole clusters"
        notes = ["win rate minus negative flip rate", f"{level} interval {formatting.between(net.low, net.high)}"]
        notes.append(f"{test}, {formatting.equation(net.p_value)}")
        notes += [" ".join(averages)] if (averages := formatting.means(comparison)) else []
        figures.append({"tone": "net", "name": "Net change", "value": formatting.points(net.value), "notes": notes})
    return figures


def _figure(tone: str, name: str, share: Proportion, words: tuple[str, str]) -> dict[str, Any]:
    what, level = words
    notes = [f"{formatting.ratio(share)} {what}", f"{level} interval {formatting.interval(share.low, share.high)}"]
    return {"tone": tone, "name": name, "value": formatting.percent(share.value), "notes": notes}


def _floor(comparison: Comparison) -> Interval | None:
    """The NFR of the old model against itself, where it was measured."""
    share = (comparison.floor or {}).get("nfr")
    if not isinstance(share, Mapping) or not isinstance(share.get("value"), float):
        return None
    return Interval(share["value"], float(share.get("low", share["value"])), float(share.get("high", share["value"])))


def _floor_sentence(comparison: Comparison) -> str:
    """The floor in words, with what the update adds to it."""
    floor = _floor(comparison)
    if floor is None:
        return ""
    share = f"{formatting.percent(floor.value)} [{formatting.interval(floor.low, floor.high)}]"
    sentence = f"Sampled twice and judged by the same rule, the old model got worse than itself in {share}."
    excess = (comparison.floor or {}).get("excess")
    if not isinstance(excess, Mapping):
        return sentence
    ends = formatting.between(excess.get("low"), excess.get("high"))
    return f"{sentence} The update adds {formatting.points(excess.get('value'))} [{ends}]."


def _severity(severity: Mapping[str, Any] | None) -> list[tuple[str, str, str]]:
    """How far scores fell: names for the usual keys, values, and an interval where there is one."""
    told = severity or {}
    bounds = told.get("bounds") or {}
    rows = _table({name: value for name, value in told.items() if name not in _OF_BOUNDS}, names=False)
    return [(_SEVERITY.get(name, name), value, _ends(bounds.get(name))) for name, value in rows]


def _ends(bounds: Mapping[str, Any] | None) -> str:
    return "" if bounds is None else f"{formatting.score(bounds['low'])} to {formatting.score(bounds['high'])}"


def _strip(comparison: Comparison) -> str:
    nfr = comparison.nfr
    limit = limit_of(comparison)
    level = formatting.level(comparison.alpha)
    bound = f"one-sided {level} upper bound {formatting.percent(comparison.upper)}"
    title = f"Negative flip rate {formatting.rate(nfr)}, {bound}"
    title += "" if limit is None else f", limit {formatting.exact(limit)}"
    return drawing(strip(interval(nfr), upper=comparison.upper, limit=limit, floor=_floor(comparison), title=title))


def _legend(comparison: Comparison) -> list[tuple[str, str]]:
    """What is drawn on the strip, in words."""
    nfr, level = comparison.nfr, formatting.level(comparison.alpha)
    legend = [
        ("dot", f"observed {formatting.percent(nfr.value)}"),
        ("interval", f"{level} interval {formatting.interval(nfr.low, nfr.high)}"),
        ("bound", f"upper bound {formatting.percent(comparison.upper)} (one-sided {level})"),
    ]
    limit, floor = limit_of(comparison), _floor(comparison)
    if limit is not None:
        legend.append(("limit", f"limit {formatting.exact(limit)}"))
    if floor is not None:
        legend.append(("floor", f"old model against itself {formatting.percent(floor.value)}"))
    return legend


def _outcomes(comparison: Comparison) -> dict[str, Any]:
    """Every valid pair falls into one of these."""
    counts: dict[Outcome, int] = {
        "negative_flip": comparison.negative_flips,
        "tie": comparison.ties,
        "inconsistent": comparison.inconsistent,
        "positive_flip": comparison.positive_flips,
    }
    n = max(comparison.n, 1)
    if not comparison.inconsistent:
        del counts["inconsistent"]
    title = ", ".join(f"{formatting.OUTCOMES[name]} {number}" for name, number in counts.items())
    bar = stacked([(name, number / n) for name, number in counts.items()], title)
    rows = [{"name": name, "count": number, "share": formatting.percent(number / n)} for name, number in counts.items()]
    return {"rows": rows, "bar": drawing(bar)}


def _matrix(comparison: Comparison) -> dict[str, int] | None:
    """Right and wrong, before and after; only where answers are right or wrong."""
    right = comparison.nfr_given_correct
    if right is None:
        return None
    both = right.n - comparison.negative_flips
    return {
        "both": both,
        "lost": comparison.negative_flips,
        "won": comparison.positive_flips,
        "neither": comparison.ties - both,
    }


def _scatter(comparison: Comparison, pairs: Sequence[Pair]) -> dict[str, Any] | None:
    """Old against new score; None where the pairs carry no scores, or some too large to draw."""
    table, every = Pairs.of(pairs), max(1, len(pairs) // _LOOKED_AT)
    points = _points(table, every)
    if every > 1 and repeats(points):
        points = _points(table, 1)
    if not points:
        return None
    drawn = thinned(points)
    if any(max(abs(old), abs(new)) > _LARGEST for old, new, _ in drawn):
        return None
    title = f"New score against old score of {formatting.count(len(drawn))} prompts"
    figure = scatter(drawn, margin=comparison.margin, labels=("old score", "new score"), title=title)
    changes = compress(table.changes(), map("invalid".__ne__, table.outcomes))
    drawable = sum(by is not None and math.isfinite(by) for by in changes)
    return {"svg": drawing(figure), "drawn": len(drawn), "all": drawable, "repeats": repeats(points)}


def _points(table: Pairs, every: int) -> list[Point]:
    """One of `every` so many pairs, where it can be drawn."""
    columns = (table.old.scores[::every], table.new.scores[::every], table.outcomes[::every])
    return [
        (old, new, outcome)
        for old, new, outcome in zip(*columns, strict=True)
        if old is not None and new is not None and outcome != "invalid" and math.isfinite(old) and math.isfinite(new)
    ]


def _forest(comparison: Comparison, slices: Sequence[Slice]) -> dict[str, Any] | None:
    """A table whose rows carry their own intervals, all on one axis."""
    if not slices:
        return None
    axis = share_axis([part.nfr.high for part in slices if part.n] + [comparison.nfr.high])
    rows = []
    for part in slices[:_MOST_SLICES]:
        title = f"negative flip rate {formatting.rate(part.nfr)}"
        row = forest_row(interval(part.nfr), axis, reference=comparison.nfr.value, tone="neg", title=title)
        rows.append({"part": part, "svg": drawing(row)})
    return {"axis": drawing(forest_axis(axis)), "rows": rows, "more": len(slices) - len(rows)}


def _table(values: Mapping[str, Any] | None, *, names: bool = True) -> list[tuple[str, str]]:
    """A free-form mapping as rows of text; a mapping or list of mappings within becomes rows of its own."""
    rows: list[tuple[str, str]] = []
    for key, value in (values or {}).items():
        if value is None or value in ("", [], (), {}):
            continue
        name = formatting.label(str(key)) if names else str(key)
        if isinstance(value, Mapping):
            rows += [(f"{name}: {part}", formatting.plain(item)) for part, item in value.items() if item != []]
        elif isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
            rows += [_listed(f"{name} {number}", item) for number, item in enumerate(value, 1)]
        else:
            rows.append((name, formatting.plain(value)))
    return rows


def _listed(name: str, item: Any) -> tuple[str, str]:
    """One of several mappings: named by its path where it has one, without what is empty."""
    if not isinstance(item, Mapping):
        return name, formatting.plain(item)
    told = {key: value for key, value in item.items() if key != "path" and value not in (None, "", [], {})}
    words = ", ".join(f"{key} {formatting.plain(value).removeprefix(': ')}" for key, value in told.items())
    return (str(item["path"]), words) if "path" in item else (name, words)
