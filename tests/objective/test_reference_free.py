"""SimPO, ORPO and CPO: what each of them is, by hand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flipguard.objective.pairs import PairLogps
from flipguard.objective.preference import dpo
from flipguard.objective.reference_free import cpo, orpo, simpo

B = 4
few = settings(deadline=None, max_examples=15)
seeds = st.integers(0, 2**31)
betas = st.floats(0.01, 3.0)


def pairs(seed=0):
    rng = torch.Generator().manual_seed(seed)
    chosen, rejected = (-1 - 9 * torch.rand(2, B, generator=rng, dtype=torch.float64)).unbind(0)
    lengths = torch.randint(1, 9, (2, B), generator=rng)
    return PairLogps(chosen.requires_grad_(), rejected.requires_grad_(), chosen * 0, rejected * 0, *lengths.unbind(0))


@few
@given(seed=seeds, beta=betas, margin=st.floats(0, 3))
def test_simpo_is_the_bradley_terry_loss_of_rewards_per_token_less_a_margin(seed, beta, margin):
    logps = pairs(seed)
    rows = zip(*(column.tolist() for column in (*logps[:2], *logps[4:])), strict=True)
    expected = [math.log1p(math.exp(-(beta * (c / n - r / m) - margin))) for c, r, n, m in rows]
    assert simpo(logps, beta=beta, target_margin=margin).tolist() == pytest.approx(expected, rel=1e-9)


@few
@given(seed=seeds, beta=betas)
def test_simpo_sees_averages_so_repeating_a_text_changes_nothing(seed, beta):
    logps = pairs(seed)
    torch.testing.assert_close(simpo(logps, beta=beta), simpo(PairLogps(*(2 * column for column in logps)), beta=beta))


@few
@given(seed=seeds, beta=betas)
def test_orpo_is_the_likelihood_plus_the_log_odds_ratio_in_plain_probabilities(seed, beta):
    logps = pairs(seed)

    def odds(mean_logp):
        return math.exp(mean_logp) / (1 - math.exp(mean_logp))

    expected = []
    for c, r, n, m in zip(*(column.tolist() for column in (*logps[:2], *logps[4:])), strict=True):
        ratio = odds(c / n) / odds(r / m)
        expected.append(-c / n - beta * math.log(ratio / (1 + ratio)))
    assert orpo(logps, beta=beta).tolist() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_orpo_of_a_completion_that_is_certain_is_finite_and_so_is_its_gradient(dtype):
    chosen, rejected = (torch.tensor([0.0, -1e-12, -1e5], dtype=dtype).requires_grad_() for _ in range(2))
    ones = torch.ones(3, dtype=dtype)
    loss = orpo(PairLogps(chosen, rejected.flip(0), ones, ones, ones, ones), beta=0.1)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert chosen.grad.isfinite().all()
    assert rejected.grad.isfinite().all()


@few
@given(seed=seeds, beta=betas, alpha=st.floats(0, 2))
def test_cpo_is_dpo_without_a_reference_plus_the_likelihood_per_token(seed, beta, alpha):
    logps = pairs(seed)
    added = cpo(logps, beta=beta, alpha=alpha) - dpo(logps, beta=beta, reference_free=True)
    torch.testing.assert_close(added, -alpha * logps.policy_chosen / logps.chosen_lengths)
