from __future__ import annotations

import re

import pytest

from flipguard.evaluate.report import table
from flipguard.evaluate.report.text import width


@pytest.fixture(scope="module")
def rows(make_scored, make_comparison):
    return [(name, make_comparison(make_scored(80, seed=seed))) for seed, name in enumerate(("DPO", "DPO + FlipGuard"))]


def test_the_table_lines_up_and_has_a_row_per_method(rows):
    lines = table.render_table([*rows, ("数学", rows[0][1])]).splitlines()
    assert len(lines) == 5
    assert len(set(map(width, lines))) == 1


def test_a_hostile_name_adds_no_column(rows, hostile_texts):
    for line in table.render_table([(text, rows[0][1]) for text in hostile_texts]).splitlines():
        assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) == 6


def test_the_overview_links_every_report_and_nothing_else(rows):
    page = table.index_html(rows, links={"DPO": "dpo/report.html", "DPO + FlipGuard": "javascript:alert(1)"})
    assert re.findall(r'href="([^"]*)"', page) == ["data:,", "#main", "dpo/report.html"]


@pytest.mark.parametrize("address", ["https://a.example", "//a.example", "data:text/html,x", "../up.html", "\\\\host"])
def test_an_address_that_leads_away_is_not_linked(address, rows):
    assert address not in table.index_html(rows, links={"DPO": address})


def test_paired_tests_and_notes_are_shown(rows):
    tests = [{"first": "DPO", "second": "<b>x</b>", "only_first": 31, "p_value": 0.00071}]
    page = table.index_html(rows, notes=["A <i>note</i>."], tests=tests)
    assert "7.1e-04" in page
    assert "&lt;b&gt;x&lt;/b&gt;" in page
    assert "A &lt;i&gt;note&lt;/i&gt;." in page


def test_an_overview_of_nothing_is_a_page():
    assert "<main" in table.index_html([])
