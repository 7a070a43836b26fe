"""KTO: its value function, its reference point, and what it shares with the pairwise losses."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flipguard.objective.pairs import PairLogps
from flipguard.objective.preference import apo_zero
from flipguard.objective.unpaired import UnpairedLogps, kto, reference_point

B = 6
few = settings(deadline=None, max_examples=15)
seeds = st.integers(0, 2**31)
betas = st.floats(0.01, 1.0)


def rows(seed=0, *, z_0=0.0):
    rng = torch.Generator().manual_seed(seed)
    ref = -20 - 5 * torch.rand(B, generator=rng, dtype=torch.float64)
    policy = (ref + torch.randn(B, generator=rng, dtype=torch.float64)).requires_grad_()
    desirable = torch.rand(B, generator=rng) < 0.5
    return UnpairedLogps(policy, ref, desirable, torch.tensor(z_0, dtype=torch.float64))


@few
@given(seed=seeds, beta=betas, z_0=st.floats(0, 5), good=st.floats(0, 3), bad=st.floats(0, 3))
def test_kto_is_its_value_function_by_hand(seed, beta, z_0, good, bad):
    logps = rows(seed, z_0=z_0)
    expected = []
    for policy, ref, desirable in zip(*(column.tolist() for column in logps[:3]), strict=True):
        sign, weight = (1, good) if desirable else (-1, bad)
        expected.append(weight * (1 - 1 / (1 + math.exp(-sign * beta * (policy - ref - z_0)))))
    losses = kto(logps, beta=beta, desirable_weight=good, undesirable_weight=bad)
    assert losses.tolist() == pytest.approx(expected, rel=1e-9)


@few
@given(seed=seeds, beta=betas)
def test_with_a_reference_point_of_zero_kto_on_both_halves_of_a_pair_is_apo_zero(seed, beta):
    a, b = rows(seed), rows(seed + 1)
    good = kto(a._replace(desirable=torch.ones(B, dtype=torch.bool)), beta=beta)
    bad = kto(b._replace(desirable=torch.zeros(B, dtype=torch.bool)), beta=beta)
    lengths = torch.ones(B)
    pairs = PairLogps(a.policy, b.policy, a.ref, b.ref, lengths, lengths)
    torch.testing.assert_close(good + bad, apo_zero(pairs, beta=beta))


@few
@given(seed=seeds, beta=betas, z_0=st.floats(0, 5))
def test_desirable_completions_go_up_and_the_others_down(seed, beta, z_0):
    logps = rows(seed, z_0=z_0)
    kto(logps, beta=beta).sum().backward()
    assert ((logps.policy.grad < 0) == logps.desirable).all()


@few
@given(seed=seeds)
def test_gradients_are_those_of_finite_differences(seed):
    logps = rows(seed, z_0=0.3)
    assert torch.autograd.gradcheck(lambda policy: kto(logps._replace(policy=policy), beta=0.5), (logps.policy,))


def test_the_reference_point_is_a_mean_that_is_never_negative_and_has_no_gradient():
    log_ratios = torch.tensor([2.0, 1.0], requires_grad=True)
    assert reference_point(log_ratios.mean()).item() == 1.5
    assert not reference_point(log_ratios.mean()).requires_grad
    assert reference_point(-log_ratios.mean()).item() == 0.0
