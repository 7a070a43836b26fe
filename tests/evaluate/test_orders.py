"""Verdicts by the order in which answers were shown."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from flipguard.evaluate.comparison import Answer, Pair
from flipguard.evaluate.orders import orders
from flipguard.evaluate.outcomes import judged

WORDS = st.sampled_from(["old", "new", "tie"])


def pair(id_, first, second, old=None, new=None):
    verdicts = [
        {"order": order, "winner": winner}
        for order, winner in (("old_first", first), ("new_first", second))
        if winner is not None
    ]
    sides = Answer(completion=old), Answer(completion=new)
    return Pair(id_, 0, *sides, judged(*sides, verdicts), verdicts=tuple(verdicts))


def shares(told):
    return [getattr(told, name).k for name in ("both", "either", "old_first", "new_first", "inconsistent")]


def test_the_bracket_goes_from_both_orders_to_either_order():
    told = orders(
        [
            pair(i, *said)
            for i, said in enumerate(
                [("old", "old"), ("old", "new"), ("old", "tie"), ("tie", "old"), ("new", "new"), ("tie", "tie")]
            )
        ]
    )
    assert told.n == 6
    assert shares(told) == [1, 4, 3, 2, 3]


@given(said=st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=30))
def test_each_single_order_lies_in_the_bracket(said):
    told = orders([pair(i, *words) for i, words in enumerate(said)])
    assert told.both.k <= min(told.old_first.k, told.new_first.k)
    assert max(told.old_first.k, told.new_first.k) <= told.either.k <= told.old_first.k + told.new_first.k
    assert told.either.k - told.both.k <= told.inconsistent.k
    assert told.first_place + told.second_place == told.inconsistent.k
    assert told.decided >= told.first_wins >= 0


@given(said=st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=30))
def test_the_table_counts_each_pair_by_both_of_its_words(said):
    told = orders([pair(i, *words) for i, words in enumerate(said)])
    assert {(one, other): k for one, row in told.table.items() for other, k in row.items() if k} == Counter(said)
    assert told.table["old"]["old"] == told.both.k
    assert sum(told.table["old"].values()) == told.old_first.k


def test_a_judge_torn_within_one_order_is_not_in_the_table_but_counted():
    verdicts = [("old_first", "old"), ("old_first", "new"), ("new_first", "old")]
    torn = replace(pair(0, "old", "new"), verdicts=tuple({"order": o, "winner": w} for o, w in verdicts))
    told = orders([torn, pair(1, "tie", "new"), pair(2, "old", "new", "same", "same")])
    assert (told.torn, told.table["tie"], told.table["old"]) == (
        1,
        {"old": 0, "tie": 1, "new": 1},
        {"old": 0, "tie": 0, "new": 0},
    )


@given(said=st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=30))
def test_exchanging_the_models_leaves_position_bias_as_it_is(said):
    swap = {"old": "new", "new": "old", "tie": "tie"}
    there = orders([pair(i, *words) for i, words in enumerate(said)])
    back = orders([pair(i, swap[second], swap[first]) for i, (first, second) in enumerate(said)])
    assert (there.first_place, there.second_place) == (back.first_place, back.second_place)
    assert (there.first_wins, there.decided) == (back.first_wins, back.decided)


def test_a_judge_that_always_takes_the_first_place_is_found_out():
    told = orders([pair(i, "old", "new") for i in range(12)])
    assert (told.first_place, told.second_place, told.first_wins, told.decided) == (12, 0, 24, 24)
    assert told.p_value == pytest.approx(scipy_stats.binomtest(12, 12).pvalue)
    assert told.both.k == 0
    assert told.old_first.k == 12
    assert told.new_first.k == 0


def test_identical_answers_tie_in_every_order_but_tell_about_position():
    told = orders(
        [pair(1, "old", "new", "same", "same"), pair(2, "old", "old", "a", "b"), pair(3, None, None, "x", "x")]
    )
    assert told.n == 3
    assert shares(told) == [1, 1, 1, 1, 0]
    assert told.first_place == 1


def test_pairs_judged_once_or_not_at_all_are_left_out():
    assert orders([pair(1, "old", None), pair(2, None, None, "x", "x")]) is None
    assert orders([]) is None
    assert orders([pair(1, "old", None), pair(2, "invalid", "old"), pair(3, "old", "old")]).n == 1
