from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from flipguard.evaluate.agreement import agreement
from flipguard.evaluate.comparison import Answer, Pair, Rule
from flipguard.evaluate.report import markdown

LETTERS = st.text(st.sampled_from("ab `|\\<>@#*_[]()!\n~&$"), max_size=40)


def outside_of_blocks(text):
    """The lines that are not in a fenced block, after the rules of CommonMark."""
    fence, lines = None, []
    for line in text.split("\n"):
        if fence is None and (start := re.match(r"(`{3,})[^`]*$", line)):
            fence = start.group(1)
        elif fence is not None and re.fullmatch(rf"`{{{len(fence)},}}\s*", line):
            fence = None
        elif fence is None:
            lines.append(line)
    assert fence is None
    return "\n".join(lines)


def outside_of_code(text):
    """The same without code spans."""
    return re.sub(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", "", outside_of_blocks(text))


def test_model_text_cannot_leave_its_block(hostile_example):
    prose = outside_of_code(markdown.render(*hostile_example))
    tags = set(re.findall(r"<[^>]*>", prose))
    assert tags <= {"<details>", "</details>", "<summary>", "</summary>", "<code>", "</code>"}
    assert prose.count("<details>") == prose.count("</details>")
    assert not re.search(r"@\w", prose)
    assert not re.search(r"#\d", prose)
    assert not re.search(r"://\w", prose)
    assert "www.e" not in prose
    assert not re.search(r"(?<!\\)\]\(", prose)


@given(text=LETTERS)
def test_no_text_ends_its_fence(text):
    block = markdown.fenced(text)
    assert outside_of_blocks(block) == ""


@given(text=LETTERS)
def test_no_name_ends_its_code_span_or_its_cell(text):
    span = markdown.code(text)
    assert outside_of_code(span) == ""
    assert "|" not in span


def test_the_comment_fits_where_it_is_posted(make_scored, make_comparison):
    long = Answer(1.0, "`" * 3_000 + "<&>" * 100_000)
    pairs = [Pair("x" * 9_000, 0, long, long, "negative_flip", "p" * 9_000, ("c" * 900,)) for _ in range(50)]
    pairs += make_scored(200)
    assert len(markdown.render(make_comparison(pairs, reason="r" * 90_000), pairs)) < 60_000


def test_tables_of_long_names_are_left_out_and_counted_where_they_would_not_fit(make_scored, make_comparison):
    """An escaped `<` takes four letters, and a file may hold any number of judges."""
    pairs = make_scored(20)
    outcomes = {(pair.id, 0): pair.outcome for pair in pairs}
    judges = agreement({"<" * 900 + str(number): outcomes for number in range(30)})
    comparison = make_comparison(pairs, agreement=judges, rules=[Rule("r", "fail", "because", 0.1, 0.1, 0.05)])
    text = markdown.render(comparison, pairs)
    assert len(text) < 65_536
    assert "Tables too long for this page: 1. report.html has them." in text
    assert "because" in text
    assert "Negative flip rate" in text


def test_the_worst_flips_come_first_and_the_rest_is_counted(make_comparison):
    pairs = [Pair(f"q{i}", 0, Answer(float(i), "a"), Answer(0.0, "b"), "negative_flip") for i in range(1, 31)]
    text = markdown.render(make_comparison(pairs), pairs)
    assert "The 10 worst of 30 negative flips" in text
    assert text.index("q30") < text.index("q29") < text.index("q21")
    assert "q20" not in text


def test_verdict_numbers_and_alignment_are_in_the_comment(make_scored, make_comparison):
    pairs = make_scored(300)
    comparison = make_comparison(pairs)
    text = markdown.render(comparison, pairs)
    assert "FlipGuard: Fail" in text
    assert f"{comparison.nfr.k} of 300" in text
    assert "limit 5 %" in text
    assert "3 only in old" in text


def test_no_flip_no_flips_section(make_comparison):
    pairs = [Pair(1, 0, Answer(1.0), Answer(1.0), "tie")]
    assert "<details>" not in markdown.render(make_comparison(pairs), pairs)


def test_answers_without_text_say_so(binary_example):
    assert "(the text is not in the file)" in markdown.render(*binary_example)


def test_an_empty_comparison_is_rendered(make_comparison):
    assert "n/a" in markdown.render(make_comparison([], verdict="invalid", reason="Nothing matched."), [])


def test_bars_in_names_do_not_add_columns(make_comparison):
    pairs = [Pair(1, 0, Answer(1.0), Answer(0.0), "negative_flip", None, ("a|b\\|c",))]
    table = [line for line in markdown.render(make_comparison(pairs), pairs).split("\n") if line.startswith("| `")]
    assert [line.count("|") for line in table] == [7]
