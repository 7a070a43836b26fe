"""The sequential verdict: its accounts against their definition, its errors by simulation, its place in compare."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flipguard.errors import FlipGuardError
from flipguard.evaluate.compare import Options, compare_files
from flipguard.evaluate.sequential import SHIFTS, sequential

LIMITS = st.floats(0.01, 0.9)


def account(k, n, limit, sign):
    """A mixture of likelihood ratios, straight from the definition."""
    total = 0.0
    for shift in SHIFTS:
        odds = limit / (1 - limit) * math.exp(sign * shift)
        rate = odds / (1 + odds)
        total += (rate / limit) ** k * ((1 - rate) / (1 - limit)) ** (n - k) / len(SHIFTS)
    return total


@settings(max_examples=60, deadline=None)
@given(flips=st.lists(st.booleans(), max_size=60), limit=LIMITS)
def test_the_first_account_at_one_over_alpha_decides(flips, limit):
    result = sequential(flips, limit, alpha=0.1)
    expected = None
    for n in range(1, len(flips) + 1):
        accounts = [account(sum(flips[:n]), n, limit, sign) for sign in (-1, 1)]
        if max(accounts) >= 10:
            expected = n
            break
    assert result.decided_at == expected
    assert (result.verdict == "continue") == (expected is None)
    k, n = sum(flips[: expected or len(flips)]), expected or len(flips)
    assert (result.k, result.n) == (k, n)
    if n:
        assert result.against_high == pytest.approx(account(k, n, limit, -1))
        assert result.against_low == pytest.approx(account(k, n, limit, 1))


@settings(max_examples=30, deadline=None)
@given(limit=LIMITS, share=st.floats(0, 1), n=st.integers(1, 8), side=st.sampled_from([-1, 1]))
def test_an_account_whose_hypothesis_holds_never_grows_on_average(limit, share, n, side):
    rate = limit + share * (1 - limit) if side < 0 else share * limit
    mean = sum(math.comb(n, k) * rate**k * (1 - rate) ** (n - k) * account(k, n, limit, side) for k in range(n + 1))
    assert mean <= 1 + 1e-9


@settings(max_examples=30, deadline=None)
@given(flips=st.lists(st.booleans(), max_size=80), more=st.lists(st.booleans(), max_size=40), limit=LIMITS)
def test_later_pairs_do_not_change_a_decision(flips, more, limit):
    first = sequential(flips, limit)
    if first.verdict != "continue":
        assert sequential(flips + more, limit) == first


def errors(rate, verdict, runs=150, n=400, limit=0.1):
    rng = random.Random(7)
    return sum(sequential((rng.random() < rate for _ in range(n)), limit).verdict == verdict for _ in range(runs))


def test_at_the_limit_looking_after_every_pair_passes_or_fails_by_mistake_five_times_in_a_hundred_at_most():
    bound = 150 * 0.05 + 2.6 * math.sqrt(150 * 0.05 * 0.95)
    assert errors(0.1, "pass") <= bound
    assert errors(0.1, "fail") <= bound


def test_half_the_limit_passes_and_twice_the_limit_fails_soon():
    assert errors(0.05, "pass") > 120
    assert errors(0.2, "fail") > 145


def test_nothing_seen_is_to_continue():
    result = sequential([], 0.05)
    assert (result.verdict, result.n, result.against_high) == ("continue", 0, 1.0)


def judgments(write, winners, name="j.jsonl"):
    return write(name, [{"id": i, "old": {}, "new": {}, "verdicts": verdicts(w)} for i, w in enumerate(winners)])


def verdicts(winner):
    return [{"order": order, "winner": winner} for order in ("old_first", "new_first")]


def test_a_growing_file_passes_once_and_stays_passed(write):
    winners = ["tie"] * 30 + ["old"] + ["tie"] * 200 + ["old"] * 500
    options = Options(max_nfr=0.1, sequential=True, max_invalid=1.0)
    early, decided, late = (
        compare_files(judgments(write, winners[:n]), None, options).comparison for n in (20, 200, 731)
    )
    assert (early.verdict, early.sequential.verdict) == ("inconclusive", "continue")
    assert decided.verdict == late.verdict == "pass"
    assert decided.sequential == late.sequential
    assert late.sequential.decided_at == late.sequential.n < 200
    assert late.to_json()["sequential"]["verdict"] == "pass"
    assert f"1 of the first {late.sequential.n} answers" in late.reason


def test_what_was_looked_at_stays_where_it_was_though_the_old_run_lists_prompts_otherwise(write):
    """Answers arrive in random order; a late one must not slip in between those that were bet on."""
    order = list(range(300))
    random.Random(5).shuffle(order)
    old = write("old.jsonl", [{"id": i, "correct": True} for i in range(300)])
    broken = set(order[:8])
    options = Options(max_nfr=0.1, sequential=True, max_unmatched=1.0)

    def look(n):
        new = write("new.jsonl", [{"id": i, "correct": i not in broken} for i in order[:n]])
        return compare_files(old, new, options).comparison.sequential

    first = look(60)
    assert (first.verdict, first.k) == ("fail", first.n)
    assert look(300) == look(120) == first


def test_invalid_pairs_are_passed_over_but_too_many_of_them_are_invalid(write):
    path = judgments(write, ["invalid", "old"] * 40)
    assert compare_files(path, None, Options(max_nfr=0.1, sequential=True)).comparison.verdict == "invalid"
    comparison = compare_files(path, None, Options(max_nfr=0.1, sequential=True, max_invalid=0.5)).comparison
    assert comparison.verdict == "fail"
    assert comparison.sequential.k == comparison.sequential.n


@pytest.mark.parametrize("limit", [None, 0.0, 1.0])
def test_without_a_limit_there_is_nothing_to_bet_on(write, limit):
    with pytest.raises(FlipGuardError, match=r"--sequential: --max-nfr .*Choose a limit between 0 and 1"):
        compare_files(judgments(write, ["tie"]), None, Options(max_nfr=limit, sequential=True))


@pytest.mark.parametrize("belongs", [{"id": 99, "cluster": "one template"}, {"id": 7, "repeat": 1}])
def test_pairs_that_belong_together_are_refused_since_each_would_be_bet_on_as_news(write, belongs):
    pair = {"old": {}, "new": {}, "verdicts": verdicts("tie")}
    rows = [{"id": i, **pair, "cluster": "one template"} if i == 3 else {"id": i, **pair} for i in range(40)]
    path = write("j.jsonl", [*rows, {**pair, **belongs}])
    told = r"--sequential: 1 of 41 pairs share a cluster or a prompt .* independent prompts only\. Leave it out"
    with pytest.raises(FlipGuardError, match=told):
        compare_files(path, None, Options(max_nfr=0.1, sequential=True))
