"""Eq. 1 and calibration, against brute force."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flipguard.objective.reward import accuracy, bradley_terry, calibration_error

margins = st.lists(st.floats(-8, 8), min_size=1, max_size=60)


@given(margins)
def test_the_loss_is_the_cross_entropy_of_the_label(values):
    """Eq. 1 is -log P(chosen wins) when strengths are exponentials of rewards."""
    chosen = torch.tensor(values, dtype=torch.float64)
    wins = chosen.exp() / (chosen.exp() + 1)
    assert torch.allclose(bradley_terry(chosen, torch.zeros_like(chosen)), -wins.log())


def test_what_cannot_be_told_costs_log_2():
    assert bradley_terry(torch.ones(1), torch.ones(1)).item() == pytest.approx(math.log(2))


@given(margins, st.floats(-5, 5))
def test_a_constant_added_to_all_rewards_changes_nothing(values, shift):
    chosen = torch.tensor(values, dtype=torch.float64)
    moved = bradley_terry(chosen + shift, torch.full_like(chosen, shift))
    assert torch.allclose(moved, bradley_terry(chosen, torch.zeros_like(chosen)))


def test_the_gradient_pulls_the_two_rewards_apart_alike():
    chosen, rejected = torch.tensor([0.3], requires_grad=True), torch.tensor([0.8], requires_grad=True)
    bradley_terry(chosen, rejected).sum().backward()
    assert chosen.grad.item() == pytest.approx(-1 / (1 + math.exp(-0.5)))
    assert rejected.grad.item() == pytest.approx(-chosen.grad.item())


def test_an_equal_score_is_half_right():
    assert accuracy(torch.tensor([1.0, -1.0, 0.0, 2.0])).item() == 0.625


@given(margins, st.integers(1, 12))
def test_calibration_is_the_weighted_gap_of_the_bins(values, bins):
    confidence = 1 / (1 + np.exp(-np.abs(values)))
    right = np.where(np.array(values) > 0, 1.0, np.where(np.array(values) == 0, 0.5, 0.0))
    place = np.minimum(((confidence - 0.5) * 2 * bins).astype(int), bins - 1)
    expected = sum(
        (place == at).mean() * abs(right[place == at].mean() - confidence[place == at].mean()) for at in set(place)
    )
    found = calibration_error(torch.tensor(values, dtype=torch.float64), bins=bins)
    assert found.item() == pytest.approx(expected, abs=1e-12)


def test_a_model_that_is_as_right_as_it_says_is_calibrated():
    sure = math.log(3)  # confidence 3/4
    assert calibration_error(torch.tensor([sure, sure, sure, -sure])).item() == pytest.approx(0, abs=1e-7)
    assert calibration_error(torch.tensor([9.0, -9.0])).item() == pytest.approx(0.5, abs=1e-3)


def test_no_pairs_are_no_error():
    assert calibration_error(torch.zeros(0)).item() == 0
