"""Reward modelling: the loss of Eq. 1, and how far a reward model's confidence can be trusted."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

BINS = 10


def bradley_terry(chosen: Tensor, rejected: Tensor) -> Tensor:
    """-log sigma(r(x, y_c) - r(x, y_r)), Eq. 1 (Bradley and Terry 1952).

    Args:
        chosen: [B] rewards of the chosen completions, differentiable.
        rejected: [B] rewards of the rejected ones.

    Returns:
        [B] losses in nats, >= 0; log 2 where the model cannot tell.
    """
    return -logsigmoid(chosen - rejected)


def accuracy(margins: Tensor) -> Tensor:
    """Share of pairs whose chosen completion scores higher, [] in [0, 1]; an equal score is half right.

    Args:
        margins: [N] r(x, y_c) - r(x, y_r).
    """
    return (margins > 0).double().mean() + 0.5 * (margins == 0).double().mean()


def calibration_error(margins: Tensor, *, bins: int = BINS) -> Tensor:
    """Expected calibration error of sigma(|margin|), the confidence that the higher score is right (Guo et al. 2017).

    Args:
        margins: [N] r(x, y_c) - r(x, y_r); the higher score is right where the margin is positive.
        bins: of equal width over the confidences 1/2 to 1, >= 1.

    Returns:
        [] mean over pairs of |accuracy - mean confidence| of their bin, in [0, 1]; 0 is perfect.
    """
    confidence = margins.double().abs().sigmoid()
    right = (margins > 0).double() + 0.5 * (margins == 0).double()
    place = ((confidence - 0.5) * 2 * bins).long().clamp(0, bins - 1)
    gaps = torch.zeros(bins, dtype=torch.float64, device=margins.device).index_add(0, place, right - confidence)
    return gaps.abs().sum() / max(len(margins), 1)
