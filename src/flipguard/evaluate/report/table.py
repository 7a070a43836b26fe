"""Several new models against one old model: a table for text, and a page that leads to each report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flipguard.evaluate.comparison import Comparison, Proportion
from flipguard.evaluate.report import formatting
from flipguard.evaluate.report.markdown import prose
from flipguard.evaluate.report.page import drawing, fill
from flipguard.evaluate.report.svg import Axis, Interval, forest_axis, forest_row, share_axis
from flipguard.evaluate.report.text import one_line, width

_HEAD = ("method", "negative flips", "win rate", "net pp", "n")  # pp: percentage points


def render_table(rows: Sequence[tuple[str, Comparison]]) -> str:
    """One line per method, as a Markdown table that reads well on a terminal too."""
    cells = [_HEAD, *(_cells(name, comparison) for name, comparison in rows)]
    widths = [max(width(line[column]) for line in cells) for column in range(len(_HEAD))]
    rule = "|" + "|".join("-" * (size + 1) + ("-" if not column else ":") for column, size in enumerate(widths)) + "|"
    lines = [_line(line, widths) for line in cells]
    return "\n".join([lines[0], rule, *lines[1:]]) + "\n"


def _cells(name: str, comparison: Comparison) -> tuple[str, ...]:
    shares = (formatting.rate(comparison.nfr), formatting.rate(comparison.win_rate))
    net = formatting.points(comparison.net.value).removesuffix(" points")
    return (prose(one_line(name, 60)), *shares, net, formatting.count(comparison.n))


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Names to the left, numbers to the right."""
    padded = [
        " " * (size - width(cell)) + cell if column else cell + " " * (size - width(cell))
        for column, (cell, size) in enumerate(zip(cells, widths, strict=True))
    ]
    return f"| {' | '.join(padded)} |"


def index_html(
    rows: Sequence[tuple[str, Comparison]],
    *,
    title: str = "What alignment broke, method by method",
    notes: Sequence[str] = (),
    links: Mapping[str, str] | None = None,
    tests: Sequence[Mapping[str, Any]] = (),
) -> str:
    """An overview of several comparisons.

    Args:
        rows: name of the method and its Comparison, in the order they shall stand.
        title: the heading.
        notes: paragraphs of plain text below the table.
        links: name of the method → relative address of its report.
        tests: paired tests as rows with the same keys, which become the head; p-values under a key that starts with p.
    """
    nfr_axis = share_axis([comparison.nfr.high for _, comparison in rows])
    win_axis = share_axis([comparison.win_rate.high for _, comparison in rows])
    places = {name: address for name, address in (links or {}).items() if _relative(address)}
    return fill(
        "index.html.jinja",
        title=title,
        old=rows[0][1].old if rows else "",
        rows=[_method(name, comparison, (nfr_axis, win_axis), places.get(name)) for name, comparison in rows],
        level=formatting.level(rows[0][1].alpha if rows else 0.05),
        decided=any(comparison.verdict != "none" for _, comparison in rows),
        axes=[drawing(forest_axis(axis)) for axis in (nfr_axis, win_axis)],
        notes=notes,
        head=[formatting.label(str(key)) for key in tests[0]] if tests else [],
        tests=[[_cell(str(key), value) for key, value in row.items()] for row in tests],
    )


def _relative(address: str) -> bool:
    """Whether an address stays within the folder: no scheme, no host, no way up."""
    return not (":" in address or address.startswith(("/", "\\")) or ".." in address.split("/"))


def _method(name: str, comparison: Comparison, axes: tuple[Axis, Axis], link: str | None) -> dict[str, Any]:
    """One row: both rates drawn and written."""
    shares = (("neg", "negative flip rate", comparison.nfr), ("pos", "win rate", comparison.win_rate))
    drawn = [_drawn(tone, what, share, axis) for (tone, what, share), axis in zip(shares, axes, strict=True)]
    return {"name": name, "c": comparison, "link": link, "drawn": drawn}


def _drawn(tone: str, what: str, share: Proportion, axis: Axis) -> str:
    interval = Interval(share.value, share.low, share.high)
    return drawing(forest_row(interval, axis, reference=None, tone=tone, title=f"{what} {formatting.rate(share)}"))


def _cell(key: str, value: object) -> str:
    """A cell of the table of tests."""
    if isinstance(value, float) and key.lower().startswith("p"):
        return formatting.p_value(value)
    return formatting.plain(value)
