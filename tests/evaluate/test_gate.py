"""The verdict and the sentence that decided it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flipguard.evaluate import stats
from flipguard.evaluate.comparison import Alignment, Comparison, Net
from flipguard.evaluate.gate import EXIT_CODES, apart, decide


def comparison(flips, n, *, invalid=0, only_old=0, only_new=0):
    matched = n + invalid
    return Comparison(
        old="a",
        new="b",
        n=n,
        negative_flips=flips,
        positive_flips=0,
        ties=n - flips,
        inconsistent=0,
        invalid=invalid,
        nfr=stats.proportion(flips, n),
        win_rate=stats.proportion(0, n),
        nfr_given_correct=None,
        net=Net(None, 1.0),
        slices=(),
        alignment=Alignment(matched + only_old, matched + only_new, matched, only_old, only_new, 0, 0),
        margin=0.1,
        alpha=0.05,
    )


@pytest.mark.parametrize(
    ("flips", "limit", "verdict", "sentence"),
    [
        (
            64,
            0.06,
            "pass",
            "64 of 1,319 answers got worse (4.85 %); with 95 % confidence at most 5.94 % do, within the",
        ),
        (64, 0.02, "fail", "confidence at least 3.92 % do, above the limit of 2.00 %."),
        (64, 0.05, "inconclusive", "the limit of 5.00 % lies between: if the rate stays, about "),
        (0, 0.0, "inconclusive", "too close to the limit for any number of prompts"),
        (1, 0.0, "fail", "above the limit of 0.00"),
        (1319, 1.0, "pass", "within the limit of 100.00 %"),
    ],
)
def test_the_reason_has_the_numbers_that_decided(flips, limit, verdict, sentence):
    decision, reason = decide(comparison(flips, 1319), max_nfr=limit)
    assert decision == verdict
    assert sentence in reason
    assert reason.endswith(".")


def test_without_a_limit_there_is_no_verdict_but_the_count():
    assert decide(comparison(5, 100), max_nfr=None) == (
        "none",
        "5 of 100 answers got worse (5.00 %); no limit was asked for, --max-nfr sets one.",
    )


@pytest.mark.parametrize("limit", [None, 0.5])
def test_data_that_cannot_be_trusted_are_invalid_before_anything_else(limit):
    unmatched = decide(comparison(0, 90, only_old=8, only_new=2), max_nfr=limit)
    assert unmatched[0] == "invalid"
    assert "10 of 100 prompts have no partner in the other run (10.00 %, --max-unmatched allows 5.00 %)" in unmatched[1]
    ungraded = decide(comparison(0, 97, invalid=3), max_nfr=limit)
    assert ungraded == ("invalid", "3 of 100 pairs could not be graded (3.00 %, --max-invalid allows 2.00 %).")
    assert decide(comparison(0, 0), max_nfr=limit, max_unmatched=1.0)[0] == "invalid"
    assert decide(comparison(0, 0, invalid=4), max_nfr=limit, max_invalid=1.0) == (
        "invalid",
        "There is no valid pair to compare.",
    )


def test_exactly_the_allowed_share_is_allowed():
    assert decide(comparison(0, 95, only_old=5), max_nfr=None)[0] == "none"
    assert decide(comparison(0, 98, invalid=2), max_nfr=None)[0] == "none"


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 2000), limit=st.floats(0.01, 0.9), data=st.data())
def test_the_verdict_follows_the_largest_passing_count_and_never_improves_with_more_flips(n, limit, data):
    flips = data.draw(st.integers(0, n))
    most = stats.largest_passing_k(n, limit)
    verdict = decide(comparison(flips, n), max_nfr=limit)[0]
    assert (verdict == "pass") == (most is not None and flips <= most)
    order = ["pass", "inconclusive", "fail"]
    if flips < n:
        assert order.index(verdict) <= order.index(decide(comparison(flips + 1, n), max_nfr=limit)[0])


def test_every_verdict_has_its_exit_code_and_2_is_left_to_errors():
    assert EXIT_CODES == {"pass": 0, "none": 0, "fail": 1, "inconclusive": 3, "invalid": 4}


def test_two_shares_are_printed_with_enough_digits_to_tell_them_apart():
    assert apart(0.05, 0.06) == ("5.00 %", "6.00 %")
    assert apart(0.050001, 0.05) == ("5.0001 %", "5.0000 %")
    assert apart(0.05, 0.05) == ("5.00 %", "5.00 %")
