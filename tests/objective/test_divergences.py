"""The D of Eq. 11: identities, oracles, and one suite every divergence passes. To add yours, add a row to the table."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.stats import entropy

from flipguard.objective.divergences import (
    DIVERGENCE_NAMES,
    DIVERGENCES,
    cross_entropy,
    forward_kl,
    jensen_shannon,
    reverse_kl,
    wasserstein,
)

V = 5
few = settings(deadline=None, max_examples=15)
seeds = st.integers(0, 2**31)
every_divergence = pytest.mark.parametrize("name", sorted(DIVERGENCES))


def logits(seed, *shape, scale=2.0, dtype=torch.float64):
    return scale * torch.randn(*(shape or (V,)), generator=torch.Generator().manual_seed(seed), dtype=dtype)


def two_policies(seed, *shape):
    return logits(seed, *shape).log_softmax(-1), logits(seed + 1, *shape).log_softmax(-1)


# -- every divergence -------------------------------------------------------------------------------------------------


@every_divergence
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_number_per_token_in_the_dtype_of_its_inputs(name, dtype):
    ref, policy = (logprobs.to(dtype) for logprobs in two_policies(0, 2, 3, V))
    values = DIVERGENCES[name](ref, policy)
    assert values.shape == (2, 3)
    assert values.dtype == dtype


@every_divergence
@few
@given(seed=seeds)
def test_a_divergence_is_positive_unless_the_policies_agree(name, seed):
    ref, policy = two_policies(seed, 4, V)
    assert (DIVERGENCES[name](ref, policy) > 1e-9).all()
    assert DIVERGENCES[name](ref, ref).abs().max() < 1e-12


@every_divergence
@pytest.mark.parametrize("seed", range(5))
def test_the_gradient_in_the_policy_is_that_of_finite_differences(name, seed):
    ref, scores = two_policies(seed)[0], logits(seed + 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: DIVERGENCES[name](ref, z.log_softmax(-1)), (scores,))


@every_divergence
@few
@given(seed=seeds)
def test_a_step_down_the_gradient_brings_the_policy_closer(name, seed):
    ref, scores = two_policies(seed)[0], logits(seed + 1).requires_grad_()
    before = DIVERGENCES[name](ref, scores.log_softmax(-1))
    before.backward()
    after = DIVERGENCES[name](ref, (scores - 1e-4 * scores.grad).log_softmax(-1))
    assert after < before


@every_divergence
@few
@given(seed=seeds)
def test_renaming_the_tokens_changes_nothing(name, seed):
    """Token ids have no order."""
    ref, policy = two_policies(seed)
    order = torch.randperm(V, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(DIVERGENCES[name](ref[order], policy[order]), DIVERGENCES[name](ref, policy))


@every_divergence
@pytest.mark.parametrize("scale", [1.0, 1e2, 1e4])
def test_vanishing_probabilities_leave_value_and_gradient_finite(name, scale):
    ref = logits(0, 8, V, scale=scale, dtype=torch.float32).log_softmax(-1)
    scores = logits(1, 8, V, scale=scale, dtype=torch.float32).requires_grad_()
    values = DIVERGENCES[name](ref, scores.log_softmax(-1))
    values.sum().backward()
    assert values.isfinite().all()
    assert scores.grad.isfinite().all()


@every_divergence
def test_a_token_that_both_exclude_counts_for_nothing(name):
    """Padded vocabularies carry -inf logits."""
    ref, scores = two_policies(3)[0], logits(4)
    nothing = torch.full((1,), -math.inf, dtype=torch.float64)
    padded = torch.cat([scores, nothing]).requires_grad_()
    value = DIVERGENCES[name](torch.cat([ref, nothing]), padded.log_softmax(-1))
    value.backward()
    torch.testing.assert_close(value, DIVERGENCES[name](ref, scores.log_softmax(-1)))
    assert padded.grad.isfinite().all()
    assert padded.grad[-1] == 0


@pytest.mark.parametrize("name", ["js", "kl", "wasserstein"])
def test_a_token_that_pi_0_excludes_has_a_finite_gradient(name):
    ref = torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64).log()
    scores = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    value = DIVERGENCES[name](ref, scores.log_softmax(-1))
    value.backward()
    assert value.isfinite()
    assert scores.grad.isfinite().all()
    assert scores.grad[-1] > 0  # down it should go


@pytest.mark.parametrize("name", ["js", "kl", "wasserstein"])
def test_a_token_that_the_policy_excludes_has_a_finite_gradient(name):
    ref = torch.full((3,), 1 / 3, dtype=torch.float64).log()
    scores = torch.tensor([0.0, 0.0, -math.inf], dtype=torch.float64, requires_grad=True)
    value = DIVERGENCES[name](ref, scores.log_softmax(-1))
    value.backward()
    assert value > 0
    assert scores.grad.isfinite().all()


@pytest.mark.parametrize(("divergence", "given_mass"), [(forward_kl, "ref"), (reverse_kl, "policy")])
def test_kl_is_infinite_where_one_excludes_what_the_other_holds_possible(divergence, given_mass):
    whole, part = torch.tensor([0.5, 0.5]).log(), torch.tensor([1.0, 0.0]).log()
    infinite, finite = divergence(whole, part), divergence(part, whole)
    if given_mass == "policy":
        infinite, finite = finite, infinite
    assert infinite == math.inf
    assert finite.item() == pytest.approx(math.log(2))


def test_recipes_may_name_every_divergence_and_the_cross_entropy():
    assert DIVERGENCE_NAMES == ("ce", "kl", "reverse_kl", "js", "wasserstein")


# -- each one's own identities and oracles ----------------------------------------------------------------------------


@few
@given(seed=seeds)
def test_kl_and_cross_entropy_pull_the_policy_the_same_way(seed):
    """Appendix A, Eq. 15: they differ by H(pi_0), which has no gradient in the policy."""
    ref = logits(seed).log_softmax(-1)
    for_kl, for_ce = logits(seed + 1).requires_grad_(), logits(seed + 1).requires_grad_()
    kl = forward_kl(ref, for_kl.log_softmax(-1))
    policy = for_ce.log_softmax(-1)
    targets = torch.arange(V)  # every y*, drawn from pi_0: enumeration is the expectation
    ce = (ref.exp() * cross_entropy(policy[targets])).sum()
    kl.backward()
    ce.backward()
    torch.testing.assert_close(for_kl.grad, for_ce.grad, rtol=0, atol=1e-12)
    assert (ce - kl).item() == pytest.approx(entropy(ref.exp().numpy()), abs=1e-12)


@few
@given(seed=seeds)
def test_kl_and_cross_entropy_pull_alike_over_whole_sequences_too(seed):
    """Eqs. 13 to 15 for every sequence of two tokens; log pi(y|x) is the sum over its tokens."""
    ref_first, ref_second = logits(seed, V).log_softmax(-1), logits(seed + 1, V, V).log_softmax(-1)
    parameters = [logits(seed + 2, V).requires_grad_(), logits(seed + 3, V, V).requires_grad_()]
    first, second = parameters[0].log_softmax(-1), parameters[1].log_softmax(-1)
    kl, ce = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for a, b in itertools.product(range(V), repeat=2):
        ref_logp = ref_first[a] + ref_second[a, b]
        kl = kl + ref_logp.exp() * (ref_logp - first[a] - second[a, b])
        ce = ce + ref_logp.exp() * cross_entropy(torch.stack([first[a], second[a, b]])).sum()
    per_token = forward_kl(ref_first, first) + (ref_first.exp() * forward_kl(ref_second, second)).sum()
    assert per_token.item() == pytest.approx(kl.item(), abs=1e-12)  # the chain rule of KL
    theirs = torch.autograd.grad(ce, parameters, retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(per_token, parameters), theirs, rtol=0, atol=1e-12)


@few
@given(seed=seeds)
def test_cross_entropy_is_kl_against_a_certain_target(seed):
    """Eq. 12: pi_0(y*) := 1 turns (11) into -log pi(y*)."""
    policy = logits(seed).log_softmax(-1)
    target = seed % V
    certain = torch.full((V,), -math.inf, dtype=torch.float64)
    certain[target] = 0.0
    assert forward_kl(certain, policy).item() == pytest.approx(cross_entropy(policy[target]).item(), abs=1e-12)


@few
@given(seed=seeds)
def test_kl_is_the_relative_entropy_of_scipy(seed):
    ref, policy = two_policies(seed)
    p_0, p = ref.exp().numpy(), policy.exp().numpy()
    assert forward_kl(ref, policy).item() == pytest.approx(entropy(p_0, p), rel=1e-9, abs=1e-12)
    assert reverse_kl(ref, policy).item() == pytest.approx(entropy(p, p_0), rel=1e-9, abs=1e-12)


@few
@given(seed=seeds)
def test_jensen_shannon_is_symmetric_and_at_most_log_two(seed):
    ref, policy = two_policies(seed)
    value = jensen_shannon(ref, policy)
    torch.testing.assert_close(value, jensen_shannon(policy, ref), rtol=1e-12, atol=1e-15)
    assert 0 <= value <= math.log(2)


@few
@given(seed=seeds)
def test_jensen_shannon_is_the_entropy_of_the_mixture_minus_the_mean_entropy(seed):
    ref, policy = two_policies(seed)
    p_0, p = ref.exp().numpy(), policy.exp().numpy()
    expected = entropy((p_0 + p) / 2) - (entropy(p_0) + entropy(p)) / 2
    assert jensen_shannon(ref, policy).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_disjoint_policies_are_as_far_apart_as_can_be():
    left, right = torch.tensor([1.0, 0.0]).log(), torch.tensor([0.0, 1.0]).log()
    assert jensen_shannon(left, right).item() == pytest.approx(math.log(2))
    assert wasserstein(left, right).item() == 1.0


@few
@given(seed=seeds)
def test_wasserstein_is_the_cheapest_transport_under_the_zero_one_cost(seed):
    """The linear programme itself: a plan >= 0 with the right margins, moving as little mass as possible."""
    ref, policy = two_policies(seed)
    cost = 1.0 - np.eye(V)
    rows, columns = np.kron(np.eye(V), np.ones(V)), np.kron(np.ones(V), np.eye(V))
    margins = np.concatenate([ref.exp().numpy(), policy.exp().numpy()])
    cheapest = linprog(cost.ravel(), A_eq=np.vstack([rows, columns])[:-1], b_eq=margins[:-1])
    assert wasserstein(ref, policy).item() == pytest.approx(cheapest.fun, abs=1e-9)


@few
@given(seed=seeds)
def test_wasserstein_obeys_pinskers_inequality(seed):
    """TV <= sqrt(KL / 2): a check across two divergences written independently."""
    ref, policy = two_policies(seed)
    assert wasserstein(ref, policy) <= (forward_kl(ref, policy) / 2).sqrt() + 1e-12
