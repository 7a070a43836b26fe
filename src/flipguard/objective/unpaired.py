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
    """[] or [1] the reference point, >= 0, in nats; see `reference_point`."""


def reference_point(mean_log_ratio: Tensor) -> Tensor:
    """The z_0 of KTO: max(0, mean of log pi(y'|x) / pi_0(y'|x)), an estimate of KL(pi || pi_0).

    Args:
        mean_log_ratio: [] or [1] over mismatched completions y', answers to other prompts, of a batch on all processes.

    Returns:
        Of the same shape: nats, >= 0, without gradient (as in the paper: it only moves where the loss saturates).
    """
    return mean_log_ratio.detach().clamp(min=0)


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
