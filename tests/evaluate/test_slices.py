"""Categories tested together."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from flipguard.evaluate import stats
from flipguard.evaluate.comparison import Slice
from flipguard.evaluate.slices import adjusted

P_VALUES = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=30)


def part(name, n, worse, better=0):
    share = stats.proportion(worse, n)
    return Slice(name, n, worse, better, share, stats.proportion(better, n), None)


@given(p_values=P_VALUES)
def test_false_discoveries_are_adjusted_as_statsmodels_does(p_values):
    told = multipletests(p_values, method="fdr_bh")[1]
    assert stats.benjamini_hochberg(p_values) == pytest.approx(np.asarray(told).tolist())


@given(p_values=P_VALUES)
def test_reading_is_never_stricter_than_gating(p_values):
    pairs = zip(stats.benjamini_hochberg(p_values), stats.holm(p_values), strict=True)
    assert all(reading <= gating + 1e-12 for reading, gating in pairs)


def test_small_slices_are_shown_but_neither_tested_nor_paid_for():
    small, large, other = adjusted([part("a", 3, 3), part("b", 20, 10), part("c", 20, 8)], 10)
    assert (small.name, small.n, small.p_adjusted, small.p_discovery) == ("a", 3, None, None)
    assert large.p_adjusted == pytest.approx(2 * stats.mcnemar(10, 0))
    assert large.p_discovery == pytest.approx(2 * stats.mcnemar(10, 0))
    assert other.p_adjusted == other.p_discovery == pytest.approx(stats.mcnemar(8, 0))


def test_no_slices_make_no_tests():
    assert adjusted([], 10) == ()
