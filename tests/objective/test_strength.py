"""Gamma over time: schedules, and the ascent to a target."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flipguard.objective.strength import dual_ascent, scheduled_gamma

shares = st.floats(0, 1)
every_schedule = pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])


@every_schedule
@given(gamma=st.floats(0, 10), progress=shares, warmup=st.floats(0, 0.99))
def test_gamma_never_leaves_its_range(schedule, gamma, progress, warmup):
    value = scheduled_gamma(gamma, progress=progress, schedule=schedule, warmup=warmup)
    assert 0 <= value <= gamma * (1 + 1e-12)


@every_schedule
@given(warmup=st.floats(0.01, 0.99))
def test_gamma_starts_at_nothing_and_is_whole_after_the_warm_up(schedule, warmup):
    assert scheduled_gamma(1.0, progress=0.0, schedule=schedule, warmup=warmup) == 0.0
    assert scheduled_gamma(1.0, progress=warmup / 2, schedule=schedule, warmup=warmup) == pytest.approx(0.5)
    assert scheduled_gamma(1.0, progress=warmup, schedule=schedule, warmup=warmup) == 1.0


@pytest.mark.parametrize(
    ("schedule", "half", "end"), [("constant", 1.0, 1.0), ("linear", 0.5, 0.0), ("cosine", 0.5, 0.0)]
)
def test_what_comes_after_the_warm_up_is_as_named(schedule, half, end):
    assert scheduled_gamma(1.0, progress=0.6, schedule=schedule, warmup=0.2) == pytest.approx(half)
    assert scheduled_gamma(1.0, progress=1.0, schedule=schedule, warmup=0.2) == pytest.approx(end)


def test_an_unknown_schedule_stops_at_once_and_names_the_choices():
    with pytest.raises(ValueError, match="unknown schedule 'step'; choose one of: constant, linear, cosine"):
        scheduled_gamma(1.0, progress=0.5, schedule="step")


@given(gamma=st.floats(0, 10), flip_rate=shares, target=shares, rate=st.floats(1e-3, 1))
def test_gamma_rises_while_more_flips_than_the_target_and_falls_below_but_never_under_zero(
    gamma, flip_rate, target, rate
):
    after = dual_ascent(gamma, flip_rate=flip_rate, target=target, rate=rate)
    assert after == max(0.0, gamma + rate * (flip_rate - target))
    assert after >= 0
    assert (after >= gamma) if flip_rate >= target else (after <= gamma)


def test_ascent_finds_the_strength_at_which_the_target_is_just_met():
    """A world in which each unit of gamma takes a tenth of the flips away."""
    gamma = 0.0
    for _ in range(2000):
        gamma = dual_ascent(gamma, flip_rate=max(0.0, 0.5 - 0.1 * gamma), target=0.2, rate=0.1)
    assert gamma == pytest.approx(3.0, abs=1e-6)
