"""Resampled clusters against resampling written out in numpy, and against what the bounds are for."""

from collections import Counter
from itertools import pairwise
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from flipguard.evaluate import bootstrap
from flipguard.evaluate.bootstrap import clustered, design_effect, resample
from flipguard.evaluate.comparison import Answer, Pair
from flipguard.evaluate.difference import tango
from flipguard.evaluate.stats import upper_bound

few = settings(max_examples=40, deadline=None)
OUTCOMES = ["negative_flip", "positive_flip", "tie", "inconsistent", "invalid"]


def pair(id_, outcome, cluster=None, repeat=0):
    return Pair(id_, repeat, Answer(), Answer(), outcome, cluster=cluster)


def repeats(*groups):
    """One prompt per group of outcomes."""
    return [pair(i, outcome, repeat=r) for i, group in enumerate(groups) for r, outcome in enumerate(group)]


WORSE, TIE = "negative_flip", "tie"


@pytest.mark.parametrize("many", [30, 400])
def test_resamples_have_the_mean_and_spread_of_clusters_drawn_one_by_one(many):
    """Few kinds of many clusters are drawn as counts, many kinds of few one by one: the same distribution."""
    rng = np.random.default_rng(1)
    sizes = rng.integers(1, 4, many)
    worse = rng.binomial(sizes, 0.3)
    clusters = [(int(n), int(k), int(n - k)) for n, k in zip(sizes, worse, strict=True)]
    drawn = np.array(list(resample(clusters, Random(0), 4000)))
    size = int(np.ceil(sizes.mean()))
    urn = np.array([*((*cluster, 0) for cluster in clusters), (size, 0, 0, size)])
    told = urn[rng.integers(0, many + 1, (4000, many + 1))].sum(axis=1)
    for column in range(4):
        test = scipy_stats.ks_2samp(drawn[:, column], told[:, column])
        assert test.pvalue > 1e-4, column


@pytest.mark.parametrize(("trials", "p"), [(5, 0.3), (150, 0.02), (150, 0.9), (4000, 0.5)])
def test_counts_drawn_by_medians_arebinomial(trials, p):
    rng = Random(2)
    drawn = Counter(bootstrap.binomial(rng, trials, p) for _ in range(4000))
    cuts = [int(scipy_stats.binom.ppf(share, trials, p)) for share in (0.1, 0.3, 0.5, 0.7, 0.9)]
    edges = sorted({-1, *cuts, trials})
    seen = [sum(n for k, n in drawn.items() if low < k <= high) for low, high in pairwise(edges)]
    expected = np.diff(scipy_stats.binom.cdf(edges, trials, p)) * 4000
    kept = expected > 1e-9
    assert scipy_stats.chisquare(np.array(seen)[kept], expected[kept]).pvalue > 1e-4


def test_prompts_of_their_own_need_no_resampling():
    assert clustered(repeats(*[[WORSE]] * 5, *[[TIE]] * 5)) is None
    assert clustered([]) is None
    assert clustered([pair(1, WORSE), pair(1, "invalid", repeat=1)]) is None


def test_repeats_of_a_prompt_and_prompts_of_a_cluster_belong_together():
    assert clustered([pair(1, WORSE), pair(1, TIE, repeat=1), pair(2, TIE)]).clusters == 2
    assert clustered([pair(1, WORSE, "k"), pair(2, TIE, "k"), pair("k", TIE)]).clusters == 2


def test_samples_that_repeat_each_other_are_worth_one_each():
    """Fifty prompts five times each, all alike within a prompt: the bound is that of fifty, not of 250."""
    groups = [[WORSE] * 5] * 5 + [[TIE] * 5] * 45
    told = clustered(repeats(*groups))
    assert told.nfr.value == 0.1
    assert told.design_effect == pytest.approx(5.0, rel=0.05)
    assert told.nfr.upper == pytest.approx(upper_bound(5, 50), abs=0.02)
    assert told.nfr.upper > upper_bound(25, 250) + 0.04


def test_no_flip_at_all_still_has_a_bound_that_counts_clusters():
    told = clustered(repeats(*[[TIE] * 10] * 50))
    assert told.nfr.upper == pytest.approx(upper_bound(0, 50), abs=0.005)
    assert (told.nfr.low, told.nfr.lower, told.design_effect) == (0.0, 0.0, None)


def test_pairs_that_happen_to_be_unlike_their_cluster_never_tighten_the_bound():
    told = clustered(repeats(*[[WORSE, TIE]] * 60))
    assert told.design_effect == 0.0
    assert told.nfr.upper >= upper_bound(60, 120)


@few
@given(groups=st.lists(st.lists(st.sampled_from(OUTCOMES), min_size=1, max_size=4), min_size=1, max_size=12))
def test_the_bounds_lie_around_the_rate(groups):
    told = clustered(repeats(*groups))
    if told is None:
        return
    for share in (told.nfr, told.win_rate):
        assert 0.0 <= share.low <= share.value <= share.high <= 1.0
        assert 0.0 <= share.lower <= share.value <= share.upper <= 1.0
    assert -1.0 <= told.net_low <= told.win_rate.value - told.nfr.value <= told.net_high <= 1.0
    assert 0.0 < told.net_p_value <= 1.0


def test_a_seed_gives_the_same_bounds_again_and_the_order_of_rows_does_not_matter_much():
    pairs = repeats(*[[WORSE, TIE]] * 20, *[[TIE, TIE]] * 80)
    assert clustered(pairs, seed=4) == clustered(pairs, seed=4)
    assert clustered(pairs, seed=4).nfr.upper == pytest.approx(clustered(pairs, seed=5).nfr.upper, abs=0.02)


def test_the_net_change_is_tested_with_clusters_kept_whole():
    """Six prompts, each ten times better: of six coin flips, not of sixty."""
    told = clustered(repeats(*[["positive_flip"] * 10] * 6))
    assert told.net_p_value == pytest.approx(2 * 0.5**6)


def test_copies_of_a_prompt_do_not_narrow_the_interval_of_the_net_change():
    """Each of 120 prompts ten times: the interval is about that of 120 pairs, not of 1,200."""
    told = clustered(repeats(*[[WORSE] * 10] * 15, *[["positive_flip"] * 10] * 30, *[[TIE] * 10] * 75))
    assert (told.net_low, told.net_high) == pytest.approx(tango(30, 15, 120), abs=0.015)


@few
@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 5)).map(lambda c: (c[0], min(c))), min_size=2, max_size=30))
def test_the_design_effect_is_one_for_rows_of_their_own_and_the_ratio_of_variances_else(clusters):
    told = design_effect(clusters)
    sizes, flips = np.array(clusters).T
    share = flips.sum() / sizes.sum()
    if share in (0.0, 1.0):
        assert told is None
        return
    residuals = flips - share * sizes
    variance = len(clusters) * np.var(residuals, ddof=1) / sizes.sum() ** 2
    assert told == pytest.approx(variance / (share * (1 - share) / sizes.sum()))
