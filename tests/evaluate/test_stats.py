"""The statistics against their oracles: scipy, statsmodels, and the project's published tables."""

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from flipguard.errors import FlipGuardError
from flipguard.evaluate import stats

SIZES = st.integers(1, 3000)
SHARES = st.floats(0.001, 0.999)
few = settings(max_examples=60, deadline=None)


@st.composite
def counts(draw, largest=3000):
    n = draw(st.integers(1, largest))
    return draw(st.integers(0, n)), n


@few
@given(count=counts(), p=SHARES)
def test_binomial_tails_are_those_of_scipy(count, p):
    k, n = count
    assert stats.at_most(k, n, p) == pytest.approx(scipy_stats.binom.cdf(k, n, p), rel=1e-9, abs=1e-300)
    assert stats.at_least(k, n, p) == pytest.approx(scipy_stats.binom.sf(k - 1, n, p), rel=1e-9, abs=1e-300)


@few
@given(count=counts())
def test_the_wilson_interval_is_that_of_statsmodels(count):
    low, high = proportion_confint(*count, method="wilson")
    assert stats.wilson(*count) == pytest.approx((low, high), abs=1e-12)


@few
@given(count=counts(), alpha=st.sampled_from([0.01, 0.05, 0.2]))
def test_one_sided_bounds_are_the_ends_of_the_clopper_pearson_interval_at_twice_alpha(count, alpha):
    low, high = proportion_confint(*count, alpha=2 * alpha, method="beta")
    assert stats.lower_bound(*count, alpha) == pytest.approx(low, rel=1e-9)
    assert stats.upper_bound(*count, alpha) == pytest.approx(high, rel=1e-9)


@pytest.mark.parametrize(("k", "n"), [(0, 10**6), (1, 10**6), (50_000, 10**6), (500_000, 10**6), (10**6, 10**6)])
def test_bounds_hold_at_a_million_pairs(k, n):
    upper = 1.0 if k == n else scipy_stats.beta.ppf(0.95, k + 1, n - k)
    lower = 0.0 if k == 0 else scipy_stats.beta.ppf(0.05, k, n - k + 1)
    assert stats.upper_bound(k, n) == pytest.approx(upper, rel=1e-8)
    assert stats.lower_bound(k, n) == pytest.approx(lower, rel=1e-8)


@pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 1), (0, 7), (7, 7)])
def test_an_interval_reaches_the_edge_exactly_where_nothing_or_everything_flipped(k, n):
    share = stats.proportion(k, n)
    assert (share.low == 0.0) == (k == 0)
    assert (share.high == 1.0) == (k == n)
    assert share.low <= share.value <= share.high
    assert share.upper > share.value or k == n


def test_nothing_is_known_of_no_pairs():
    assert stats.proportion(0, 0) == stats.Proportion(0, 0, None, 0.0, 1.0, 1.0)
    assert stats.lower_bound(0, 0) == 0.0


@few
@given(count=counts(300))
def test_one_more_flip_never_lowers_a_bound(count):
    k, n = count
    if k < n:
        assert stats.upper_bound(k, n) <= stats.upper_bound(k + 1, n)
        assert stats.lower_bound(k, n) <= stats.lower_bound(k + 1, n)


@pytest.mark.parametrize(
    ("k", "n", "p"), [(-1, 5, 0.5), (5, 5, 0.5), (6, 5, 0.5), (2, 5, 0.0), (2, 5, 1.0), (0, 0, 0.3)]
)
def test_tails_are_zero_or_one_outside_the_range(k, n, p):
    assert stats.at_most(k, n, p) == scipy_stats.binom.cdf(k, n, p)
    assert stats.at_least(k, n, p) == scipy_stats.binom.sf(k - 1, n, p)


@few
@given(negative=st.integers(0, 2000), positive=st.integers(0, 2000))
def test_mcnemar_is_that_of_statsmodels(negative, positive):
    expected = 1.0 if negative + positive == 0 else statsmodels_mcnemar([[0, negative], [positive, 0]]).pvalue
    assert stats.mcnemar(negative, positive) == pytest.approx(expected, rel=1e-8, abs=1e-250)


def test_mcnemar_at_a_million_discordant_pairs_is_finite():
    assert 0.0 <= stats.mcnemar(400_000, 600_000) < 1e-300
    assert stats.mcnemar(500_000, 500_000) == 1.0


@settings(max_examples=12, deadline=None)  # the oracle takes 60 ms a call
@given(p_values=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=30))
def test_holm_is_that_of_statsmodels(p_values):
    expected = multipletests(p_values, method="holm")[1]
    assert stats.holm(p_values) == pytest.approx(list(expected), abs=1e-12)


def test_holm_of_nothing_is_nothing():
    assert stats.holm([]) == []


@pytest.mark.parametrize(
    ("n", "at_5", "at_10", "at_20"),
    [(80, 0, 3, 9), (100, 1, 4, 13), (500, 16, 38, 84), (805, 29, 66, 142), (1000, 38, 84, 178)],
)
def test_the_largest_passing_count_is_the_published_one(n, at_5, at_10, at_20):
    assert [stats.largest_passing_k(n, limit) for limit in (0.05, 0.1, 0.2)] == [at_5, at_10, at_20]


def test_a_hundred_prompts_can_never_certify_two_percent():
    assert stats.largest_passing_k(100, 0.02) is None


@few
@given(n=SIZES, limit=SHARES)
def test_the_largest_passing_count_passes_and_the_next_does_not(n, limit):
    k = stats.largest_passing_k(n, limit)
    if k is not None:
        assert stats.upper_bound(k, n) <= limit * (1 + 1e-9)
    assert stats.upper_bound(0 if k is None else k + 1, n) > limit * (1 - 1e-9)


@pytest.mark.parametrize(("limit", "prompts"), [(0.05, 390), (0.10, 180), (0.20, 90), (0.30, 55)])
def test_the_plan_asks_for_the_published_number_of_prompts(limit, prompts):
    assert stats.prompts_needed(limit) == prompts


@settings(max_examples=25, deadline=None)
@given(limit=st.floats(0.05, 0.6), share=st.floats(0.0, 0.7), power=st.sampled_from([0.5, 0.8, 0.95]))
def test_the_plan_is_the_smallest_on_its_grid(limit, share, power):
    def reached(n):
        k = stats.largest_passing_k(n, limit)
        return k is not None and stats.at_most(k, n, limit * share) >= power

    assert stats.prompts_needed(limit, limit * share, power) == next(n for n in range(5, 10**6, 5) if reached(n))


@pytest.mark.parametrize(
    ("limit", "rate", "power"),
    [(0.05, 0.05, 0.8), (0.05, 0.06, 0.8), (1.5, 0.1, 0.8), (0.05, -0.1, 0.8), (0.05, 0.01, 1)],
)
def test_a_plan_that_cannot_succeed_is_refused(limit, rate, power):
    with pytest.raises(FlipGuardError, match=r"(?i)choose"):
        stats.prompts_needed(limit, rate, power)


def test_a_plan_beyond_ten_million_prompts_is_refused():
    with pytest.raises(FlipGuardError, match="too close"):
        stats.prompts_needed(0.5, 0.4999)


@few
@given(count=counts(500), limit=st.floats(0.0, 1.0))
def test_deciding_takes_more_prompts_than_there_are(count, limit):
    k, n = count
    needed = stats.prompts_to_decide(k, n, limit)
    assert needed is None or (needed > n and math.isfinite(needed))


@pytest.mark.parametrize(
    ("k", "n", "limit"),
    [(0, 50, 0.02), (1, 100, 0.05), (4, 100, 0.1), (8, 200, 0.02), (30, 300, 0.2), (90, 500, 0.2), (4, 100, 0.02)],
)
def test_the_prompts_that_would_decide_do_so_by_brute_force_and_not_many_fewer_would(k, n, limit):
    """Every count is held against both bounds, as the gate does; the chances are scipy's."""
    rate, prompts = (k + 0.5) / (n + 1), stats.prompts_to_decide(k, n, limit)

    def chance(size):
        counts = np.arange(size + 1)
        decided = [
            stats.upper_bound(int(count), size) <= limit
            if rate < limit
            else stats.lower_bound(int(count), size) > limit
            for count in counts
        ]
        return scipy_stats.binom.pmf(counts, size, rate)[decided].sum()

    assert chance(prompts) >= 0.8
    assert prompts == n + 1 or prompts <= 1.11 * (n + 1) or chance(round(0.75 * prompts)) < 0.8
    assert stats.chance_to_decide(rate, prompts, limit) == pytest.approx(chance(prompts))


def test_a_wald_bound_at_50_prompts_would_pass_a_rate_of_two_percent_36_times_in_a_hundred_and_ours_never_does():
    shares = np.arange(51) / 50
    passes = shares + NormalDist().inv_cdf(0.95) * np.sqrt(shares * (1 - shares) / 50) <= 0.02
    assert scipy_stats.binom.pmf(np.arange(51), 50, 0.02)[passes].sum() == pytest.approx(0.364, abs=5e-4)
    assert stats.largest_passing_k(50, 0.02) is None
