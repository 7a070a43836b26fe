"""How much scores changed, against scipy and statsmodels."""

import math

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from statsmodels.stats.proportion import proportion_confint

from flipguard.evaluate.change import change, means, severity
from flipguard.evaluate.comparison import Answer, Pair
from flipguard.evaluate.outcomes import scored
from flipguard.evaluate.sampling import Sampling

few = settings(max_examples=40, deadline=None)
EIGHTHS = st.integers(-16, 16).map(lambda number: number / 8)
SCORES = st.lists(st.tuples(EIGHTHS, EIGHTHS), min_size=1, max_size=20)


def pairs(scores, *, margin=0.1, clusters=None):
    answers = [(Answer(old), Answer(new)) for old, new in scores]
    return [
        Pair(i, 0, old, new, scored(old, new, margin=margin), cluster=None if clusters is None else str(clusters[i]))
        for i, (old, new) in enumerate(answers)
    ]


def test_both_means_are_over_the_same_valid_pairs():
    told = means(pairs([(1.0, 2.0), (None, 9.0), (4.0, None), (4.0, 3.0)]))
    assert (told.n, told.old, told.new) == (2, 2.5, 2.5)
    assert means(pairs([(None, 1.0)])) is None
    assert means(pairs([(1.0, math.inf)])) is None


def test_a_mean_has_the_interval_of_its_grade():
    rng = np.random.default_rng(2)
    scores = rng.normal(0.0, 1.0, (30, 2))
    told = means(pairs(scores.tolist()), "score", Sampling(alpha=0.01))
    for column, ends in ((0, (told.old_low, told.old_high)), (1, (told.new_low, told.new_high))):
        assert ends == pytest.approx(scipy_stats.ttest_1samp(scores[:, column], 0.0).confidence_interval(0.99))
    right = means(pairs(rng.integers(0, 2, (200, 2)).astype(float).tolist()), "correct")
    assert (right.old_low, right.old_high) == pytest.approx(proportion_confint(right.old * 200, 200, method="wilson"))


def test_answers_of_one_cluster_widen_the_interval_of_both_means():
    answers = [(float(i // 10 % 2), float(i // 10 % 3 == 0)) for i in range(300)]
    alone, shared = (
        means(pairs(answers, clusters=clusters), "correct", Sampling(clusters=clusters is not None))
        for clusters in (None, [i // 10 for i in range(300)])
    )
    assert shared.old_high - shared.old_low > 2.5 * (alone.old_high - alone.old_low)
    assert shared.new_high - shared.new_low > 2.5 * (alone.new_high - alone.new_low)


def test_the_interval_of_prompts_of_their_own_is_that_of_the_t_test():
    scores = np.random.default_rng(0).normal(0.0, 1.0, (40, 2))
    told = change(pairs(scores.tolist()))
    interval = scipy_stats.ttest_rel(scores[:, 1], scores[:, 0]).confidence_interval(0.95)
    assert (told.low, told.high) == pytest.approx((interval.low, interval.high), rel=1e-4)
    assert told.mean == pytest.approx((scores[:, 1] - scores[:, 0]).mean())
    assert (told.n, told.clusters) == (40, 40)


def test_the_interval_of_clusters_is_that_of_a_regression_with_clustered_errors():
    rng = np.random.default_rng(1)
    groups = rng.integers(0, 12, 90)
    changes = rng.normal(0.2, 1.0, 12)[groups] + rng.normal(0.0, 0.3, 90)
    told = change(pairs([(0.0, moved) for moved in changes.tolist()], clusters=groups))
    model = sm.OLS(changes, np.ones(90)).fit(cov_type="cluster", cov_kwds={"groups": groups, "df_correction": True})
    error = float(model.bse[0])
    assert told.clusters == 12
    assert (told.high - told.low) / 2 == pytest.approx(scipy_stats.t.ppf(0.975, 11) * error, rel=0.001)


def test_invalid_pairs_are_left_out_and_infinite_scores_have_no_mean():
    rows = pairs([(1.0, 2.0), (None, 1.0), (3.0, 3.0)])
    told = change(rows)
    assert (told.n, told.mean) == (2, 0.5)
    assert change(rows[1:2]) is None
    assert change(pairs([(1.0, math.inf), (1.0, 1.0)])) is None


@pytest.mark.parametrize("clusters", [None, [0, 0, 1, 1, 2]])
def test_scores_too_large_to_add_up_have_no_mean_and_stop_nothing(clusters):
    rows = pairs([(0.0, -1.7e308)] * 5, clusters=clusters)
    assert means(rows) is None
    assert change(rows) is None
    assert severity(rows, 0.1)["mean"] == math.inf
    told = means(pairs([(1e200, 0.0), (-1e200, 1e200)]))
    assert told.old_high == pytest.approx(scipy_stats.t.ppf(0.975, 1) * 1e200)


def test_one_prompt_has_a_change_but_no_interval():
    told = change(pairs([(1.0, 2.0)]))
    assert (told.mean, told.low, told.high, told.p_value) == (1.0, None, None, 1.0)


@few
@given(scores=SCORES, margin=st.sampled_from([0.0, 0.1, 1.0]))
def test_the_mean_severity_is_the_expected_drop_beyond_the_margin(scores, margin):
    told = severity(pairs(scores, margin=margin), margin)
    drops = [max(0.0, old - new - margin) for old, new in scores]
    assert told["mean"] == pytest.approx(sum(drops) / len(drops), abs=1e-9)
    flips = [drop for drop in drops if drop > 1e-9]
    if flips:
        assert told["max"] == pytest.approx(max(flips))
        assert told["mean_flip"] == pytest.approx(sum(flips) / len(flips), abs=1e-6)
        assert told["p90"] == pytest.approx(np.quantile(flips, 0.9, method="inverted_cdf"), abs=1e-9)


def test_without_flips_there_is_no_tail_and_without_pairs_no_severity():
    assert severity(pairs([(0.0, 1.0)]), 0.1) == {
        "mean": 0.0,
        "mean_flip": None,
        "median": None,
        "p90": None,
        "max": None,
    }
    assert severity(pairs([(None, 1.0)]), 0.1) is None
