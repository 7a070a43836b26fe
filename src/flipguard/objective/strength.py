"""How strong the guard is at a step: gamma of Eq. 11 by a schedule, or by what it achieves."""

from __future__ import annotations

import math
from typing import Literal, get_args

Schedule = Literal["constant", "linear", "cosine"]


def scheduled_gamma(gamma: float, *, progress: float, schedule: Schedule = "constant", warmup: float = 0.0) -> float:
    """Gamma after a share of training: up from 0 during the warm-up, then constant, or down to 0 at the end.

    Args:
        gamma: the constraint weight at its height, >= 0.
        progress: share of the steps that are done, in [0, 1].
        schedule: "constant", "linear" or "cosine", as of learning rates.
        warmup: share of the steps during which gamma rises linearly, in [0, 1).

    Returns:
        In [0, gamma].
    """
    if progress < warmup:
        return gamma * progress / warmup
    done = (progress - warmup) / (1 - warmup)
    match schedule:
        case "constant":
            return gamma
        case "linear":
            return gamma * (1 - done)
        case "cosine":
            return gamma * (1 + math.cos(math.pi * done)) / 2
        case _:
            raise ValueError(f"unknown schedule {schedule!r}; choose one of: {', '.join(get_args(Schedule))}")


def dual_ascent(gamma: float, *, flip_rate: float, target: float, rate: float) -> float:
    """max(0, gamma + eta (flip rate - target)): the multiplier of "at most `target` flips", one step on.

    Minimising L_align subject to flip rate <= target has the Lagrangian L_align + gamma (flip rate - target), which
    the policy descends and gamma climbs. The policy does so through Eq. 11, since the indicator itself has no gradient.

    Args:
        gamma: the constraint weight now, >= 0.
        flip_rate: share of the step's examples that flipped, over all micro-batches and processes, in [0, 1].
        target: the share that is allowed, in [0, 1].
        rate: eta, > 0: what gamma gains in a step in which everything flips and nothing may.

    Returns:
        The next gamma, >= 0.
    """
    return max(0.0, gamma + rate * (flip_rate - target))
