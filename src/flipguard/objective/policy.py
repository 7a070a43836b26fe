"""PPO's equations for completions: a reward per token, advantages, and the clipped losses.

A completion is an episode, a token an action. Tensors are [B, T] over completion tokens; `mask` [B, T] bool is true on
real ones, which come first in each row. Nothing outside the mask counts, whatever it holds.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Advantages(NamedTuple):
    """What generalised advantage estimation gives, both [B, T], 0 outside the mask, without gradient."""

    advantages: Tensor
    """How much better the token turned out than the critic expected, in reward units."""
    returns: Tensor
    """What the critic should have said: advantage + value."""


def token_rewards(
    scores: Tensor, logps: Tensor, ref_logps: Tensor, mask: Tensor, *, kl_coef: float, score_clip: float
) -> Tensor:
    """-kl_coef (log pi - log pi_0) at each token, and the completion's clipped score at the last (Eq. 2 per token).

    Args:
        scores: [B] R(x, y), in reward units; a NaN, an answer that could not be graded, counts as 0.
        logps: [B, T] log pi_old(y_t) of the policy that sampled, in nats.
        ref_logps: [B, T] log pi_0(y_t), in nats.
        mask: [B, T] bool.
        kl_coef: beta of Eq. 2, >= 0.
        score_clip: scores beyond +- this are cut, > 0.

    Returns:
        [B, T] without gradient; a row without tokens gets nothing, not even its score.
    """
    rewards = -kl_coef * (logps - ref_logps).detach().masked_fill(~mask, 0.0)
    last = mask.sum(dim=1) - 1
    rows = (last >= 0).nonzero().flatten()
    clipped = scores.nan_to_num(nan=0.0).clamp(-score_clip, score_clip).to(rewards.dtype)
    return rewards.index_put((rows, last[rows]), clipped[rows], accumulate=True)


@torch.no_grad()
def gae(rewards: Tensor, values: Tensor, mask: Tensor, *, discount: float, gae_lambda: float) -> Advantages:
    """A_t = sum_k (discount * lambda)^k delta_{t+k}, delta_t = r_t + discount V_{t+1} - V_t (Schulman 2015).

    Args:
        rewards: [B, T] from `token_rewards`.
        values: [B, T] the critic's V before each token, in reward units.
        mask: [B, T] bool; after the last real token nothing is to be had, V = 0.
        discount: in [0, 1]; 1 for completions, which end.
        gae_lambda: in [0, 1]; 0 is one step of bootstrapping, 1 the whole return.
    """
    values, rewards = values.masked_fill(~mask, 0.0), rewards.masked_fill(~mask, 0.0)
    after = torch.cat([values[:, 1:], values.new_zeros(len(values), 1)], dim=1)
    deltas = rewards + discount * after - values
    advantage, columns = values.new_zeros(len(values)), []
    for column in reversed(deltas.unbind(dim=1)):
        advantage = column + discount * gae_lambda * advantage
        columns.append(advantage)
    advantages = torch.stack(columns[::-1], dim=1).masked_fill(~mask, 0.0)
    return Advantages(advantages, advantages + values)


def clipped_policy_loss(
    logps: Tensor, old_logps: Tensor, advantages: Tensor, mask: Tensor, *, clip_range: float
) -> Tensor:
    """max(-A rho, -A clip(rho, 1 - c, 1 + c)), rho = pi / pi_old, Eq. 7 of PPO (Schulman 2017, arXiv 1707.06347).

    Args:
        logps: [B, T] log pi(y_t), in nats, differentiable.
        old_logps: [B, T] of the policy that sampled.
        advantages: [B, T] from `gae`.
        mask: [B, T] bool.
        clip_range: c, > 0.

    Returns:
        [B, T] losses, 0 outside the mask.
    """
    ratio = (logps - old_logps).masked_fill(~mask, 0.0).exp()
    unclipped, clipped = -advantages * ratio, -advantages * ratio.clamp(1 - clip_range, 1 + clip_range)
    return torch.maximum(unclipped, clipped).masked_fill(~mask, 0.0)


def clipped_value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, *, clip_range: float
) -> Tensor:
    """1/2 max((V - R)^2, (clip(V, V_old - c, V_old + c) - R)^2): the critic, held near what it said when sampling.

    Args:
        values: [B, T] the critic's V now, in reward units, differentiable.
        old_values: [B, T] what it said when the answers were sampled.
        returns: [B, T] from `gae`.
        mask: [B, T] bool.
        clip_range: c, in reward units, > 0.

    Returns:
        [B, T] losses >= 0, 0 outside the mask.
    """
    clipped = old_values + (values - old_values).clamp(-clip_range, clip_range)
    losses = 0.5 * torch.maximum((values - returns) ** 2, (clipped - returns) ** 2)
    return losses.masked_fill(~mask, 0.0)


def whitened(advantages: Tensor, mean: Tensor, variance: Tensor, mask: Tensor) -> Tensor:
    """(A - mean) / std, 0 outside the mask.

    Args:
        advantages: [B, T] from `gae`.
        mean: [] over all real tokens, of all processes.
        variance: [] likewise.
        mask: [B, T] bool.
    """
    return ((advantages - mean) * (variance + 1e-8).rsqrt()).masked_fill(~mask, 0.0)
