"""The rules of a policy about how far answers fell: by bounds where there are any, a worst flip as it was seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from flipguard.evaluate.comparison import Comparison, Decision, Rule
from flipguard.evaluate.stats import upper_bound

_NAMES = {
    "mean": "mean over all pairs",
    "mean_flip": "mean flip",
    "p90": "90 % quantile of flips",
    "max": "worst flip",
}


def severity_rules(limits: Mapping[str, float], comparison: Comparison) -> Iterator[Rule]:
    """One rule per limit, in units of the score.

    A rule passes where the one-sided upper bound is within its limit, fails where the lower bound is above it, and is
    inconclusive between. Nothing that falls is within any limit. No bound can hold the worst flip of all that might be
    asked: it is held as it was seen, and the reason says how many prompts may fall further.
    """
    for field, limit in limits.items():
        name, told = f"severity {field}", comparison.severity
        if told is None:
            reason = "How far answers fell is not known: there is no valid pair with scores."
            yield Rule(name, "invalid", reason, None, None, limit)
        elif told[field] is None:
            yield Rule(name, "pass", f"No score fell beyond the margin ({_NAMES[field]}).", 0.0, None, limit)
        elif field == "max":
            yield _worst(float(told[field]), limit, comparison)
        else:
            yield _bounded(field, told, limit, comparison.alpha)


def _worst(observed: float, limit: float, comparison: Comparison) -> Rule:
    fell = f"The worst score fell beyond the margin by {observed:.6g}"
    if observed > limit:
        return Rule("severity max", "fail", f"{fell}, above the limit of {limit:.6g}.", observed, None, limit)
    alone = comparison.n if comparison.clustered is None else comparison.clustered.clusters
    share = 100.0 * upper_bound(0, alone, comparison.alpha)
    more = f"with {_sure(comparison.alpha)} at most {share:.3g} % of prompts fall further"
    return Rule("severity max", "pass", f"{fell}, within the limit of {limit:.6g}; {more}.", observed, None, limit)


def _bounded(field: str, told: Mapping[str, Any], limit: float, alpha: float) -> Rule:
    name, observed, bounds = f"severity {field}", float(told[field]), (told["bounds"] or {}).get(field)
    if bounds is None:
        reason = f"How far answers fell ({_NAMES[field]}) has no bound: a score is infinite."
        return Rule(name, "fail" if observed > limit else "inconclusive", reason, observed, None, limit)
    lower, upper = bounds["lower"], bounds["upper"]
    if upper <= limit:
        verdict: Decision = "pass"
        words = f"at most {upper:.6g}, within the limit of {limit:.6g}"
    elif lower > limit:
        verdict, words = "fail", f"at least {lower:.6g}, above the limit of {limit:.6g}"
    else:
        verdict = "inconclusive"
        words = f"at least {lower:.6g} and at most {upper:.6g}, and the limit of {limit:.6g} lies between"
    reason = f"Scores fell beyond the margin by {observed:.6g} ({_NAMES[field]}); with {_sure(alpha)} {words}."
    return Rule(name, verdict, reason, observed, upper, limit)


def _sure(alpha: float) -> str:
    return f"{100.0 * (1.0 - alpha):.4g} % confidence"
