"""What stands beside the rates, as rows of names and values that every view prints in its own way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from flipguard.evaluate.comparison import Comparison, Decision, Proportion
from flipguard.evaluate.report import formatting, uncertainty
from flipguard.evaluate.report.text import one_line

if TYPE_CHECKING:
    from flipguard.evaluate.agreement import Agreement, Coefficient
    from flipguard.evaluate.labels import Corrected, Labels
    from flipguard.evaluate.refusals import Refusals
    from flipguard.evaluate.sequential import Sequential
    from flipguard.evaluate.shifts import Shift, Shifts

_IDS: Final = 5
_SLICES: Final = 5
_COUPLES: Final = 15
_RULES: Final = 20
_NAME: Final = 100
_WORST_FIRST: Final[tuple[Decision, ...]] = ("invalid", "fail", "inconclusive", "none", "pass")

Row = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Section:
    """A title and rows of name and value; both may hold names from the data, so a view escapes them."""

    title: str
    rows: tuple[Row, ...]


def rules(comparison: Comparison) -> Section | None:
    """The rules of the policy, the worst first; they stand where the verdict is."""
    worst = sorted(comparison.rules, key=lambda rule: _WORST_FIRST.index(rule.verdict))
    marks, names = formatting.VERDICT_MARKS, formatting.VERDICTS
    rows = [
        (f"{marks[rule.verdict]} {one_line(rule.name, _NAME)}", f"{names[rule.verdict]}: {rule.reason}")
        for rule in worst[:_RULES]
    ]
    if len(worst) > _RULES:
        rows.append(("and", f"{formatting.count(len(worst) - _RULES)} more rules in comparison.json"))
    return Section("The rules of the policy", tuple(rows)) if rows else None


def sections(comparison: Comparison) -> list[Section]:
    """All that was measured beside the rates, in the order it is read."""
    return [*judge(comparison), *changes(comparison)]


def judge(comparison: Comparison) -> list[Section]:
    """What says how far the judge can be trusted."""
    found = [Section(title, rows) for title, rows in uncertainty.of_the_judge(comparison)]
    if comparison.agreement is not None:
        found.append(_agreement(comparison.agreement))
    if comparison.labels is not None:
        found.append(_labels(comparison.labels))
    return found


def changes(comparison: Comparison) -> list[Section]:
    """What else is known of the update."""
    found = [Section(title, rows) for title, rows in uncertainty.tables(comparison)]
    if comparison.sequential is not None:
        found.append(_sequential(comparison.sequential))
    if comparison.refusals is not None:
        found.append(_refusals(comparison.refusals))
    if comparison.shifts is not None:
        found.append(_shifts(comparison.shifts))
    return found


def unknown_of_the_judge(comparison: Comparison) -> str:
    """Which of the usual tests of a judge the files do not allow, in one sentence; empty where they allow all."""
    health = comparison.health
    tests = {
        "identical answers": health is not None and health.identical is not None,
        "the same question twice": health is not None and health.retest is not None,
        "both orders": comparison.orders is not None,
        "the old model against itself (--floor)": comparison.floor is not None,
        "other judges (--also)": comparison.agreement is not None,
        "human labels (--labels)": comparison.labels is not None,
    }
    missing = [name for name, known in tests.items() if not known]
    return f"Not in these files: {', '.join(missing)}, planted regressions."


def _share(share: Proportion) -> str:
    return f"{formatting.rate(share)}, {formatting.ratio(share)}"


def _sequential(course: Sequential) -> Section:
    said = {"pass": "pass", "fail": "fail", "continue": "continue: judge more"}[course.verdict]
    when = "" if course.decided_at is None else f", decided at pair {formatting.count(course.decided_at)}"
    flips = f"{formatting.count(course.k)} of {formatting.count(course.n)} until then"
    rows = [
        ("verdict", said + when),
        ("negative flips", flips),
        (f"against {formatting.exact(course.limit)} or more", formatting.score(course.against_high)),
        (f"against {formatting.exact(course.limit)} or less", formatting.score(course.against_low)),
        ("an account decides at", formatting.score(1 / course.alpha)),
    ]
    return Section("Looking after every pair, in random order", tuple(rows))


def _agreement(agreement: Agreement) -> Section:
    rows = [(f"negative flips by {judge.name}", _share(judge.nfr)) for judge in agreement.judges]
    rows.append(("all agree", _share(agreement.unanimous)))
    rows.append(("Krippendorff's alpha", _coefficient(agreement.krippendorff)))
    rows += [
        (f"{couple.first} and {couple.second}", f"agree in {_share(couple.agreed)}; kappa {_coefficient(couple.kappa)}")
        for couple in agreement.couples[:_COUPLES]
    ]
    if len(agreement.couples) > _COUPLES:
        rows.append(("and", f"{formatting.count(len(agreement.couples) - _COUPLES)} more couples in comparison.json"))
    return Section("Judges side by side", tuple(rows))


def _coefficient(coefficient: Coefficient | None) -> str:
    if coefficient is None:
        return formatting.NOTHING
    value, low, high = (
        f"{end:.2f}".replace("-", "−") for end in (coefficient.value, coefficient.low, coefficient.high)
    )
    return f"{value} [{low} to {high}]"


def _labels(labels: Labels) -> Section:
    rows = [
        ("negative flips, corrected", f"{_corrected(labels.nfr)}, {labels.method}"),
        ("negative flips, as judged", _share(labels.judged)),
        ("sensitivity of the judge", _share(labels.sensitivity)),
        ("specificity of the judge", _share(labels.specificity)),
        ("flips missed, invented", f"{formatting.count(labels.missed)}, {formatting.count(labels.invented)}"),
    ]
    if labels.rogan_gladen is not None:
        rows.insert(2, ("by Rogan and Gladen", _corrected(labels.rogan_gladen)))
    if labels.unused:
        rows.append(("labels without a valid pair", formatting.count(labels.unused)))
    return Section(f"The judge against {formatting.count(labels.n)} human labels, drawn at random", tuple(rows))


def _corrected(rate: Corrected) -> str:
    return f"{formatting.percent(rate.value)} [{formatting.interval(rate.low, rate.high)}]"


def _refusals(refusals: Refusals) -> Section:
    now, no_more = refusals.refuses_now, refusals.answers_now
    rows = [
        ("answered before, refuses now", _share(now) + _ids(refusals.refuses_now_ids, now.k)),
        ("refused before, answers now", _share(no_more) + _ids(refusals.answers_now_ids, no_more.k)),
        ("refusals", f"{_counts(refusals.old, refusals.new)}, {formatting.tested(refusals.p_value, refusals.test)}"),
    ]
    worst = sorted((part for part in refusals.slices if part.refuses_now.k), key=lambda part: -part.refuses_now.k)
    rows += [(f"refuses now in {part.name}", _share(part.refuses_now)) for part in worst[:_SLICES]]
    if len(worst) > _SLICES:
        rows.append(("and", f"{formatting.count(len(worst) - _SLICES)} more categories in comparison.json"))
    return Section(f"Refusals in {formatting.count(refusals.n)} pairs of answers", tuple(rows))


def _ids(ids: Sequence[str | int], total: int) -> str:
    """The first few of `total` ids."""
    if not total:
        return ""
    more = ", …" if total > _IDS else ""
    return f": {', '.join(str(identifier) for identifier in ids[:_IDS])}{more}"


def _counts(old: int, new: int) -> str:
    return f"{formatting.count(old)} → {formatting.count(new)}"


def _shifts(shifts: Shifts) -> Section:
    return Section("Form of the answers, old → new", (*_lengths(shifts), *(_kind(kind) for kind in shifts.kinds)))


def _lengths(shifts: Shifts) -> Iterator[Row]:
    lengths = shifts.lengths
    if lengths is None:
        return
    yield "median characters", f"{formatting.score(lengths.old_median)} → {formatting.score(lengths.new_median)}"
    yield "mean characters", f"{formatting.score(lengths.old_mean)} → {formatting.score(lengths.new_mean)}"
    changed = f"{formatting.count(lengths.longer)}, {formatting.count(lengths.shorter)}"
    yield (
        "longer, shorter",
        f"{changed} of {formatting.count(lengths.n)}; {formatting.tested(lengths.p_value, lengths.test)}",
    )
    if lengths.nfr_longer.n:
        yield "negative flips if longer", _share(lengths.nfr_longer)
    if lengths.nfr_shorter.n:
        yield "negative flips if shorter", _share(lengths.nfr_shorter)


def _kind(kind: Shift) -> Row:
    changed = f"{formatting.count(kind.gained)} gained, {formatting.count(kind.lost)} lost"
    value = f"{_counts(kind.old, kind.new)} of {formatting.count(kind.n)}"
    return kind.name, f"{value}; {changed}, {formatting.tested(kind.p_value, kind.test)}"
