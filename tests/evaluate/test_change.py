"""How much scores changed, against scipy and statsmodels."""

import math

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from flipguard.evaluate.change import change, means, severity, t_quantile
from flipguard.evaluate.comparison import Answer, Pair
from flipguard.evaluate.outcomes import scored

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


@pytest.mark.parametrize("freedom", [1, 2, 3, 5, 9, 30, 1000])
def test_quantiles_of_student_are_those_of_scipy(freedom):
    assert t_quantile(0.975, freedom) == pytest.approx(scipy_stats.t.ppf(0.975, freedom), rel=0.002)
    assert t_quantile(0.95, freedom) == pytest.approx(scipy_stats.t.ppf(0.95, freedom), rel=0.002)
    assert t_quantile(0.995, freedom) == pytest.approx(scipy_stats.t.ppf(0.995, freedom), rel=0.01)


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
