"""Pairwise losses: one suite for all of them, then each one's own identities. To add yours, add a row to the table."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flipguard.objective.pairs import PairLogps
from flipguard.objective.preference import (
    PREFERENCE_LOSSES,
    apo_down,
    apo_zero,
    dpo,
    dpop,
    hinge,
    implicit_rewards,
    ipo,
    nca,
    rpo,
    sppo,
)
from flipguard.objective.unpaired import UnpairedLogps

B = 4
few = settings(deadline=None, max_examples=15)
seeds = st.integers(0, 2**31)
betas = st.floats(0.01, 1.0)
REFERENCED = {name for name, row in PREFERENCE_LOSSES.items() if not row.reference_free}
every_loss = pytest.mark.parametrize("name", sorted(PREFERENCE_LOSSES))


def pairs(seed=0, *, spread=1.0, dtype=torch.float64):
    """A batch near pi_0: log-ratios of about `spread` nats, no probability above 1."""
    rng = torch.Generator().manual_seed(seed)
    ref_chosen, ref_rejected = (-20 - 5 * torch.rand(2, B, generator=rng, dtype=torch.float64)).to(dtype).unbind(0)
    c, r = (spread * torch.randn(2, B, generator=rng, dtype=torch.float64)).to(dtype).unbind(0)
    lengths = torch.randint(1, 9, (2, B), generator=rng)
    chosen, rejected = (
        (ref + ratio).clamp(max=0).requires_grad_() for ref, ratio in ((ref_chosen, c), (ref_rejected, r))
    )
    return PairLogps(chosen, rejected, ref_chosen, ref_rejected, *lengths.unbind(0))


def losses_of(name, logps, *, beta):
    """[B] of any loss; of an unpaired one, both completions of a pair are rows of their own."""
    row = PREFERENCE_LOSSES[name]
    if not row.unpaired:
        return row.function(logps, beta=beta)
    policy, ref = torch.cat(logps[:2]), torch.cat(logps[2:4])
    desirable = torch.arange(len(policy)) < len(policy) // 2
    losses = row.function(UnpairedLogps(policy, ref, desirable, ref.new_zeros(())), beta=beta)
    return losses.view(2, -1).sum(0)


def unchanged(seed=0, dtype=torch.float64):
    return pairs(seed, spread=0.0, dtype=dtype)


# -- every loss -------------------------------------------------------------------------------------------------------


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_loss_per_pair_in_the_dtype_of_its_inputs(name, dtype):
    losses = losses_of(name, pairs(dtype=dtype), beta=0.1)
    assert losses.shape == (B,)
    assert losses.dtype == dtype


@every_loss
@few
@given(seed=seeds, beta=betas)
def test_a_loss_is_never_negative(name, seed, beta):
    assert (losses_of(name, pairs(seed, spread=10.0), beta=beta) >= 0).all()


@every_loss
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("beta", [0.01, 0.1, 1.0])
def test_gradients_are_those_of_finite_differences(name, seed, beta):
    logps = pairs(seed, spread=0.3)

    def loss(chosen, rejected):
        return losses_of(name, logps._replace(policy_chosen=chosen, policy_rejected=rejected), beta=beta)

    assert torch.autograd.gradcheck(loss, (logps.policy_chosen, logps.policy_rejected), atol=1e-4)


@pytest.mark.parametrize("name", sorted(PREFERENCE_LOSSES.keys() - {"apo_down"}))
@few
@given(seed=seeds, beta=betas)
def test_descent_starts_by_raising_the_chosen_and_lowering_the_rejected(name, seed, beta):
    logps = unchanged(seed)
    losses_of(name, logps, beta=beta).sum().backward()
    assert (logps.policy_chosen.grad < 0).all()
    assert (logps.policy_rejected.grad > 0).all()


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("c", [-1e4, 0.0, 1e4])
@pytest.mark.parametrize("r", [-1e4, 0.0, 1e4])
def test_extreme_log_ratios_leave_loss_and_gradient_finite(name, dtype, c, r):
    zeros = torch.zeros(1, dtype=dtype)
    chosen, rejected = (zeros + c).requires_grad_(), (zeros + r).requires_grad_()
    losses = losses_of(name, PairLogps(chosen, rejected, zeros, zeros, zeros + 1, zeros + 1), beta=1.0)
    losses.sum().backward()
    assert losses.isfinite().all()
    assert chosen.grad.isfinite().all()
    assert rejected.grad.isfinite().all()


@every_loss
@few
@given(seed=seeds, beta=betas)
def test_a_pair_is_scored_alone(name, seed, beta):
    logps = pairs(seed)
    alone = [losses_of(name, PairLogps(*(column[b : b + 1] for column in logps)), beta=beta) for b in range(B)]
    torch.testing.assert_close(torch.cat(alone), losses_of(name, logps, beta=beta))


@every_loss
def test_empty_completions_are_no_division_by_zero(name):
    zeros = torch.zeros(1, dtype=torch.float64)
    losses = losses_of(name, PairLogps(zeros, zeros, zeros, zeros, zeros.long(), zeros.long()), beta=0.1)
    assert losses.isfinite().all()


@pytest.mark.parametrize("name", sorted(REFERENCED - {"rpo"}))
@few
@given(seed=seeds, shift=st.floats(-50, 50))
def test_a_shift_of_both_models_changes_nothing(name, seed, shift):
    """Only log-ratios matter: what both models say about a completion cancels."""
    logps = pairs(seed)
    moved = PairLogps(*(column + shift for column in logps[:4]), *logps[4:])
    losses = [losses_of(name, batch, beta=0.1) for batch in (logps, moved)]
    torch.testing.assert_close(*losses, rtol=0, atol=1e-9)


@every_loss
@few
@given(seed=seeds, beta=betas)
def test_the_table_says_truly_who_looks_at_the_reference(name, seed, beta):
    logps = pairs(seed)
    here = losses_of(name, logps, beta=beta)
    there = [losses_of(name, logps._replace(ref_chosen=logps.ref_chosen + by), beta=beta) for by in (-1e3, 1e3)]
    same = all(torch.equal(here, moved) for moved in there)  # one way alone a hinge may stay at 0
    assert same is PREFERENCE_LOSSES[name].reference_free


# -- each one's own identities ----------------------------------------------------------------------------------------


@few
@given(seed=seeds, beta=betas, label_smoothing=st.floats(0, 0.49))
def test_dpo_starts_at_log_two(seed, beta, label_smoothing):
    losses = dpo(unchanged(seed), beta=beta, label_smoothing=label_smoothing)
    torch.testing.assert_close(losses, torch.full_like(losses, math.log(2)), rtol=0, atol=1e-12)


@few
@given(seed=seeds)
def test_dpo_starts_with_half_of_beta_as_its_pull_on_the_chosen(seed):
    """beta = 0.1 pulls with 0.05, which is what gamma = 0.01 on the summed constraint is a fifth of."""
    logps = unchanged(seed)
    dpo(logps, beta=0.1).sum().backward()
    torch.testing.assert_close(logps.policy_chosen.grad, torch.full((B,), -0.05, dtype=torch.float64))


@few
@given(seed=seeds, beta=betas)
def test_dpo_is_the_reward_model_loss_on_implicit_rewards(seed, beta):
    """Eq. 4 is Eq. 1 with the rewards of Eq. 6."""
    logps = pairs(seed)
    chosen = implicit_rewards(logps.policy_chosen, logps.ref_chosen, beta=beta)
    rejected = implicit_rewards(logps.policy_rejected, logps.ref_rejected, beta=beta)
    expected = -(1 / (1 + (rejected - chosen).exp())).log()
    torch.testing.assert_close(dpo(logps, beta=beta), expected, rtol=1e-9, atol=1e-12)


@few
@given(seed=seeds, beta=betas, log_z=st.floats(-50, 50))
def test_the_partition_function_cancels_between_chosen_and_rejected(seed, beta, log_z):
    """r* = beta log(pi/pi_0) + beta log Z(x): both completions answer one prompt."""
    logps = pairs(seed)
    chosen = implicit_rewards(logps.policy_chosen, logps.ref_chosen, beta=beta) + beta * log_z
    rejected = implicit_rewards(logps.policy_rejected, logps.ref_rejected, beta=beta) + beta * log_z
    expected = torch.nn.functional.softplus(rejected - chosen)
    torch.testing.assert_close(dpo(logps, beta=beta), expected, rtol=1e-9, atol=1e-9)


@few
@given(seed=seeds, beta=betas, label_smoothing=st.floats(0, 0.49))
def test_smoothed_dpo_is_the_expected_loss_under_flipped_labels(seed, beta, label_smoothing):
    logps = pairs(seed)
    swapped = PairLogps(*(logps[i] for i in (1, 0, 3, 2, 5, 4)))
    expected = (1 - label_smoothing) * dpo(logps, beta=beta) + label_smoothing * dpo(swapped, beta=beta)
    torch.testing.assert_close(dpo(logps, beta=beta, label_smoothing=label_smoothing), expected)


@few
@given(seed=seeds, beta=betas)
def test_ipo_is_at_rest_at_its_target_margin_and_pushes_back_beyond(seed, beta):
    logps = unchanged(seed)
    at_rest = logps._replace(policy_chosen=(logps.ref_chosen + logps.chosen_lengths / (2 * beta)).requires_grad_())
    losses = ipo(at_rest, beta=beta)
    torch.testing.assert_close(losses, torch.zeros_like(losses), rtol=0, atol=1e-9)
    beyond = logps._replace(policy_chosen=(at_rest.policy_chosen.detach() + 1).requires_grad_())
    ipo(beyond, beta=beta).sum().backward()
    assert (beyond.policy_chosen.grad > 0).all()


@few
@given(seed=seeds, beta=betas)
def test_ipo_is_the_squared_distance_of_per_token_averages_from_its_target(seed, beta):
    """By hand: each completion's log-ratio over its own length."""
    logps = pairs(seed)
    columns = zip(*(column.tolist() for column in logps), strict=True)
    expected = [((pc - rc) / lc - (pr - rr) / lr - 1 / (2 * beta)) ** 2 for pc, pr, rc, rr, lc, lr in columns]
    assert ipo(logps, beta=beta).tolist() == pytest.approx(expected, rel=1e-9)


@few
@given(seed=seeds, beta=betas)
def test_ipo_sees_averages_so_repeating_a_text_changes_nothing(seed, beta):
    logps = pairs(seed)
    twice = PairLogps(*(2 * column for column in logps))
    torch.testing.assert_close(ipo(logps, beta=beta), ipo(twice, beta=beta))


@few
@given(seed=seeds, beta=betas)
def test_hinge_leaves_a_pair_alone_once_it_is_far_enough_apart(seed, beta):
    logps = unchanged(seed)
    apart = logps._replace(policy_chosen=(logps.ref_chosen + 1.01 / beta).requires_grad_())
    losses = hinge(apart, beta=beta)
    losses.sum().backward()
    assert not losses.any()
    assert not apart.policy_chosen.grad.any()


@few
@given(seed=seeds, beta=betas, dpop_lambda=st.floats(0, 100))
def test_dpop_is_dpo_wherever_the_chosen_did_not_fall(seed, beta, dpop_lambda):
    logps = pairs(seed)
    kept = logps.c >= 0
    ours = dpop(logps, beta=beta, dpop_lambda=dpop_lambda)
    torch.testing.assert_close(ours[kept], dpo(logps, beta=beta)[kept])


@few
@given(seed=seeds, beta=betas, dpop_lambda=st.floats(0.1, 100))
def test_dpop_holds_the_hinge_inside_the_sigmoid(seed, beta, dpop_lambda):
    """Lowering c - r by lambda nats for every nat the chosen fell is the same as plain DPO on a worse pair."""
    logps = pairs(seed)
    fallen = (logps.ref_chosen - logps.policy_chosen).clamp(min=0)
    worse = logps._replace(policy_rejected=logps.policy_rejected + dpop_lambda * fallen)
    torch.testing.assert_close(dpop(logps, beta=beta, dpop_lambda=dpop_lambda), dpo(worse, beta=beta))
    assert (dpop(logps, beta=beta, dpop_lambda=dpop_lambda) >= dpo(logps, beta=beta)).all()


@few
@given(seed=seeds, beta=betas)
def test_dpop_without_its_hinge_is_dpo(seed, beta):
    logps = pairs(seed)
    torch.testing.assert_close(dpop(logps, beta=beta, dpop_lambda=0.0), dpo(logps, beta=beta))


@few
@given(seed=seeds, beta=betas, alpha=st.floats(0, 5))
def test_rpo_adds_the_negative_log_likelihood_per_token_of_the_chosen(seed, beta, alpha):
    logps = pairs(seed)
    added = rpo(logps, beta=beta, alpha=alpha) - dpo(logps, beta=beta)
    expected = [-alpha * logps.policy_chosen[b].item() / logps.chosen_lengths[b].item() for b in range(B)]
    assert added.tolist() == pytest.approx(expected, abs=1e-9)


@few
@given(seed=seeds, beta=betas)
def test_dpo_without_a_reference_is_dpo_against_a_uniform_one(seed, beta):
    logps = pairs(seed)
    uniform = logps._replace(ref_chosen=logps.ref_chosen * 0 - 7.0, ref_rejected=logps.ref_rejected * 0 - 7.0)
    torch.testing.assert_close(dpo(logps, beta=beta, reference_free=True), dpo(uniform, beta=beta))


@few
@given(seed=seeds, beta=betas)
def test_apo_zero_starts_at_one_and_stays_between_zero_and_two(seed, beta):
    torch.testing.assert_close(apo_zero(unchanged(seed), beta=beta), torch.ones(B, dtype=torch.float64))
    assert (apo_zero(pairs(seed, spread=100.0), beta=beta) <= 2).all()


@few
@given(seed=seeds, beta=betas)
def test_apo_down_leaves_the_chosen_at_first_and_then_lowers_it_behind_the_rejected(seed, beta):
    start = unchanged(seed)
    apo_down(start, beta=beta).sum().backward()
    torch.testing.assert_close(start.policy_chosen.grad, torch.zeros(B, dtype=torch.float64), rtol=0, atol=1e-12)
    assert (start.policy_rejected.grad > 0).all()
    later = start._replace(policy_chosen=start.ref_chosen.clone().requires_grad_())
    later = later._replace(policy_rejected=(start.ref_rejected - 1 / beta).requires_grad_())
    apo_down(later, beta=beta).sum().backward()
    assert (later.policy_chosen.grad > 0).all()


@few
@given(seed=seeds, beta=betas)
def test_nca_rests_where_the_chosen_gained_log_two_over_beta(seed, beta):
    start = unchanged(seed)
    rested = start._replace(policy_chosen=(start.ref_chosen + math.log(2) / beta).requires_grad_())
    nca(rested, beta=beta).sum().backward()
    torch.testing.assert_close(rested.policy_chosen.grad, torch.zeros(B, dtype=torch.float64), rtol=0, atol=1e-9)


@few
@given(seed=seeds, beta=betas)
def test_sppo_rests_half_a_step_of_one_over_beta_up_and_down(seed, beta):
    start = unchanged(seed)
    rested = start._replace(
        policy_chosen=start.ref_chosen + 0.5 / beta, policy_rejected=start.ref_rejected - 0.5 / beta
    )
    torch.testing.assert_close(sppo(rested, beta=beta), torch.zeros(B, dtype=torch.float64), rtol=0, atol=1e-9)


def test_an_unchanged_policy_earns_no_implicit_reward():
    logps = unchanged()
    assert not implicit_rewards(logps.policy_chosen, logps.ref_chosen, beta=0.1).any()
