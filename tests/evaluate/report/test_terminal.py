from __future__ import annotations

import unicodedata
from dataclasses import replace

import pytest

from flipguard.evaluate.change import Means
from flipguard.evaluate.report import terminal
from flipguard.evaluate.report.text import width


def bad(text):
    return [c for c in text if c != "\n" and unicodedata.category(c) in {"Cc", "Cs", "Zl", "Zp"}]


def test_no_control_character_of_the_data_reaches_the_terminal(hostile_example):
    text = terminal.render(hostile_example[0])
    assert bad(text) == []
    assert "\u202e" not in text
    text.encode("utf-8")


@pytest.mark.parametrize("name", ["acme/base", "很长的模型名字" * 20, "x" * 300])
def test_no_line_is_wider_than_eighty_columns(name, make_scored, make_comparison):
    pairs = [replace(pair, categories=(name,)) for pair in make_scored(300)]
    comparison = make_comparison(pairs, old=name, new=name, reason=f"{name} is why. " * 5)
    assert max(map(width, terminal.render(comparison).split("\n"))) <= 80


def test_names_that_differ_at_their_end_stay_apart(make_scored, make_comparison):
    old, new = (f"logs/samples_truthfulqa_gen_{'neo125_' * 9}{run}.jsonl.gz" for run in ("13-51-32", "14-30-51"))
    title = terminal.render(make_comparison(make_scored(30), old=old, new=new)).split("\n")[0]
    assert "51-32.jsonl.gz → " in title
    assert title.endswith("30-51.jsonl.gz")


def test_large_numbers_keep_the_columns(make_scored, make_comparison):
    comparison = make_comparison(make_scored(30))
    big = replace(comparison.nfr, k=1_234_567, n=1_234_567, value=0.99999, low=0.99991, high=0.99999, upper=0.99999)
    big_slice = replace(comparison.slices[0], n=1_234_567, nfr=big, win_rate=big, p_adjusted=1e-300)
    wide = replace(comparison, nfr=big, win_rate=big, nfr_given_correct=big, slices=(big_slice,))
    assert max(map(width, terminal.render(wide).split("\n"))) <= 80
    means = Means(9, *[-1.2345678e-105] * 6)
    text = terminal.render(replace(comparison, means=means))
    assert max(map(width, text.split("\n"))) <= 80
    assert text.count("−1.235e-105 [−1.235e-105 to −1.235e-105]") == 2


def test_ten_slices_and_the_number_of_the_others(make_scored, make_comparison):
    pairs = [replace(pair, categories=(f"c{index % 12}",)) for index, pair in enumerate(make_scored(120))]
    text = terminal.render(make_comparison(pairs))
    assert "and 2 more in the report" in text


def test_a_slice_shows_how_many_of_how_many_got_worse_and_how_many_better(binary_example):
    comparison, _ = binary_example
    lines = terminal.render(comparison).split("\n")
    for part in comparison.slices:
        (line,) = (line for line in lines if line.startswith(part.name))
        assert f" {part.negative_flips} of {part.n} " in line
        assert f" {part.positive_flips} " in line


def test_verdict_reason_alignment_rates_in_this_order(make_scored, make_comparison):
    text = terminal.render(make_comparison(make_scored(100)))
    places = [
        text.index(part) for part in ("FAIL", "is above the limit", "only in old", "negative flips", "net change")
    ]
    assert places == sorted(places)


def test_an_empty_comparison_is_told(make_comparison):
    text = terminal.render(make_comparison([], verdict="invalid", reason="Nothing matched."))
    assert "INVALID" in text
    assert "n/a" in text


@pytest.mark.parametrize("name", ["::stop-commands::x", " ::add-mask::a", "##[error]x", "a ##vso[task.complete]"])
def test_a_name_gives_no_command_to_the_runner_of_a_workflow(name, make_scored, make_comparison):
    """They read what a step prints: `::` where a line begins, `##[` wherever it stands."""
    pairs = [replace(pair, categories=(name,)) for pair in make_scored(30)]
    text = terminal.render(make_comparison(pairs, old=name, new=name, reason=f"{'x' * 79} {name}"))
    assert [line for line in text.split("\n") if line.lstrip().startswith("::") or "##" in line] == []
    assert max(map(width, text.split("\n"))) <= 80
