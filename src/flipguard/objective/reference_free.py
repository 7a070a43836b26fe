"""Pairwise losses that never look at pi_0: SimPO, ORPO, CPO. The guard beside them still asks it who flipped.

They take and return what those of `preference` do, and stand in the same table.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from flipguard.objective.pairs import PairLogps


def simpo(logps: PairLogps, *, beta: float = 2.0, target_margin: float = 1.0) -> Tensor:
    """-log sigma(beta (log pi(y_c)/|y_c| - log pi(y_r)/|y_r|) - m), SimPO (Meng et al. 2024, arXiv 2405.14734), Eq. 6.

    Args:
        logps: the pairs; pi_0 is not looked at.
        beta: scale of the reward per token, > 0; the paper uses 2 to 2.5.
        target_margin: m, the paper's gamma, >= 0: by how much the chosen shall win; the paper uses 0.3 to 1.6.

    Returns:
        [B] losses >= 0.
    """
    return -logsigmoid(beta * (logps.mean_chosen - logps.mean_rejected) - target_margin)


def orpo(logps: PairLogps, *, beta: float) -> Tensor:
    """-log pi(y_c)/|y_c| - beta log sigma(log odds(y_c) / odds(y_r)), ORPO (Hong et al. 2024, arXiv 2403.07691), Eq. 6.

    odds = p / (1 - p), p being the geometric mean of the tokens' probabilities. The first term is supervised learning
    of the chosen completion, of its own tokens only, averaged per pair.

    Args:
        logps: the pairs; pi_0 is not looked at.
        beta: the paper's lambda, > 0.

    Returns:
        [B] losses >= 0.
    """
    log_odds_ratio = _log_odds(logps.mean_chosen) - _log_odds(logps.mean_rejected)
    return -logps.mean_chosen - beta * logsigmoid(log_odds_ratio)


def cpo(logps: PairLogps, *, beta: float, alpha: float = 1.0) -> Tensor:
    """-log sigma(beta (log pi(y_c) - log pi(y_r))) - alpha log pi(y_c)/|y_c|, CPO (Xu et al. 2024, arXiv 2401.08417).

    Its Eq. 3 plus the negative log-likelihood, per token as its authors' code and TRL have it.

    Args:
        logps: the pairs; pi_0 is not looked at.
        beta: scale of the log-ratio, > 0.
        alpha: weight of the negative log-likelihood, >= 0; 1 is the paper's.

    Returns:
        [B] losses >= 0.
    """
    return -logsigmoid(beta * (logps.policy_chosen - logps.policy_rejected)) - alpha * logps.mean_chosen


def _log_odds(mean_logps: Tensor) -> Tensor:
    """log(p / (1 - p)) from log p; p = 1 counts as the largest number below it, so that the gradient is finite."""
    log_p = mean_logps.clamp(max=-torch.finfo(mean_logps.dtype).eps)
    near_one = log_p > -math.log(2)  # there 1 - p needs expm1, elsewhere log1p is the accurate one
    inner, outer = log_p.where(near_one, -1.0), log_p.where(~near_one, -1.0)
    return log_p - torch.where(near_one, (-torch.expm1(inner)).log(), torch.log1p(-outer.exp()))
