"""The definitions: what is a negative flip, a positive one, a tie, inconsistent, invalid."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flipguard.evaluate.comparison import Answer
from flipguard.evaluate.outcomes import drop, judged, scored

OLD, NEW, TIE, BAD = "old", "new", "tie", "invalid"
NUMBERS = st.floats(-1e6, 1e6)
MIRROR = {"negative_flip": "positive_flip", "positive_flip": "negative_flip"}


def verdicts(first=None, second=None):
    orders = [("old_first", first), ("new_first", second)]
    return [{"order": order, "winner": winner} for order, winner in orders if winner is not None]


@given(old=NUMBERS, new=NUMBERS, margin=st.floats(0, 10))
def test_swapping_the_models_swaps_the_flips(old, new, margin):
    there, back = (scored(Answer(a), Answer(b), margin=margin) for a, b in ((old, new), (new, old)))
    assert back == MIRROR.get(there, there)


@given(old=NUMBERS, new=NUMBERS, margin=st.floats(0, 10), more=st.floats(0, 10))
def test_a_larger_margin_never_adds_a_flip(old, new, margin, more):
    if scored(Answer(old), Answer(new), margin=margin) == "tie":
        assert scored(Answer(old), Answer(new), margin=margin + more) == "tie"


@pytest.mark.parametrize("tenths", range(-20, 20))
def test_a_change_of_exactly_the_margin_is_a_tie_whatever_binary_fractions_say(tenths):
    assert scored(Answer(tenths / 10), Answer((tenths + 1) / 10), margin=0.1) == "tie"
    assert scored(Answer((tenths + 2) / 10), Answer(tenths / 10), margin=0.1) == "negative_flip"


@pytest.mark.parametrize(
    ("old", "new", "outcome"),
    [(1.0, 0.0, "negative_flip"), (0.0, 1.0, "positive_flip"), (1.0, 1.0, "tie"), (0.0, 0.0, "tie")],
)
def test_right_and_wrong_flip_without_a_margin(old, new, outcome):
    assert scored(Answer(old), Answer(new)) == outcome


def test_identical_completions_are_a_tie_whatever_the_grader_said():
    assert scored(Answer(1.0, "same"), Answer(0.0, "same")) == "tie"
    assert scored(Answer(1.0, "same"), Answer(0.0, "same ")) == "negative_flip"
    assert judged(Answer(None, "same"), Answer(None, "same"), verdicts(OLD, OLD)) == "tie"
    assert judged(Answer(None, "same"), Answer(None, "same"), []) == "tie"


@pytest.mark.parametrize("bad", [Answer(None), Answer(1.0, error="timeout"), Answer(None, "same", "timeout")])
def test_nothing_invalid_becomes_a_score(bad):
    assert scored(bad, Answer(1.0, "same")) == "invalid"
    assert scored(Answer(0.0, "same"), bad) == "invalid"


@pytest.mark.parametrize(
    ("first", "second", "outcome"),
    [
        (OLD, OLD, "negative_flip"),
        (NEW, NEW, "positive_flip"),
        (TIE, TIE, "tie"),
        (OLD, NEW, "inconsistent"),
        (NEW, OLD, "inconsistent"),
        (OLD, TIE, "inconsistent"),
        (TIE, NEW, "inconsistent"),
        (BAD, OLD, "invalid"),
        (NEW, BAD, "invalid"),
        (OLD, None, "negative_flip"),
        (None, NEW, "positive_flip"),
        (None, None, "invalid"),
    ],
)
def test_a_pairwise_flip_needs_both_orders_to_agree(first, second, outcome):
    assert judged(Answer(), Answer(), verdicts(first, second)) == outcome


def test_an_answer_that_failed_makes_the_pair_invalid_whatever_the_judge_said():
    assert judged(Answer(error="length"), Answer(), verdicts(NEW, NEW)) == "invalid"


@given(old=NUMBERS, new=NUMBERS, margin=st.floats(0, 10))
def test_the_drop_is_never_negative_and_unknown_without_scores(old, new, margin):
    assert drop(old, new, margin) >= 0.0
    assert drop(None, new, margin) is None
    assert drop(old, None, margin) is None
