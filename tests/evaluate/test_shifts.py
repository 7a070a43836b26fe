"""Shifts of form, counted against a plain loop over the pairs."""

import statistics

from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from flipguard.evaluate.compare import Options, compare_files
from flipguard.evaluate.comparison import Answer, Pair
from flipguard.evaluate.shifts import measure

TEXTS = st.sampled_from(
    ["", "  ", "one", "two words", "now three words", "```py\n1\n```", '{"a": 1}', "[1]", "{no", "好的"]
)
ENDS = st.sampled_from(["stop", "length", None])
OUTCOMES = st.sampled_from(["negative_flip", "positive_flip", "tie", "invalid"])
SIDE = st.builds(Answer, st.none(), st.one_of(st.none(), TEXTS), st.none(), ENDS)
PAIRS = st.lists(st.builds(lambda old, new, outcome: Pair(1, 0, old, new, outcome), SIDE, SIDE, OUTCOMES), max_size=20)


@settings(max_examples=60, deadline=None)
@given(pairs=PAIRS)
def test_lengths_are_those_of_a_plain_loop(pairs):
    told = [pair for pair in pairs if None not in (pair.old.completion, pair.new.completion)]
    shifts = measure(pairs)
    if not told:
        assert shifts is None or shifts.lengths is None
        return
    old, new = [len(p.old.completion) for p in told], [len(p.new.completion) for p in told]
    longer, shorter = sum(a < b for a, b in zip(old, new)), sum(a > b for a, b in zip(old, new))  # noqa: B905
    lengths = shifts.lengths
    assert (lengths.n, lengths.longer, lengths.shorter) == (len(told), longer, shorter)
    assert (lengths.old_median, lengths.new_mean) == (statistics.median(old), statistics.fmean(new))
    if longer + shorter:
        assert abs(lengths.p_value - binomtest(longer, longer + shorter).pvalue) < 1e-9
    graded = [p for p in told if p.outcome != "invalid" and len(p.old.completion) < len(p.new.completion)]
    assert lengths.nfr_longer.n == len(graded)
    assert lengths.nfr_longer.k == sum(p.outcome == "negative_flip" for p in graded)


def kinds(*sides):
    pairs = [Pair(i, 0, *(Answer(1.0, *side) for side in both), "tie") for i, both in enumerate(sides)]
    return {kind.name: (kind.n, kind.old, kind.new, kind.gained, kind.lost) for kind in measure(pairs).kinds}


def test_a_property_is_counted_on_both_sides_and_by_who_gained_and_lost_it():
    sides = [
        (("a",), ("```x```",)),
        (("```y```",), ("b",)),
        (("```z```",), ("```",)),
        (("{}",), ("",)),
        (("c",), ("{",)),
    ]
    assert kinds(*sides) == {"code block": (5, 2, 2, 1, 1), "JSON": (5, 1, 0, 0, 1), "empty": (5, 0, 1, 1, 0)}


def test_truncation_is_known_only_where_both_sides_say_how_they_ended():
    cut, whole, silent = ("a", None, "length"), ("a", None, "stop"), ("a",)
    assert kinds((whole, cut), (cut, cut), (whole, silent)) == {"cut off": (2, 1, 2, 1, 0)}
    assert kinds((whole, whole)) == {"cut off": (1, 0, 0, 0, 0)}


def test_an_answer_that_failed_has_no_form():
    failed = Pair(1, 0, Answer(None, "a b", "timeout", "error"), Answer(1.0, "a", None, "stop"), "invalid")
    assert measure([failed]) is None
    assert measure([]) is None


def test_why_an_answer_ended_comes_from_scores_and_judgments_alike(write):
    sides = [{"score": 1, "completion": "a b", "finish_reason": reason} for reason in ("stop", "length")]
    one = compare_files(write("j.jsonl", [{"id": 1, "old": sides[0], "new": sides[1]}]), None, Options()).comparison
    files = [write(f"{name}.jsonl", [{"id": 1, **side}]) for name, side in zip("on", sides, strict=True)]
    assert compare_files(*files, Options()).comparison.shifts == one.shifts
    assert [(kind.name, kind.gained) for kind in one.shifts.kinds] == [("cut off", 1)]
