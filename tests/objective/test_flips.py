"""Who got worse: Eqs. 7 to 10."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flipguard.objective.flips import (
    flip_indicator,
    flip_margin,
    likelihood_flips,
    reward_flips,
    rounding_tolerance,
)
from flipguard.objective.preference import implicit_rewards

few = settings(deadline=None, max_examples=50)
numbers = st.floats(-1e6, 1e6)
margins = st.floats(0, 1e3)
pairs = st.lists(st.tuples(numbers, numbers), min_size=1, max_size=8)


def columns(rows):
    ref, policy = torch.tensor(rows, dtype=torch.float64).unbind(-1)
    return ref, policy


@few
@given(rows=pairs, epsilon=margins)
def test_a_flip_is_a_drop_of_more_than_epsilon(rows, epsilon):
    """Eqs. 7 to 10 against plain Python."""
    ref, policy = columns(rows)
    expected = [r - p > epsilon for r, p in rows]
    assert reward_flips(ref, policy, epsilon=epsilon).tolist() == expected
    assert likelihood_flips(ref, policy, epsilon=epsilon, tolerance=0.0).tolist() == expected
    assert flip_indicator(ref, policy, threshold=epsilon).tolist() == expected


@few
@given(values=st.lists(st.floats(), min_size=1, max_size=8), epsilon=margins, tolerance=margins)
def test_an_unchanged_policy_never_flips(values, epsilon, tolerance):
    """At pi == pi_0 the gap is 0 (or NaN, where both are infinite or missing), whatever epsilon >= 0."""
    same = torch.tensor(values, dtype=torch.float64)
    assert not reward_flips(same, same, epsilon=epsilon).any()
    assert not likelihood_flips(same, same, epsilon=epsilon, tolerance=tolerance).any()
    assert not flip_margin(same, same, epsilon=epsilon).any()


@few
@given(rows=pairs, epsilon=margins, more=margins)
def test_a_larger_epsilon_never_adds_a_flip(rows, epsilon, more):
    ref, policy = columns(rows)
    assert not (reward_flips(ref, policy, epsilon=epsilon + more) & ~reward_flips(ref, policy, epsilon=epsilon)).any()


@few
@given(rows=pairs, epsilon=margins, tolerance=margins)
def test_tolerance_and_epsilon_add_up(rows, epsilon, tolerance):
    ref, policy = columns(rows)
    strict = likelihood_flips(ref, policy, epsilon=epsilon, tolerance=tolerance)
    assert torch.equal(strict, likelihood_flips(ref, policy, epsilon=epsilon + tolerance, tolerance=0.0))


@few
@given(rows=pairs, beta=st.floats(0.01, 1.0), log_z=st.floats(-100, 100))
def test_the_partition_function_cancels_between_the_two_premises(rows, beta, log_z):
    """(7) on r* = beta log(pi/pi_0) + beta log Z of Eq. 6 is (8): Z is the prompt's, and pi_0 earns beta log Z."""
    ref, policy = columns([(r / 1e4, p / 1e4) for r, p in rows])
    earned = implicit_rewards(policy, ref, beta=beta) + beta * log_z
    by_pi_0 = implicit_rewards(ref, ref, beta=beta) + beta * log_z
    epsilon = 0.1
    far_from_the_edge = (ref - policy - epsilon).abs() > 1e-6
    by_reward = reward_flips(by_pi_0, earned, epsilon=beta * epsilon)
    by_likelihood = likelihood_flips(ref, policy, epsilon=epsilon, tolerance=0.0)
    assert torch.equal(by_reward[far_from_the_edge], by_likelihood[far_from_the_edge])


def test_a_missing_reward_is_never_a_flip():
    ref = torch.tensor([math.nan, 5.0, math.nan, 5.0])
    policy = torch.tensor([0.0, math.nan, math.nan, 0.0])
    assert reward_flips(ref, policy, epsilon=0.1).tolist() == [False, False, False, True]
    assert flip_margin(ref, policy, epsilon=0.0).tolist() == [0.0, 0.0, 0.0, 5.0]


def test_a_missing_reward_sends_no_nan_into_the_gradient_of_the_margin():
    policy = torch.tensor([math.nan, 0.0], requires_grad=True)
    flip_margin(torch.tensor([1.0, 1.0]), policy, epsilon=0.0).sum().backward()
    assert policy.grad.tolist() == [0.0, -1.0]


def test_losing_all_probability_is_a_flip():
    assert likelihood_flips(torch.tensor([-5.0]), torch.tensor([-math.inf]), epsilon=0.0, tolerance=0.1).item()


def test_flips_are_boolean_and_carry_no_gradient():
    policy = torch.tensor([0.0, 2.0], requires_grad=True)
    flips = likelihood_flips(torch.tensor([1.0, 1.0]), policy, epsilon=0.0, tolerance=0.0)
    assert flips.dtype == torch.bool
    assert not flips.requires_grad


@few
@given(rows=pairs, epsilon=margins)
def test_the_margin_is_positive_exactly_where_an_example_flips(rows, epsilon):
    ref, policy = columns(rows)
    margin = flip_margin(ref, policy, epsilon=epsilon)
    clear = (ref - policy - epsilon).abs() > 1e-6
    assert torch.equal((margin > 0)[clear], reward_flips(ref, policy, epsilon=epsilon)[clear])
    assert (margin >= 0).all()


def test_coarser_numbers_need_a_larger_tolerance():
    by_precision = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
    tolerances = [rounding_tolerance(dtype) for dtype in by_precision]
    assert tolerances == sorted(tolerances)
    assert rounding_tolerance(torch.float32) > 8e-6  # what was seen
    assert rounding_tolerance(torch.bfloat16) > 4e-2  # what was seen


def test_rounding_alone_is_no_flip():
    ref = torch.tensor([-100.0, -100.0])
    policy = ref - torch.tensor([8e-6, 1e-2])
    tolerance = rounding_tolerance(torch.float32)
    assert likelihood_flips(ref, policy, epsilon=0.0, tolerance=tolerance).tolist() == [False, True]


def test_a_dtype_without_a_tolerance_is_refused_with_the_choices():
    with pytest.raises(ValueError, match=r"no rounding tolerance for torch\.int64; choose one of: torch\.float64"):
        rounding_tolerance(torch.int64)
