"""The verdict for continuous integration: one test case per rule, as JUnit XML."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Literal

from flipguard.evaluate.comparison import Comparison, Rule
from flipguard.evaluate.report import formatting
from flipguard.evaluate.report.text import clean

Result = Literal["passed", "failure", "error", "skipped"]


@dataclass(frozen=True, slots=True)
class _Case:
    """What became of one rule."""

    name: str
    result: Result
    message: str


def render(comparison: Comparison) -> str:
    """One suite: a case per rule of the policy; without one the rate, and the shares unmatched and not judged."""
    cases = [_ruled(rule) for rule in comparison.rules]
    cases = cases or [_nfr(comparison), _unmatched(comparison), _invalid(comparison)]
    if comparison.verdict == "invalid" and not any(case.result == "error" for case in cases):
        cases.append(_Case("comparison", "error", comparison.reason))
    failed, broken, left = (sum(case.result == kind for case in cases) for kind in ("failure", "error", "skipped"))
    name = _attribute(f"flipguard {comparison.old} → {comparison.new}")
    counts = f'tests="{len(cases)}" failures="{failed}" errors="{broken}" skipped="{left}"'
    body = "\n".join(map(_case, cases))
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<testsuites {counts}>\n"
        f'<testsuite name="{name}" {counts}>\n{body}\n</testsuite>\n</testsuites>\n'
    )


def _ruled(rule: Rule) -> _Case:
    """A rule of the policy; where the data cannot tell it is skipped, where they cannot be trusted an error."""
    results: dict[str, Result] = {"pass": "passed", "fail": "failure", "invalid": "error"}
    return _Case(rule.name, results.get(rule.verdict, "skipped"), rule.reason)


def _nfr(comparison: Comparison) -> _Case:
    """The rule the verdict is about."""
    results: dict[str, Result] = {"pass": "passed", "fail": "failure"}
    result = results.get(comparison.verdict, "skipped")
    return _Case("negative flip rate", result, comparison.reason)


def _unmatched(comparison: Comparison) -> _Case:
    """Prompts that only one run has."""
    share = comparison.alignment.unmatched_share
    return _limited("unmatched prompts", share, comparison.provenance.get("max_unmatched"))


def _invalid(comparison: Comparison) -> _Case:
    """Pairs that could not be judged."""
    total = comparison.n + comparison.invalid
    share = comparison.invalid / total if total else 1.0
    return _limited("invalid pairs", share, comparison.provenance.get("max_invalid"))


def _limited(name: str, share: float, limit: object) -> _Case:
    """A share against its limit; without a limit there is nothing to test."""
    shown = formatting.percent(share)
    if not isinstance(limit, int | float):
        return _Case(name, "skipped", f"{shown}; no limit was recorded.")
    message = f"{shown}; the limit is {formatting.exact(limit)}."
    return _Case(name, "error" if share > limit else "passed", message)


def _attribute(text: str) -> str:
    """Data as an attribute value: no character that XML forbids, nothing that ends the attribute."""
    return escape(clean(text).replace("\n", " "), quote=True)


def _case(case: _Case) -> str:
    """A test case as XML."""
    head = f'<testcase classname="flipguard" name="{_attribute(case.name)}"'
    message = _attribute(case.message)
    if case.result == "passed":
        return f"{head}><system-out>{message}</system-out></testcase>"
    return f'{head}><{case.result} message="{message}"/></testcase>'
