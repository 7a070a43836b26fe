"""Student's t, against scipy."""

import pytest
from scipy import stats as scipy_stats

from flipguard.evaluate.student import mean_interval, t_quantile


@pytest.mark.parametrize("alpha", [0.5, 0.2, 0.1, 0.05, 0.01, 0.001, 0.0002])
def test_quantiles_of_student_are_those_of_scipy(alpha):
    freedoms = [*range(1, 202), 1000, 10**6]
    told = [t_quantile(1.0 - alpha / 2.0, freedom) for freedom in freedoms]
    assert told == pytest.approx(scipy_stats.t.ppf(1.0 - alpha / 2.0, freedoms).tolist(), rel=1e-9)
    assert t_quantile(alpha / 2.0, 7) == pytest.approx(-told[6], rel=1e-9)


def test_one_cluster_tells_no_spread():
    assert mean_interval([3], [1.5], 0.5, 0.05) is None
