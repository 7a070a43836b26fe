"""PPO's equations against loops over single tokens in float64."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flipguard.objective.policy import (
    clipped_policy_loss,
    clipped_value_loss,
    gae,
    token_rewards,
    whitened,
)

ROWS, WIDTH = 4, 6


def random_batch(seed):
    """[B, T] numbers, and a mask whose rows hold 0 to T real tokens; outside it stands rubbish."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(0, WIDTH + 1, (ROWS,), generator=generator)
    mask = torch.arange(WIDTH) < lengths[:, None]
    tensors = [torch.randn(ROWS, WIDTH, generator=generator, dtype=torch.float64) for _ in range(4)]
    return mask, *(tensor.masked_fill(~mask, math.nan) for tensor in tensors)


seeds = st.integers(0, 2**31)
shares = st.floats(0, 1)


@given(seeds, st.floats(0, 2), st.floats(0.1, 5))
def test_each_token_pays_its_kl_and_the_last_gets_the_score(seed, kl_coef, clip):
    mask, logps, ref, *_ = random_batch(seed)
    scores = torch.tensor([0.3, -9.0, math.nan, 9.0], dtype=torch.float64)
    found = token_rewards(scores, logps, ref, mask, kl_coef=kl_coef, score_clip=clip)
    for row in range(ROWS):
        length = int(mask[row].sum())
        for place in range(WIDTH):
            expected = -kl_coef * (logps[row, place] - ref[row, place]).item() if place < length else 0.0
            if place == length - 1 and row != 2:
                expected += max(-clip, min(clip, scores[row].item()))
            assert found[row, place].item() == pytest.approx(expected, abs=1e-12)


@given(seeds, shares, shares)
def test_advantages_are_the_discounted_sums_of_surprises(seed, discount, gae_lambda):
    mask, rewards, values, *_ = random_batch(seed)
    found = gae(rewards, values, mask, discount=discount, gae_lambda=gae_lambda)
    for row in range(ROWS):
        length = int(mask[row].sum())
        value = [*values[row, :length].tolist(), 0.0]
        deltas = [rewards[row, at].item() + discount * value[at + 1] - value[at] for at in range(length)]
        for at in range(length):
            expected = sum((discount * gae_lambda) ** k * deltas[at + k] for k in range(length - at))
            assert found.advantages[row, at].item() == pytest.approx(expected, abs=1e-9)
            assert found.returns[row, at].item() == pytest.approx(expected + value[at], abs=1e-9)
        assert not found.advantages[row, length:].any()


@given(seeds)
def test_with_lambda_one_and_no_discount_returns_are_the_rewards_to_come(seed):
    mask, rewards, values, *_ = random_batch(seed)
    found = gae(rewards, values, mask, discount=1.0, gae_lambda=1.0)
    to_come = rewards.nan_to_num(0).masked_fill(~mask, 0).flip(1).cumsum(1).flip(1)
    assert torch.allclose(found.returns, to_come.masked_fill(~mask, 0))


@given(seeds, st.floats(0.01, 0.5))
def test_the_policy_loss_is_the_worse_of_the_plain_and_the_clipped_one(seed, clip):
    mask, logps, old, advantages, _ = random_batch(seed)
    advantages = advantages.masked_fill(~mask, 0.0)
    found = clipped_policy_loss(logps, old, advantages, mask, clip_range=clip)
    for row in range(ROWS):
        for at in range(WIDTH):
            expected = 0.0
            if mask[row, at]:
                ratio = math.exp(logps[row, at] - old[row, at])
                sides = (ratio, min(max(ratio, 1 - clip), 1 + clip))
                expected = max(-advantages[row, at].item() * side for side in sides)
            assert found[row, at].item() == pytest.approx(expected, abs=1e-12)


def test_an_unchanged_policy_has_the_gradient_of_the_policy_gradient():
    mask = torch.ones(1, 3, dtype=torch.bool)
    logps = torch.zeros(1, 3, requires_grad=True)
    advantages = torch.tensor([[1.0, -2.0, 0.5]])
    clipped_policy_loss(logps, torch.zeros(1, 3), advantages, mask, clip_range=0.2).sum().backward()
    assert torch.equal(logps.grad, -advantages)


def test_beyond_the_clip_a_good_token_pulls_no_more():
    mask = torch.ones(1, 1, dtype=torch.bool)
    logps = torch.tensor([[0.5]], requires_grad=True)
    clipped_policy_loss(logps, torch.zeros(1, 1), torch.ones(1, 1), mask, clip_range=0.2).sum().backward()
    assert logps.grad.item() == 0


@given(seeds, st.floats(0.01, 1))
def test_the_value_loss_is_the_worse_of_the_plain_and_the_clipped_one(seed, clip):
    mask, values, old, returns, _ = random_batch(seed)
    found = clipped_value_loss(values, old, returns, mask, clip_range=clip)
    for row in range(ROWS):
        for at in range(WIDTH):
            expected = 0.0
            if mask[row, at]:
                value, before, target = (tensor[row, at].item() for tensor in (values, old, returns))
                near = min(max(value, before - clip), before + clip)
                expected = 0.5 * max((value - target) ** 2, (near - target) ** 2)
            assert found[row, at].item() == pytest.approx(expected, abs=1e-12)


@given(seeds)
def test_whitened_advantages_have_mean_zero_and_variance_one(seed):
    mask, advantages, *_ = random_batch(seed)
    real = advantages[mask]
    if len(real) < 3:
        return
    found = whitened(advantages, real.mean(), real.var(correction=0), mask)[mask]
    assert found.mean().item() == pytest.approx(0, abs=1e-9)
    assert found.var(correction=0).item() == pytest.approx(1, abs=1e-3)


def test_nothing_outside_the_mask_reaches_a_gradient():
    mask, logps, old, advantages, _ = random_batch(3)
    logps = logps.clone().requires_grad_()
    clipped_policy_loss(logps, old, advantages.nan_to_num(0), mask, clip_range=0.2).sum().backward()
    assert not logps.grad[~mask].any()
