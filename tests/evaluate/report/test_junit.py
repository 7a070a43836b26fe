from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from flipguard.evaluate.report import junit


def cases(comparison):
    suite = ET.fromstring(junit.render(comparison).encode()).find("testsuite")
    return {case.get("name"): case for case in suite}, suite


def kinds(case):
    return [child.tag for child in case if child.tag != "system-out"]


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        ("pass", []),
        ("fail", ["failure"]),
        ("inconclusive", ["skipped"]),
        ("none", ["skipped"]),
        ("invalid", ["skipped"]),
    ],
)
def test_the_verdict_becomes_the_result_of_the_rate(verdict, expected, make_scored, make_comparison):
    found, _ = cases(make_comparison(make_scored(50), verdict=verdict))
    assert kinds(found["negative flip rate"]) == expected


def test_an_invalid_comparison_always_has_an_error(make_comparison):
    _, suite = cases(make_comparison([], verdict="invalid", reason="There is no valid pair to compare."))
    assert suite.get("errors") == "1"
    assert next(suite.iter("error")).get("message") == "There is no valid pair to compare."


def test_the_rule_that_was_broken_carries_the_error(make_scored, make_comparison):
    limits = {"max_unmatched": 0.01, "max_invalid": 0.02}
    found, suite = cases(make_comparison(make_scored(50), verdict="invalid", provenance=limits))
    assert kinds(found["unmatched prompts"]) == ["error"]
    assert kinds(found["invalid pairs"]) == []
    assert suite.get("errors") == "1"


def test_hostile_text_is_an_attribute_that_any_parser_reads(hostile_example, hostile_texts):
    found, suite = cases(hostile_example[0])
    assert hostile_texts[0] in suite.get("name")
    assert "]]>" in next(found["negative flip rate"].iter("failure")).get("message")


def test_the_counts_are_those_of_the_cases(make_scored, make_comparison):
    found, suite = cases(make_comparison(make_scored(50), verdict="fail"))
    assert suite.get("tests") == str(len(found))
    assert suite.get("failures") == "1"
