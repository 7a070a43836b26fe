"""The paired permutation test against every sign tried, scipy's, and what it means."""

import math
from itertools import product
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from flipguard.evaluate.permutation import sign_flip
from flipguard.evaluate.stats import mcnemar

few = settings(max_examples=60, deadline=None)
CHANGES = st.lists(st.one_of(st.floats(-3, 3), st.integers(-2, 2).map(float)), min_size=1, max_size=9)


def by_every_sign(changes):
    seen = abs(math.fsum(changes))
    sums = [math.fsum(map(float.__mul__, changes, signs)) for signs in product((-1.0, 1.0), repeat=len(changes))]
    return sum(abs(total) >= seen - 1e-12 * sum(map(abs, changes)) for total in sums) / len(sums)


@few
@given(changes=CHANGES)
def test_few_changes_are_tested_exactly(changes):
    p_value, draws = sign_flip(changes, Random(0))
    assert p_value == pytest.approx(by_every_sign(changes))
    assert draws == 0


def test_the_exact_test_is_that_of_scipy():
    changes = np.random.default_rng(3).normal(0.4, 1.0, 14)
    told = scipy_stats.permutation_test((changes,), np.mean, permutation_type="samples", n_resamples=2**14)
    assert sign_flip(changes.tolist(), Random(0)) == (pytest.approx(told.pvalue), 0)


def test_many_changes_are_tested_by_drawing_signs():
    changes = np.random.default_rng(0).normal(0.1, 1.0, 301)
    p_value, draws = sign_flip(changes.tolist(), Random(1))
    told = scipy_stats.permutation_test(
        (changes,), np.mean, permutation_type="samples", n_resamples=19_999, rng=np.random.default_rng(2)
    )
    assert draws == 1_999
    assert p_value == pytest.approx(told.pvalue, abs=0.03)


def test_changes_of_one_size_give_the_sign_test():
    assert sign_flip([1.0] * 4 + [-1.0] * 17, Random(0))[0] == pytest.approx(mcnemar(4, 17))


def test_prompts_that_did_not_change_say_nothing_and_cost_nothing():
    changes = [0.5, 0.25, -0.1, 1.0, 2.0]
    assert sign_flip(changes + [0.0] * 5000, Random(0)) == sign_flip(changes, Random(0))
    assert sign_flip([0.0] * 5, Random(0)) == sign_flip([], Random(0)) == (1.0, 0)


@few
@given(changes=st.lists(st.floats(-3, 3), min_size=1, max_size=60))
def test_the_p_value_is_one_of_a_probability_and_blind_to_the_side(changes):
    p_value, draws = sign_flip(changes, Random(5), draws=99)
    assert 0.0 < p_value <= 1.0
    assert p_value == sign_flip(changes, Random(5), draws=99)[0]
    if not draws:
        assert p_value == pytest.approx(sign_flip([-change for change in changes], Random(5))[0])


def test_simulated_p_values_never_are_zero():
    assert sign_flip([1.0] * 200, Random(0), draws=99) == (0.01, 99)
