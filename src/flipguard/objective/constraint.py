"""The second term of Eq. 11: gamma * 1[flip] * D, with its gates and reductions.

An example whose gate is closed contributes exactly 0 to the loss and to its gradient, even if its divergence is inf or
NaN.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

Gate = Literal["flip", "always", "off", "soft", "token"]
Reduction = Literal["sum", "mean"]


def focal_constraint(divergence: Tensor, flips: Tensor, *, gamma: float) -> Tensor:
    """Penalise only the examples that got worse: the second term of Eq. 11.

    Args:
        divergence: [B] D[pi_0 || pi] per example, in nats, differentiable in the policy.
        flips: [B] bool, the indicator of Eq. 10; carries no gradient.
        gamma: constraint weight, >= 0; 0 returns the alignment loss unchanged.

    Returns:
        [] gamma * mean over the whole batch, so it vanishes as the flips do.
    """
    return gamma * divergence.masked_fill(~flips, 0.0).mean()


def constraint_loss(
    token_divergence: Tensor,
    lengths: Tensor,
    flips: Tensor,
    *,
    gamma: float,
    gate: Gate = "flip",
    reduction: Reduction = "sum",
    soft: tuple[float, float] = (0.1, 1.0),
) -> Tensor:
    """The term a trainer adds to its alignment loss: Eq. 11 (12 with the cross entropy) from per-token divergences.

    Args:
        token_divergence: [B, C] D at each completion token, then 0, differentiable in the policy.
        lengths: [B] scored tokens of each completion.
        flips: [B] bool, the indicator of Eq. 10; with the gate "token" [B, C], that of each token, `flips.token_flips`.
        gamma: constraint weight, >= 0; 0 returns the alignment loss unchanged.
        gate: which examples, or which of their tokens, pay; see `gate_weights`.
        reduction: over the tokens of one example; see `reduce_tokens`.
        soft: the two weights of the soft gate, used by no other.

    Returns:
        [] gamma * mean over the whole batch of weight * D.
    """
    weights = gate_weights(flips, gate if gamma else "off", soft=soft, dtype=token_divergence.dtype)
    if gate == "token":
        return gamma * reduce_tokens(gated_divergence(token_divergence, weights), lengths, reduction).mean()
    return gamma * gated_divergence(reduce_tokens(token_divergence, lengths, reduction), weights).mean()


def gate_weights(
    flips: Tensor, gate: Gate, *, soft: tuple[float, float] = (0.1, 1.0), dtype: torch.dtype = torch.float32
) -> Tensor:
    """What multiplies D in Eq. 11: the indicator of Eq. 10 or one of its relatives.

    Args:
        flips: [B] bool, or [B, C] of the tokens.
        gate: "flip" is the indicator; "always" is 1, the KD baseline; "off" is 0, the plain alignment loss; "soft" is
            a + b * 1[flip], the weights of focal distillation (Yan et al. 2021, arXiv 2011.09161); "token" is the
            indicator of every single token, as compatible updates distil by a mask over tokens (MUSCLE, Echterhoff
            et al. 2024, arXiv 2407.09435).
        soft: (a, b) of the soft gate, both >= 0; the default, a tenth of the guard where nothing flipped, is ours.
        dtype: of the result.

    Returns:
        [B] or [B, C], as `flips`: weights >= 0 without gradient.
    """
    match gate:
        case "flip" | "token":
            return flips.to(dtype)
        case "always":
            return torch.ones_like(flips, dtype=dtype)
        case "off":
            return torch.zeros_like(flips, dtype=dtype)
        case "soft":
            a, b = soft
            return a + b * flips.to(dtype)
        case _:
            raise ValueError(f"unknown gate {gate!r}; choose one of: {', '.join(get_args(Gate))}")


def gated_divergence(divergence: Tensor, weights: Tensor) -> Tensor:
    """Weight * D per example or token; where the weight is 0 the divergence is not even looked at.

    Args:
        divergence: [B] or [B, C] D[pi_0 || pi], in nats, differentiable in the policy.
        weights: of the same shape, from `gate_weights`.
    """
    return weights * divergence.masked_fill(weights == 0, 0.0)


def reduce_tokens(token_values: Tensor, lengths: Tensor, reduction: Reduction) -> Tensor:
    """From tokens to one number per example.

    The paper does not say which. With beta = 0.1 DPO's pull on log pi(y_c) starts at 0.05; gamma = 0.01 is a fifth of
    that on the sum and about a thousandth on the mean, too little for the effects it reports: hence the sum.

    Args:
        token_values: [B, C], 0 after the last token of each completion.
        lengths: [B] scored tokens of each completion.
        reduction: "sum" (a sequence's log-probability) or "mean" per scored token.

    Returns:
        [B]; 0 for an empty completion.
    """
    total = token_values.sum(dim=-1)
    match reduction:
        case "sum":
            return total
        case "mean":
            return total / lengths.clamp(min=1)
        case _:
            raise ValueError(f"unknown reduction {reduction!r}; choose one of: {', '.join(get_args(Reduction))}")
