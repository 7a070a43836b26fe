"""What stands beside the rates: in every view, in words, and harmless whatever the names are."""

import re
from dataclasses import replace

import pytest

from flipguard.evaluate import refusals, shifts
from flipguard.evaluate.agreement import agreement
from flipguard.evaluate.comparison import Answer, Pair
from flipguard.evaluate.labels import correct
from flipguard.evaluate.orders import orders
from flipguard.evaluate.report import html, markdown, terminal
from flipguard.evaluate.report.beside import sections
from flipguard.evaluate.sequential import decide_early


@pytest.fixture
def measured(make_comparison):
    """A comparison with everything beside it that a name can stand in, and its pairs."""

    def make(name="a"):
        sides = [Answer(1.0, "Sure, here it is.", None, "stop"), Answer(0.0, "I can't help with that.", None, "length")]
        pairs = [Pair(f"{name} {i}", 0, *sides, "negative_flip", categories=(name,)) for i in range(7)]
        pairs.append(Pair("same", 0, sides[0], sides[0], "tie"))
        outcomes = {(pair.id, 0): pair.outcome for pair in pairs}
        people = dict.fromkeys(list(outcomes)[:6], "tie") | {("elsewhere", 0): "tie"}
        return replace(
            make_comparison(pairs),
            refusals=refusals.count(pairs),
            shifts=shifts.measure(pairs),
            sequential=decide_early(pairs, 0.05, 0.05),
            labels=correct(pairs, people),
            agreement=agreement({name: outcomes, f"{name} too": dict.fromkeys(outcomes, "tie"), "third": {}}),
        ), pairs

    return make


def texts(comparison, pairs):
    return terminal.render(comparison), markdown.render(comparison, pairs), html.render(comparison, pairs)


def test_nothing_beside_is_no_section(make_comparison):
    assert sections(make_comparison([])) == []
    assert "What else changed" not in html.render(make_comparison([]), [])


@pytest.mark.parametrize(
    "words",
    [
        "answered before, refuses now",
        "7 of 8",
        "a 0, a 1",
        "cut off",
        "0 → 7 of 8",
        "decided at pair",
        "against 5 % or less",
        "negative flips, corrected",
        "labels without a valid pair",
        "Judges side by side",
        "negative flips by a too",
        "; kappa 0.00",
        "Krippendorff's alpha",
    ],
)
def test_every_view_tells_what_was_measured(measured, words):
    for text in texts(*measured()):
        assert words in " ".join(text.replace("&#39;", "'").split())


def test_a_hostile_name_stays_a_name(measured, hostile_texts):
    for name in hostile_texts:
        check_harmless(name, measured)


def check_harmless(name, measured):
    plain, comment, page = texts(*measured(name))
    assert all(character.isprintable() or character == "\n" for character in plain)
    assert all(len(line) <= 80 for line in plain.splitlines())
    ours = "\n".join(line for line in comment.splitlines() if "refuses now" in line)
    for text in (ours, page):
        assert "<script>window" not in text
        assert "<img src=x" not in text
        assert "<svg/onload" not in text
    rows = [line for line in comment.splitlines() if line.startswith("| refuses now")]
    assert all(line.count("|") - line.count("\\|") == 3 for line in rows)


def test_what_a_judge_said_in_both_orders_is_a_table_with_heads(judged_pairs, make_comparison):
    comparison = replace(make_comparison(judged_pairs), orders=orders(judged_pairs))
    page = html.render(comparison, judged_pairs)
    _, _, table = page.partition('<table class="matrix orders">')
    table, _, _ = table.partition("</table>")
    assert "<caption>" in table
    assert (table.count('<th scope="col">'), table.count('<th scope="row">')) == (3, 3)
    cells = re.findall(r'<td class="(\w+)">.*?</span> (\d+) ', table)
    apart = "inconsistent"
    assert [name for name, _ in cells] == [
        "negative_flip",
        apart,
        apart,
        apart,
        "tie",
        apart,
        apart,
        apart,
        "positive_flip",
    ]
    assert [number for _, number in cells] == list("101000000")
    assert "| **old better** | ▼ 1 | ◆ 0 | ◆ 1 |" in markdown.render(comparison, judged_pairs)
