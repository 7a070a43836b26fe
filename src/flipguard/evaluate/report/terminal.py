"""The report as `flipguard compare` prints it: at most 80 columns, and no control character from the data."""

from __future__ import annotations

import textwrap
from typing import Final

from flipguard.errors import inert
from flipguard.evaluate.comparison import Comparison, Proportion
from flipguard.evaluate.report import formatting
from flipguard.evaluate.report.beside import Section, rules, sections
from flipguard.evaluate.report.flips import worst_slices
from flipguard.evaluate.report.text import clean, fit, one_line, squeeze, width

COLUMNS: Final = 80
_SLICES: Final = 10
_NAME_AND_COUNT: Final = 36
_LABEL: Final = 33


def render(comparison: Comparison) -> str:
    """Verdict and reason, how the runs fit together, the numbers, the worst slices."""
    asked = rules(comparison)
    blocks = [_verdict(comparison), [] if asked is None else _beside(asked)]
    blocks += [_alignment(comparison), _numbers(comparison), _slices(comparison)]
    blocks += [_beside(part) for part in sections(comparison)]
    return inert("\n\n".join("\n".join(block) for block in blocks if block)) + "\n"


def _wrapped(text: str, room: int = COLUMNS) -> list[str]:
    """Lines of at most `room` columns, wide characters counted as two."""
    lines: list[str] = []
    for line in textwrap.wrap(" ".join(clean(text).split()), room):
        while width(line) > room:
            cut = next(size for size in range(len(line), 0, -1) if width(line[:size]) <= room)
            lines.append(line[:cut])
            line = line[cut:]
        lines.append(line)
    return lines


def _verdict(comparison: Comparison) -> list[str]:
    name = formatting.VERDICTS[comparison.verdict].upper()
    title = f"{formatting.VERDICT_MARKS[comparison.verdict]} {name}: "
    room = COLUMNS - width(title) - 3
    old, new = (squeeze(model, COLUMNS) for model in (comparison.old, comparison.new))
    if width(old) + width(new) > room:
        old, new = (squeeze(model, room // 2) for model in (comparison.old, comparison.new))
    return [f"{title}{old} → {new}", *_wrapped(comparison.reason)]


def _alignment(comparison: Comparison) -> list[str]:
    """Before any number can mislead."""
    side = comparison.alignment
    counts = {
        "matched": side.matched,
        "only in old": side.only_old,
        "only in new": side.only_new,
        "duplicates": side.duplicates,
        "changed prompts": side.changed_prompts,
        "invalid": comparison.invalid,
    }
    if side.changed_targets:
        counts["changed targets"] = side.changed_targets
    told = ", ".join(f"{formatting.count(number)} {name}" for name, number in counts.items())
    return _wrapped(f"{formatting.count(side.old)} old and {formatting.count(side.new)} new answers: {told}")


def _numbers(comparison: Comparison) -> list[str]:
    net = comparison.net
    held = "held against the limit" if comparison.sequential is None else "for one look only"
    bound = f"one-sided {formatting.level(comparison.alpha)}, {held}"
    lines = [
        _row("negative flips", comparison.nfr),
        f"{'  upper bound':<18}{formatting.percent(comparison.upper):<8}{bound}",
        _row("positive flips", comparison.win_rate),
    ]
    if comparison.nfr_given_correct is not None:
        lines.append(_row("lost of the right", comparison.nfr_given_correct))
    ends = formatting.between(net.low, net.high).removesuffix(" points")
    moved = f"{formatting.points(net.value)} [{ends}]"
    lines.append(f"{'net change':<18}{moved:<33}{formatting.tested(net.p_value, net.test)}")
    if averages := formatting.means(comparison):
        name, both = averages
        first, _, second = both.partition(" → ")
        wide = len(both) > COLUMNS - 18
        lines += [f"{name:<18}{first} →", f"{'':<18}{second}"] if wide else [f"{name:<18}{both}"]
    others = f"{formatting.count(comparison.ties)} ties"
    if comparison.inconsistent:
        others += f", {formatting.count(comparison.inconsistent)} inconsistent"
    return [*lines, f"{'the rest':<18}{others}"]


def _row(name: str, share: Proportion) -> str:
    """A rate with its interval and counts."""
    interval = f"[{formatting.interval(share.low, share.high)}]"
    return f"{name:<18}{formatting.percent(share.value):<8}{interval:<16}{formatting.ratio(share)}"


def _beside(part: Section) -> list[str]:
    """What else was looked at: a title, then name and value."""
    lines = [part.title]
    for name, value in part.rows:
        label = f"  {fit(name, COLUMNS - 4).rstrip()}"
        text = one_line(value, 10 * COLUMNS)
        line = f"{label}: {text}" if width(label) > _LABEL - 2 else f"{label}{' ' * (_LABEL - width(label))}{text}"
        lines += [line] if width(line) <= COLUMNS else [label, *(f"    {more}" for more in _wrapped(text, COLUMNS - 4))]
    return lines


def _slices(comparison: Comparison) -> list[str]:
    """The worst categories first."""
    slices = worst_slices(comparison.slices)
    if not slices:
        return []
    shown = [(part, formatting.ratio(part.nfr)) for part in slices[:_SLICES]]
    counts = max(len(ratio) for _, ratio in shown)
    name = _NAME_AND_COUNT - counts
    lines = [f"{'category':<{name}}{'worse':>{counts}}  {'negative flips':<23}{'better':>9}{'p (Holm)':>10}"]
    lines += [
        f"{fit(part.name, name - 1)} {ratio:>{counts}}  {formatting.rate(part.nfr):<23}"
        f"{formatting.count(part.positive_flips):>9}{formatting.p_value(part.p_adjusted):>10}"
        for part, ratio in shown
    ]
    if len(slices) > _SLICES:
        lines.append(f"and {formatting.count(len(slices) - _SLICES)} more in the report")
    return lines
