"""KTO: alignment from single completions that were found desirable or not."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class UnpairedLogps(NamedTuple):
    """What both models say about a batch of labelled completions: sums over their tokens, in nats."""

    policy: Tensor
    """[B] log pi(y | x), differentiable."""
    ref: Tensor
    """[B] log pi_0(y | x)."""
    desirable: Tensor
    """[B] bool, the label."""
    z_0: Tensor
    """[] the reference point, >= 0, in nats; see `reference_point`."""


def reference_point(policy_mismatched: Tensor, ref_mismatched: Tensor) -> Tensor:
    """The z_0 of KTO: max(0, mean of log pi / pi_0 over mismatched completions), an estimate of KL(pi || pi_0).

    Args:
        policy_mismatched: [N] log pi(y' | x), in nats, y' being an answer to another prompt; of all processes.
        ref_mismatched: [N] the same under pi_0.

    Returns:
        [] nats, >= 0, without gradient (Section 4.1 of the paper: it only controls the loss's saturation).
    """
    return (policy_mismatched - ref_mismatched).detach().mean().clamp(min=0)


def kto(logps: UnpairedLogps, *, beta: float, desirable_weight: float = 1.0, undesirable_weight: float = 1.0) -> Tensor:
    """1 - sigma(+-beta (log pi/pi_0 - z_0)), + where desirable, weighted: KTO (Ethayarajh et al. 2024, 2402.01306).

    Args:
        logps: the labelled completions and their reference point.
        beta: how quickly a gain or loss saturates, > 0.
        desirable_weight: of desirable rows, the paper's lambda_D, >= 0. With n_D and n_U rows it advises
            lambda_D n_D / (lambda_U n_U) in [1, 4/3].
        undesirable_weight: of the others, lambda_U, >= 0.

    Returns:
        [B] losses >= 0.
    """
    gain = beta * (logps.policy - logps.ref - logps.z_0)
    return torch.where(logps.desirable, desirable_weight * (-gain).sigmoid(), undesirable_weight * gain.sigmoid())
