"""Numbers as a reader sees them: the one place where they become text, the same in every view."""

from __future__ import annotations

import math
from collections.abc import Mapping

from flipguard.evaluate.comparison import Comparison, Decision, Outcome, Proportion, Test

NOTHING = "n/a"

VERDICTS: Mapping[Decision, str] = {
    "pass": "Pass",
    "fail": "Fail",
    "inconclusive": "Inconclusive",
    "invalid": "Invalid",
    "none": "No limit set",
}

VERDICT_MARKS: Mapping[Decision, str] = {"pass": "✓", "fail": "✗", "inconclusive": "?", "invalid": "!", "none": "·"}

OUTCOMES: Mapping[Outcome, str] = {
    "negative_flip": "negative flip",
    "positive_flip": "positive flip",
    "tie": "tie",
    "inconsistent": "inconsistent",
    "invalid": "invalid",
}

OUTCOME_MARKS: Mapping[Outcome, str] = {
    "negative_flip": "▼",
    "positive_flip": "▲",
    "tie": "●",
    "inconsistent": "◆",
    "invalid": "✕",
}

_NAMES: Mapping[str, str] = {"nfr": "NFR", "flipguard": "FlipGuard"}

EXPLANATION = (
    "A negative flip is a prompt that the old model answered well and the new model answers worse. "
    "An average hides them: a model can get better overall and still break what people relied on."
)


def count(value: int | None) -> str:
    """A count with thousands separators.

    >>> count(12345), count(None)
    ('12,345', 'n/a')
    """
    return NOTHING if value is None else f"{value:,}"


def _digits(value: float) -> str:
    """A share as the number before its percent sign; 0 and 100 only where it is exactly so."""
    share = 100 * value
    if value in (0.0, 1.0):
        return f"{share:.0f}"
    if 0 < abs(share) < 0.995:
        return f"{share:.2f}" if abs(share) >= 0.005 else "<0.01"
    return f"{share:.1f}" if share < 99.95 else ">99.9"


def percent(value: float | None) -> str:
    """A share as a percentage.

    >>> percent(0.0423), percent(0.0035), percent(0.0), percent(0.99999), percent(None)
    ('4.2 %', '0.35 %', '0 %', '>99.9 %', 'n/a')
    """
    return NOTHING if value is None else f"{_digits(value)} %"


def exact(value: float) -> str:
    """A share that somebody chose, a limit or a tick: as it is, not rounded.

    >>> exact(0.05), exact(0.0125)
    ('5 %', '1.25 %')
    """
    return f"{100 * value:.6g} %"


def level(alpha: float) -> str:
    """The confidence that leaves an error of `alpha`.

    >>> level(0.05), level(0.01)
    ('95 %', '99 %')
    """
    return exact(1 - alpha)


def interval(low: float | None, high: float | None) -> str:
    """Both ends of an interval of shares.

    >>> interval(0.031, 0.0559)
    '3.1–5.6 %'
    """
    if low is None or high is None:
        return NOTHING
    if low < 0:
        return f"{points(low)} to {points(high)}"
    return f"{_digits(low)}–{_digits(high)} %"


def rate(proportion: Proportion) -> str:
    """A proportion with its interval, for a line of text.

    >>> rate(Proportion(k=5, n=100, value=0.05, low=0.0215, high=0.1118, upper=0.1022))
    '5.0 % [2.1–11.2 %]'
    """
    if proportion.value is None:
        return NOTHING
    return f"{percent(proportion.value)} [{interval(proportion.low, proportion.high)}]"


def ratio(proportion: Proportion) -> str:
    """The counts behind a proportion.

    >>> ratio(Proportion(k=5, n=1000, value=0.005, low=0.0, high=0.1, upper=0.1))
    '5 of 1,000'
    """
    return f"{count(proportion.k)} of {count(proportion.n)}"


def points(value: float | None) -> str:
    """A difference of shares, in percentage points.

    >>> points(0.032), points(-0.5), points(0.0)
    ('+3.2 points', '−50.0 points', '0 points')
    """
    if value is None:
        return NOTHING
    return "0 points" if value == 0 else f"{signed(100 * value, '.1f')} points"


def between(low: float | None, high: float | None) -> str:
    """Both ends of an interval of differences of shares, in percentage points.

    >>> between(0.038, 0.061), between(-0.01, None)
    ('+3.8 to +6.1 points', 'n/a')
    """
    return NOTHING if low is None or high is None else f"{signed(100 * low, '.1f')} to {points(high)}"


def signed(value: float, shape: str = ".3g") -> str:
    """A number that always shows its sign, with a real minus.

    >>> signed(-0.25), signed(2.0), signed(0.0)
    ('−0.25', '+2', '0')
    """
    if value == 0:
        return "0"
    return f"{value:+{shape}}".replace("-", "−") if math.isfinite(value) else str(value)


def score(value: float | None) -> str:
    """A score, to four significant digits.

    >>> score(1.0), score(-0.73456), score(None)
    ('1', '−0.7346', 'n/a')
    """
    return NOTHING if value is None else f"{value:.4g}".replace("-", "−", 1 if value < 0 else 0)


def means(comparison: Comparison) -> tuple[str, str] | None:
    """What each model scores on average, by its name; None where the pairs carry no grades."""
    told = comparison.means
    if told is None:
        return None
    sides = ((told.old, told.old_low, told.old_high), (told.new, told.new_low, told.new_high))
    if comparison.nfr_given_correct is not None:
        return "right answers", " → ".join(f"{percent(mean)} [{interval(low, high)}]" for mean, low, high in sides)
    return "mean score", " → ".join(_mean(mean, low, high) for mean, low, high in sides)


def _mean(mean: float, low: float | None, high: float | None) -> str:
    return score(mean) + ("" if low is None else f" [{score(low)} to {score(high)}]")


def p_value(value: float | None) -> str:
    """A p-value to two digits; never a bare 0.

    >>> p_value(3.94e-36), p_value(0.0123), p_value(0.8), p_value(1.0), p_value(0.0)
    ('3.9e-36', '0.012', '0.80', '1', '<1e-300')
    """
    if value is None:
        return NOTHING
    if value < 1e-300:
        return "<1e-300"
    if value < 1e-3:
        return f"{value:.1e}"
    if value >= 0.9995:
        return "1"
    return f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def equation(value: float | None) -> str:
    """A p-value as it stands in a sentence.

    >>> equation(0.0123), equation(0.0)
    ('p = 0.012', 'p < 1e-300')
    """
    text = p_value(value)
    return f"p < {text[1:]}" if text.startswith("<") else f"p = {text}"


def tested(value: float | None, test: Test) -> str:
    """A p-value, with the test it is of where that is not the usual one.

    >>> tested(0.0123, "exact McNemar"), tested(0.0123, "signs of clusters")
    ('p = 0.012', 'p = 0.012 over clusters')
    """
    return equation(value) + (" over clusters" if test == "signs of clusters" else "")


def plain(value: object) -> str:
    """Any value of a free-form table: provenance, severity, a row of tests.

    >>> plain(0.123456), plain(True), plain(None), plain(["a", "b"]), plain({"k": 1})
    ('0.1235', 'yes', 'n/a', 'a, b', 'k: 1')
    """
    match value:
        case None:
            text = NOTHING
        case bool():
            text = "yes" if value else "no"
        case int():
            text = count(value)
        case float():
            text = score(value)
        case Mapping():
            text = ", ".join(f"{key}: {plain(item)}" for key, item in value.items())
        case list() | tuple():
            text = ", ".join(plain(item) for item in value)
        case _:
            text = str(value)
    return text


def label(key: str) -> str:
    """A key of a free-form table as words.

    >>> label("max_nfr"), label("mean_severity"), label("p_value"), label("flipguard")
    ('Max NFR', 'Mean severity', 'p value', 'FlipGuard')
    """
    words = [_NAMES.get(word, word) for word in key.replace("_", " ").split()]
    line = " ".join(words)
    return line if line.startswith("p ") else line[:1].upper() + line[1:]
