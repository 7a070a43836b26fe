"""The second term of Eq. 11: gates, reductions, and what it does to gradients."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flipguard.objective.constraint import (
    constraint_loss,
    focal_constraint,
    gate_weights,
    gated_divergence,
    reduce_tokens,
)
from flipguard.objective.divergences import cross_entropy
from flipguard.objective.flips import flip_margin, likelihood_flips, token_flips
from flipguard.objective.logprobs import sequence_logps

B, T = 4, 6
few = settings(deadline=None, max_examples=15)
seeds = st.integers(0, 2**31)
gammas = st.floats(1e-3, 10)
every_gate = pytest.mark.parametrize("gate", ["flip", "always", "off", "soft"])
every_reduction = pytest.mark.parametrize("reduction", ["sum", "mean"])


def batch(seed, dtype=torch.float64):
    """Log-probabilities of B chosen completions under the policy, their lengths, sums under pi_0, who flipped."""
    rng = torch.Generator().manual_seed(seed)
    lengths = torch.randint(0, T, (B,), generator=rng)
    inside = torch.arange(T - 1) < lengths.unsqueeze(-1)
    token_logps = (torch.randn(B, T - 1, generator=rng, dtype=torch.float64) - 3).clamp(max=-0.01)
    token_logps = token_logps.to(dtype).masked_fill(~inside, 0.0).requires_grad_()
    ref_logps = token_logps.detach().sum(-1) + torch.randn(B, generator=rng, dtype=torch.float64).to(dtype)
    flips = likelihood_flips(ref_logps, sequence_logps(token_logps), epsilon=0.0, tolerance=0.0)
    return token_logps, lengths, ref_logps, flips


# -- the paper's constraint -------------------------------------------------------------------------------------------


@few
@given(seed=seeds, gamma=gammas)
def test_only_examples_that_flipped_pay_and_the_mean_is_over_all(seed, gamma):
    """Eq. 12 by hand."""
    token_logps, lengths, _, flips = batch(seed)
    expected = sum(-gamma * token_logps[b].sum().item() for b in range(B) if flips[b]) / B
    loss = constraint_loss(cross_entropy(token_logps), lengths, flips, gamma=gamma)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(expected, abs=1e-12)


@every_gate
@every_reduction
@few
@given(seed=seeds)
def test_zero_gamma_gives_the_alignment_loss_back_bit_for_bit(seed, gate, reduction):
    token_logps, lengths, _, flips = batch(seed, dtype=torch.float32)
    alignment = -sequence_logps(token_logps).tanh().mean()
    term = constraint_loss(cross_entropy(token_logps), lengths, flips, gamma=0.0, gate=gate, reduction=reduction)
    assert torch.equal(alignment + term, alignment)
    guarded = torch.autograd.grad(alignment + term, token_logps, retain_graph=True)
    assert torch.equal(*guarded, *torch.autograd.grad(alignment, token_logps))


@few
@given(seed=seeds, gamma=gammas)
def test_a_gate_that_is_off_gives_the_alignment_loss_back_bit_for_bit(seed, gamma):
    token_logps, lengths, _, flips = batch(seed, dtype=torch.float32)
    alignment = -sequence_logps(token_logps).tanh().mean()
    term = constraint_loss(cross_entropy(token_logps), lengths, flips, gamma=gamma, gate="off")
    assert torch.equal(alignment + term, alignment)
    guarded = torch.autograd.grad(alignment + term, token_logps, retain_graph=True)
    assert torch.equal(*guarded, *torch.autograd.grad(alignment, token_logps))


@few
@given(seed=seeds, gamma=gammas)
def test_examples_that_did_not_flip_get_no_gradient(seed, gamma):
    token_logps, lengths, _, flips = batch(seed)
    constraint_loss(cross_entropy(token_logps), lengths, flips, gamma=gamma).backward()
    assert torch.equal(token_logps.grad[~flips], torch.zeros_like(token_logps.grad[~flips]))
    assert (token_logps.grad[flips] < 0).all()


@pytest.mark.parametrize("gamma", [0.0, 0.5])
@pytest.mark.parametrize("broken", [math.inf, -math.inf, math.nan])
def test_a_broken_divergence_behind_a_closed_gate_reaches_neither_loss_nor_gradient(gamma, broken):
    divergence = torch.tensor([broken, 2.0], requires_grad=True)
    flips = torch.tensor([False, True])
    terms = [
        constraint_loss(divergence.unsqueeze(-1), torch.ones(2), flips, gamma=gamma),
        focal_constraint(divergence, flips, gamma=gamma),
    ]
    for term in terms:
        assert term.item() == gamma
        assert torch.autograd.grad(term, divergence)[0].tolist() == [0.0, gamma / 2]


def test_zero_gamma_does_not_even_look_at_a_divergence_that_overflowed():
    divergence = torch.tensor([[math.inf]], requires_grad=True)
    term = constraint_loss(divergence, torch.ones(1), torch.tensor([True]), gamma=0.0)
    term.backward()
    assert term.item() == 0.0
    assert divergence.grad.item() == 0.0


@few
@given(seed=seeds, gamma=gammas, epsilon=st.floats(0, 2))
def test_the_guard_has_the_gradient_of_a_hinge_on_the_chosen_log_probability(seed, gamma, epsilon):
    """The indicator is piecewise constant, so (12) descends like gamma * max(0, log pi_0 - log pi - epsilon)."""
    token_logps, lengths, ref_logps, _ = batch(seed)
    logps = sequence_logps(token_logps)
    flips = likelihood_flips(ref_logps, logps, epsilon=epsilon, tolerance=0.0)
    guard = constraint_loss(cross_entropy(token_logps), lengths, flips, gamma=gamma)
    hinge = gamma * flip_margin(ref_logps, logps, epsilon=epsilon).mean()
    ours = torch.autograd.grad(guard, token_logps, retain_graph=True)
    torch.testing.assert_close(ours, torch.autograd.grad(hinge, token_logps), rtol=0, atol=1e-12)


@few
@given(seed=seeds, gamma=gammas)
def test_the_composition_is_the_equation(seed, gamma):
    token_logps, lengths, _, flips = batch(seed)
    divergence = cross_entropy(token_logps)
    composed = constraint_loss(divergence, lengths, flips, gamma=gamma)
    assert torch.equal(composed, focal_constraint(divergence.sum(-1), flips, gamma=gamma))


@few
@given(seed=seeds)
def test_the_penalty_vanishes_as_the_flips_do(seed):
    token_logps, lengths, _, flips = batch(seed)
    fewer_and_fewer = (flips, flips & (torch.arange(B) % 2 == 0), torch.zeros_like(flips))
    losses = [constraint_loss(cross_entropy(token_logps), lengths, left, gamma=1.0).item() for left in fewer_and_fewer]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] == 0.0


# -- gates ------------------------------------------------------------------------------------------------------------


@few
@given(seed=seeds, gamma=gammas)
def test_distillation_is_the_guard_with_everyone_flipped(seed, gamma):
    """The KD baseline: the indicator replaced by 1."""
    token_logps, lengths, _, flips = batch(seed)
    divergence = cross_entropy(token_logps)
    kd = constraint_loss(divergence, lengths, flips, gamma=gamma, gate="always")
    assert torch.equal(kd, constraint_loss(divergence, lengths, torch.ones_like(flips), gamma=gamma))
    assert kd.item() == pytest.approx(gamma * divergence.sum(-1).mean().item(), abs=1e-12)


@few
@given(seed=seeds, a=st.floats(0, 2), b=st.floats(0, 2))
def test_the_soft_gate_mixes_distillation_and_guard(seed, a, b):
    token_logps, lengths, _, flips = batch(seed)
    soft, always, flip = (
        constraint_loss(cross_entropy(token_logps), lengths, flips, gamma=1.0, gate=gate, soft=(a, b))
        for gate in ("soft", "always", "flip")
    )
    torch.testing.assert_close(soft, a * always + b * flip, rtol=1e-12, atol=1e-12)


@every_gate
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_weights_come_in_the_dtype_asked_for_and_carry_no_gradient(gate, dtype):
    weights = gate_weights(torch.tensor([True, False]), gate, dtype=dtype)
    assert weights.dtype == dtype
    assert weights.shape == (2,)
    assert not weights.requires_grad
    assert (weights >= 0).all()


def test_the_gates_weigh_flipped_and_unflipped_examples_as_named():
    flips = torch.tensor([True, False])
    weights = {gate: gate_weights(flips, gate, soft=(0.25, 0.5)).tolist() for gate in ("flip", "always", "off", "soft")}
    assert weights == {"flip": [1.0, 0.0], "always": [1.0, 1.0], "off": [0.0, 0.0], "soft": [0.75, 0.25]}


def test_an_unknown_gate_stops_at_once_and_names_the_choices():
    with pytest.raises(ValueError, match="unknown gate 'open'; choose one of: flip, always, off, soft, token"):
        gate_weights(torch.tensor([True]), "open")


def test_an_unknown_reduction_stops_at_once_and_names_the_choices():
    with pytest.raises(ValueError, match="unknown reduction 'max'; choose one of: sum, mean"):
        reduce_tokens(torch.zeros(1, 2), torch.ones(1), "max")


def test_a_soft_gate_with_no_floor_is_as_safe_as_the_hard_one():
    divergence = torch.tensor([math.nan, 1.0], requires_grad=True)
    weights = gate_weights(torch.tensor([False, True]), "soft", soft=(0.0, 1.0))
    gated_divergence(divergence, weights).sum().backward()
    assert divergence.grad.tolist() == [0.0, 1.0]


# -- the gate of tokens -----------------------------------------------------------------------------------------------


def token_batch(seed):
    token_logps, lengths, *_ = batch(seed)
    rng = torch.Generator().manual_seed(seed + 1)
    inside = torch.arange(T - 1) < lengths.unsqueeze(-1)
    noise = torch.randn(B, T - 1, generator=rng, dtype=torch.float64)
    return token_logps, lengths, (token_logps.detach() + noise).masked_fill(~inside, 0.0)


@few
@given(seed=seeds, gamma=gammas, epsilon=st.floats(0, 1))
def test_the_token_gate_has_the_gradient_of_a_hinge_on_every_token(seed, gamma, epsilon):
    token_logps, lengths, ref = token_batch(seed)
    flips = token_flips(ref, token_logps, epsilon=epsilon, tolerance=0.0)
    guard = constraint_loss(cross_entropy(token_logps), lengths, flips, gamma=gamma, gate="token")
    hinge = gamma * flip_margin(ref, token_logps, epsilon=epsilon).sum(-1).mean()
    ours = torch.autograd.grad(guard, token_logps, retain_graph=True)
    torch.testing.assert_close(ours, torch.autograd.grad(hinge, token_logps), rtol=0, atol=1e-12)


@few
@given(seed=seeds)
def test_tokens_that_did_not_fall_pay_nothing_even_in_a_completion_that_did(seed):
    token_logps, lengths, ref = token_batch(seed)
    flips = token_flips(ref, token_logps, epsilon=0.0, tolerance=0.0)
    constraint_loss(cross_entropy(token_logps), lengths, flips, gamma=1.0, gate="token").backward()
    assert torch.equal(token_logps.grad != 0, flips)


@few
@given(seed=seeds)
def test_a_completion_that_flips_has_a_token_that_does(seed):
    token_logps, _, ref = token_batch(seed)
    whole = likelihood_flips(ref.sum(-1), token_logps.sum(-1), epsilon=0.0, tolerance=0.0)
    assert (token_flips(ref, token_logps, epsilon=0.0, tolerance=0.0).any(-1) | ~whole).all()


@every_reduction
@few
@given(seed=seeds, epsilon=st.floats(0, 1))
def test_for_completions_of_one_token_the_token_gate_is_the_guard(reduction, seed, epsilon):
    token_logps, _, ref = token_batch(seed)
    token_logps, ref = token_logps[:, :1], ref[:, :1]
    ones = torch.ones(B)
    tokens = token_flips(ref, token_logps, epsilon=epsilon, tolerance=0.0)
    whole = likelihood_flips(ref.sum(-1), token_logps.sum(-1), epsilon=epsilon, tolerance=0.0)
    divergence = cross_entropy(token_logps)
    by_token = constraint_loss(divergence, ones, tokens, gamma=0.3, gate="token", reduction=reduction)
    torch.testing.assert_close(by_token, constraint_loss(divergence, ones, whole, gamma=0.3, reduction=reduction))


@every_reduction
@few
@given(seed=seeds)
def test_the_token_gate_with_every_token_open_is_distillation(reduction, seed):
    token_logps, lengths, _ = token_batch(seed)
    divergence, everything = cross_entropy(token_logps), torch.ones(B, T - 1, dtype=torch.bool)
    by_token = constraint_loss(divergence, lengths, everything, gamma=0.3, gate="token", reduction=reduction)
    kd = constraint_loss(divergence, lengths, everything[:, 0], gamma=0.3, gate="always", reduction=reduction)
    torch.testing.assert_close(by_token, kd)


def test_a_broken_divergence_of_a_token_behind_its_gate_reaches_neither_loss_nor_gradient():
    divergence = torch.tensor([[math.nan, 2.0]], requires_grad=True)
    term = constraint_loss(divergence, torch.tensor([2]), torch.tensor([[False, True]]), gamma=0.5, gate="token")
    term.backward()
    assert term.item() == 1.0
    assert divergence.grad.tolist() == [[0.0, 0.5]]


# -- reductions -------------------------------------------------------------------------------------------------------


@few
@given(seed=seeds)
def test_sum_and_mean_are_one_over_length_apart(seed):
    token_logps, lengths, *_ = batch(seed)
    total, mean = (reduce_tokens(token_logps, lengths, reduction) for reduction in ("sum", "mean"))
    torch.testing.assert_close(mean * lengths, total, rtol=1e-12, atol=1e-12)


@every_reduction
def test_an_empty_completion_costs_nothing(reduction):
    values = torch.zeros(2, 3, requires_grad=True)
    reduced = reduce_tokens(values, torch.tensor([0, 0]), reduction)
    reduced.sum().backward()
    assert reduced.tolist() == [0.0, 0.0]
    assert values.grad.isfinite().all()


@every_gate
@every_reduction
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_term_keeps_the_dtype_of_the_divergence(gate, reduction, dtype):
    token_logps, lengths, _, flips = batch(0, dtype=dtype)
    term = constraint_loss(cross_entropy(token_logps), lengths, flips, gamma=0.1, gate=gate, reduction=reduction)
    assert term.dtype == dtype


@pytest.mark.parametrize(("gate", "reduction"), list(itertools.product(["flip", "always", "soft"], ["sum", "mean"])))
def test_the_gradient_of_the_term_is_that_of_finite_differences(gate, reduction):
    token_logps, lengths, _, flips = batch(3)

    def term(values):
        return constraint_loss(cross_entropy(values), lengths, flips, gamma=0.3, gate=gate, reduction=reduction)

    assert torch.autograd.gradcheck(term, (token_logps,))
