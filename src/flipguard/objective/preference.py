"""Pairwise alignment losses: the first term of Eq. 11, one pure function each.

Those here see a pair through log pi / pi_0 of its two completions: c of the chosen, r of the rejected. They take
`PairLogps` and return [B] losses, one per pair; the caller averages. Keyword-only parameters are the hyper-parameters,
and so the keys a recipe may set under `loss`. To add one, write the function and add a row to the table below.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor
from torch.nn.functional import logsigmoid, relu

from flipguard.objective.pairs import PairLogps
from flipguard.objective.reference_free import cpo, orpo, simpo
from flipguard.objective.unpaired import kto


def implicit_rewards(policy: Tensor, ref: Tensor, *, beta: float) -> Tensor:
    """Beta log(pi / pi_0), Eq. 6 without beta log Z(x), which depends on the prompt alone.

    Args:
        policy: [B] log pi(y | x), in nats.
        ref: [B] log pi_0(y | x), in nats.
        beta: KL coefficient, > 0.

    Returns:
        [B] in reward units.
    """
    return beta * (policy - ref)


def dpo(logps: PairLogps, *, beta: float, label_smoothing: float = 0.0, reference_free: bool = False) -> Tensor:
    """-log sigma(beta (c - r)), Eqs. 3 and 4 (Rafailov et al. 2023, arXiv 2305.18290).

    Args:
        logps: the pairs.
        beta: KL coefficient, > 0.
        label_smoothing: probability in [0, 0.5) that the label is wrong (conservative DPO, Mitchell 2023).
        reference_free: take pi_0 as uniform, so that c - r is log pi(y_c) - log pi(y_r).

    Returns:
        [B] losses >= 0.
    """
    margin = logps.policy_chosen - logps.policy_rejected if reference_free else logps.c - logps.r
    z = beta * margin
    return -(1 - label_smoothing) * logsigmoid(z) - label_smoothing * logsigmoid(-z)


def ipo(logps: PairLogps, *, beta: float) -> Tensor:
    """(c/|y_c| - r/|y_r| - 1/(2 beta))^2, Eq. 17 of Azar et al. 2023 (arXiv 2310.12036), beta being its tau.

    The log-ratios are averages per token: against sums, a fixed target 1/(2 beta) would mean less the longer the
    completions are. TRL computes the same numbers; its source says the authors of IPO confirmed that reading.

    Args:
        logps: the pairs.
        beta: regularisation, > 0; the target margin is 1/(2 beta) nats per token.

    Returns:
        [B] losses >= 0.
    """
    margin = logps.c / logps.chosen_lengths.clamp(min=1) - logps.r / logps.rejected_lengths.clamp(min=1)
    return (margin - 1 / (2 * beta)) ** 2


def hinge(logps: PairLogps, *, beta: float) -> Tensor:
    """max(0, 1 - beta (c - r)): SLiC (Zhao et al. 2023, arXiv 2305.10425) on the log-ratios of RSO (arXiv 2309.06657).

    Args:
        logps: the pairs.
        beta: KL coefficient, > 0; pairs that are 1/beta nats apart are left alone.

    Returns:
        [B] losses >= 0.
    """
    return relu(1 - beta * (logps.c - logps.r))


def dpop(logps: PairLogps, *, beta: float, dpop_lambda: float = 50.0) -> Tensor:
    """-log sigma(beta (c - r - lambda max(0, -c))), DPO-Positive (Pal et al. 2024, arXiv 2402.13228).

    The hinge is the guard's at epsilon = 0, inside the sigmoid: its pull depends on how well the pair is separated.

    Args:
        logps: the pairs.
        beta: KL coefficient, > 0.
        dpop_lambda: weight of the hinge, >= 0; 50 is the paper's.

    Returns:
        [B] losses >= 0.
    """
    return -logsigmoid(beta * (logps.c - logps.r - dpop_lambda * relu(-logps.c)))


def rpo(logps: PairLogps, *, beta: float, alpha: float = 1.0) -> Tensor:
    """-log sigma(beta (c - r)) - alpha log pi(y_c | x) / |y_c|, iterative RPO (Pang et al. 2024, arXiv 2404.19733).

    The second term is the ungated cross entropy per token; KD is its sum.

    Args:
        logps: the pairs.
        beta: KL coefficient, > 0.
        alpha: weight of the negative log-likelihood, >= 0; 1 is the paper's.

    Returns:
        [B] losses >= 0.
    """
    return dpo(logps, beta=beta) - alpha * logps.mean_chosen


def apo_zero(logps: PairLogps, *, beta: float) -> Tensor:
    """1 - sigma(beta c) + sigma(beta r), Eq. 7 of APO (D'Oosterlinck et al. 2024, arXiv 2408.06266).

    For chosen completions better than what the model says: the chosen goes up and the rejected down, each on its own.

    Args:
        logps: the pairs.
        beta: KL coefficient, > 0.

    Returns:
        [B] losses in [0, 2].
    """
    return (-beta * logps.c).sigmoid() + (beta * logps.r).sigmoid()


def apo_down(logps: PairLogps, *, beta: float) -> Tensor:
    """sigma(beta c) + 1 - sigma(beta (c - r)), Eq. 8 of APO (arXiv 2408.06266).

    For chosen completions worse than what the model says: both go down, the rejected further. The guard pulls the
    other way, so with this loss it says how far down is too far.

    Args:
        logps: the pairs.
        beta: KL coefficient, > 0.

    Returns:
        [B] losses in [0, 2].
    """
    return (beta * logps.c).sigmoid() + (-beta * (logps.c - logps.r)).sigmoid()


def nca(logps: PairLogps, *, beta: float) -> Tensor:
    """-log sigma(beta c) - 1/2 log sigma(-beta c) - 1/2 log sigma(-beta r): NCA (Chen et al. 2024, arXiv 2402.05369).

    Its form for pairs. Rewards count as they are, not only their difference, which keeps the chosen from falling: it
    rests at c = log 2 / beta.

    Args:
        logps: the pairs.
        beta: KL coefficient, > 0.

    Returns:
        [B] losses >= 0.
    """
    chosen, rejected = beta * logps.c, beta * logps.r
    return -logsigmoid(chosen) - 0.5 * logsigmoid(-chosen) - 0.5 * logsigmoid(-rejected)


def sppo(logps: PairLogps, *, beta: float) -> Tensor:
    """(c - 1/(2 beta))^2 + (r + 1/(2 beta))^2, Eq. 4.7 of SPPO (Wu et al. 2024, arXiv 2405.00675), hard labels.

    Args:
        logps: the pairs.
        beta: 1/eta, > 0; the targets are 1/(2 beta) nats up and down. The paper's 0.001 makes gradients of a thousand
            per nat, beside which a guard of the usual gamma is nothing.

    Returns:
        [B] losses >= 0.
    """
    return (logps.c - 1 / (2 * beta)) ** 2 + (logps.r + 1 / (2 * beta)) ** 2


class PreferenceLoss(NamedTuple):
    """One row of the table."""

    function: Callable[..., Tensor]
    """(PairLogps, *, hyper-parameters) -> [B], or of an unpaired loss (UnpairedLogps, *, hyper-parameters) -> [B]."""
    reference_free: bool = False
    """Whether L_align never looks at pi_0; the guard still does."""
    unpaired: bool = False
    """Whether its rows are single completions with a label instead of pairs."""


PREFERENCE_LOSSES: dict[str, PreferenceLoss] = {
    "dpo": PreferenceLoss(dpo),
    "ipo": PreferenceLoss(ipo),
    "hinge": PreferenceLoss(hinge),
    "dpop": PreferenceLoss(dpop),
    "rpo": PreferenceLoss(rpo),
    "apo_zero": PreferenceLoss(apo_zero),
    "apo_down": PreferenceLoss(apo_down),
    "nca": PreferenceLoss(nca),
    "sppo": PreferenceLoss(sppo),
    "simpo": PreferenceLoss(simpo, reference_free=True),
    "orpo": PreferenceLoss(orpo, reference_free=True),
    "cpo": PreferenceLoss(cpo, reference_free=True),
    "kto": PreferenceLoss(kto, unpaired=True),
}
"""Every alignment loss on preferences, by its name in a recipe (`algorithm`)."""
