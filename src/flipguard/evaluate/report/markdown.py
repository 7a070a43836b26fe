"""The report as a pull-request comment: bounded in size, with model text that cannot break out of its block."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from typing import Final

from flipguard.evaluate.comparison import Answer, Comparison, Pair, Proportion
from flipguard.evaluate.pairs import Pairs
from flipguard.evaluate.report import formatting
from flipguard.evaluate.report.beside import rules, sections
from flipguard.evaluate.report.flips import worst_first, worst_slices
from flipguard.evaluate.report.text import clean, clip, one_line
from flipguard.evaluate.report.uncertainty import grid_of_orders

MAX_CHARACTERS: Final = 59_000  # GitHub refuses comments of more than 65,536
_FLIPS: Final = 10
_SLICES: Final = 12
_ANSWER: Final = 1_500
_PROSE: Final = 1_000
_LEFT_OUT: Final = "Tables too long for this page: {}. report.html has them."
_ACTIVE = re.compile(r"([\\`*_\[\]|~$])")
_LINKED = re.compile(r"[@#]|(?<=:)//|(?<=www)\.|(?<=GH)-", re.IGNORECASE)  # what hosts turn into links by themselves


def render(comparison: Comparison, pairs: Sequence[Pair]) -> str:
    """Verdict, numbers, the worst slices and the worst flips as Markdown."""
    head = _fitting(comparison)
    worst = worst_first(Pairs.of(pairs), "negative_flip", _FLIPS)
    flips: list[str] = []
    room = MAX_CHARACTERS - len(head)
    for pair in worst:
        block = _flip(pair)
        if len(block) > room:
            break
        room -= len(block)
        flips.append(block)
    if flips:
        total = list(Pairs.of(pairs).outcomes).count("negative_flip")
        title = f"### The {len(flips)} worst of {formatting.count(total)} negative flips"
        return "\n".join([head, title if len(flips) < total else "### Negative flips", "", *flips])
    return head


def _fitting(comparison: Comparison) -> str:
    """All but the flips, as far as it fits: names of others may be long, and grow where they are escaped."""
    parts = (_verdict, _rules, _numbers, _alignment, _slices, _orders)
    blocks = ["\n".join(block) for block in [*(part(comparison) for part in parts), *_beside(comparison)] if block]
    kept, room = list[str](), MAX_CHARACTERS - len(_LEFT_OUT) - 10
    for block in blocks:
        if len(block) < room:
            kept.append(block)
            room -= len(block) + 1
    left = len(blocks) - len(kept)
    return "\n".join([*kept, *([_LEFT_OUT.format(left), ""] if left else [])])


def prose(text: str) -> str:
    r"""Text of ours that quotes names of others: nothing in it is a mark, a link, a tag or a mention.

    >>> print(prose("a*b* <i> [t](u)"))
    a\*b\* &lt;i&gt; \[t\](u)
    """
    line = html.escape(_ACTIVE.sub(r"\\\1", one_line(text, _PROSE)), quote=False)
    return _apart(line)


def _apart(text: str) -> str:
    """Mentions, issue numbers and addresses with an invisible break, so that no host links them."""
    return _LINKED.sub(lambda match: match.group() + "\u200b", text)


def code(text: str, limit: int = 80) -> str:
    """A name as a code span, which no name can end; a bar is drawn broken, so that no table cell ends there.

    >>> code("a`b|c")
    '`` a`b¦c ``'
    """
    line = one_line(text, limit).replace("|", "¦") or " "
    ticks = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    space = " " if "`" in line else ""
    return f"{ticks}{space}{line}{space}{ticks}"


def fenced(text: str, limit: int = _ANSWER) -> str:
    """Model text as a block with a fence longer than any it contains."""
    shown, cut = clip(clean(text), limit)
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    note = f"\n… {formatting.count(cut)} more characters" if cut else ""
    return f"{fence}text\n{shown}{note}\n{fence}"


def _verdict(comparison: Comparison) -> list[str]:
    mark = {"pass": "✅", "fail": "❌", "inconclusive": "❔", "invalid": "⚠️", "none": "📏"}[comparison.verdict]
    return [
        f"## {mark} FlipGuard: {formatting.VERDICTS[comparison.verdict]}",
        "",
        f"**{prose(comparison.reason)}**",
        "",
        f"{code(comparison.old)} → {code(comparison.new)}. {formatting.EXPLANATION}",
        "",
    ]


def _rules(comparison: Comparison) -> list[str]:
    """One row per rule of the policy."""
    asked = rules(comparison)
    if asked is None:
        return []
    rows = [f"| {prose(name)} | {prose(value)} |" for name, value in asked.rows]
    return [f"| {prose(asked.title)} | |", "|---|---|", *rows, ""]


def _numbers(comparison: Comparison) -> list[str]:
    nfr, wins, net = comparison.nfr, comparison.win_rate, comparison.net
    limit, level = comparison.provenance.get("max_nfr"), formatting.level(comparison.alpha)
    shown = f"; limit {formatting.exact(limit)}" if isinstance(limit, int | float) else ""
    lines = [f"| | value | {level} interval | counts |", "|---|---:|---:|---:|", _row("**Negative flip rate**", nfr)]
    lines.append(f"| its upper bound, one-sided{shown} | {formatting.percent(comparison.upper)} | | |")
    if comparison.nfr_given_correct is not None:
        lines.append(_row("of what the old model got right", comparison.nfr_given_correct))
    lines.append(_row("Win rate", wins))
    ends, tested = formatting.between(net.low, net.high), formatting.tested(net.p_value, net.test)
    lines.append(f"| Net change | {formatting.points(net.value)} | {ends} | {tested} |")
    if averages := formatting.means(comparison):
        lines.append(f"| {averages[0].capitalize()} | {averages[1]} | | |")
    return [*lines, ""]


def _row(name: str, share: Proportion) -> str:
    interval = formatting.interval(share.low, share.high)
    return f"| {name} | {formatting.percent(share.value)} | {interval} | {formatting.ratio(share)} |"


def _alignment(comparison: Comparison) -> list[str]:
    """One line on how the runs fit together."""
    fit = comparison.alignment
    counts = {
        "matched": fit.matched,
        "only in old": fit.only_old,
        "only in new": fit.only_new,
        "duplicates": fit.duplicates,
        "changed prompts": fit.changed_prompts,
        "changed targets": fit.changed_targets,
        "invalid": comparison.invalid,
        "inconsistent": comparison.inconsistent,
    }
    told = [f"{formatting.count(number)} {name}" for name, number in counts.items() if number or name == "matched"]
    return [f"Alignment: {formatting.count(fit.old)} old, {formatting.count(fit.new)} new, {', '.join(told)}.", ""]


def _slices(comparison: Comparison) -> list[str]:
    """The worst categories first."""
    slices = worst_slices(comparison.slices)
    if not slices:
        return []
    lines = ["| category | n | negative flip rate | win rate | p (Holm) | p (BH) |", "|---|---:|---:|---:|---:|---:|"]
    lines += [
        f"| {code(part.name, 60)} | {formatting.count(part.n)} | {formatting.rate(part.nfr)} "
        f"| {formatting.percent(part.win_rate.value)} | {formatting.p_value(part.p_adjusted)} "
        f"| {formatting.p_value(part.p_discovery)} |"
        for part in slices[:_SLICES]
    ]
    if len(slices) > _SLICES:
        lines += ["", f"and {formatting.count(len(slices) - _SLICES)} more categories."]
    return [*lines, ""]


def _beside(comparison: Comparison) -> Iterator[list[str]]:
    """What else was looked at, folded: a table each."""
    for part in sections(comparison):
        rows = [f"| {prose(name)} | {prose(value)} |" for name, value in part.rows]
        title = f"<details><summary>{prose(part.title)}</summary>"
        yield [title, "", "| | |", "|---|---|", *rows, "", "</details>", ""]


def _orders(comparison: Comparison) -> list[str]:
    """What the judge said in one order against what it said in the other, folded."""
    grid = grid_of_orders(comparison)
    if grid is None:
        return []
    rows = [
        f"| **{name}** | {' | '.join(f'{formatting.OUTCOME_MARKS[became]} {number}' for became, number in cells)} |"
        for name, cells in grid.rows
    ]
    head = [f"| {grid.sides[0]} ↓, {grid.sides[1]} → | {' | '.join(grid.head)} |", "|---|---:|---:|---:|"]
    return [f"<details><summary>{grid.title}</summary>", "", *head, *rows, "", grid.note, "", "</details>", ""]


def _flip(pair: Pair) -> str:
    """One flip, folded."""
    change = "" if pair.change is None else f" {formatting.signed(pair.change)}"
    title = _apart(prose(one_line(str(pair.id), 60)))
    parts = [f"<details><summary><code>{title}</code>{change}</summary>", ""]
    if pair.prompt:
        parts += ["Prompt", "", fenced(pair.prompt, 600), ""]
    for name, answer in (("Old", pair.old), ("New", pair.new)):
        parts += [_heading(name, answer), "", fenced(_said(answer)), ""]
    return "\n".join([*parts, "</details>", ""])


def _heading(name: str, answer: Answer) -> str:
    return name if answer.score is None else f"{name}, score {formatting.score(answer.score)}"


def _said(answer: Answer) -> str:
    """What there is to show of an answer."""
    if answer.completion is not None:
        return answer.completion
    return f"error: {answer.error}" if answer.error else "(the text is not in the file)"
