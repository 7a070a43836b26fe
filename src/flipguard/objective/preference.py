"""Pairwise alignment losses: the first term of Eq. 11, one pure function each.

All of them see a pair through log pi / pi_0 of its two completions: c of the chosen, r of the rejected. They take
`PairLogps` and return [B] losses, one per pair; the caller averages. Keyword-only parameters are the hyper-parameters,
and so the keys a recipe may set under `loss`. To add one, write the function and add a row to the table below.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor
from torch.nn.functional import logsigmoid, relu


class PairLogps(NamedTuple):
    """What both models say about a batch of pairs: sums over completion tokens, in nats, and how many tokens."""

    policy_chosen: Tensor
    """[B] log pi(y_c | x), differentiable."""
    policy_rejected: Tensor
    """[B] log pi(y_r | x), differentiable."""
    ref_chosen: Tensor
    """[B] log pi_0(y_c | x)."""
    ref_rejected: Tensor
    """[B] log pi_0(y_r | x)."""
    chosen_lengths: Tensor
    """[B] scored tokens of y_c."""
    rejected_lengths: Tensor
    """[B] scored tokens of y_r."""

    @property
    def c(self) -> Tensor:
        """[B] log pi(y_c | x) / pi_0(y_c | x), in nats."""
        return self.policy_chosen - self.ref_chosen

    @property
    def r(self) -> Tensor:
        """[B] log pi(y_r | x) / pi_0(y_r | x), in nats."""
        return self.policy_rejected - self.ref_rejected


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


def dpo(logps: PairLogps, *, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """-log sigma(beta (c - r)), Eqs. 3 and 4 (Rafailov et al. 2023, arXiv 2305.18290).

    Args:
        logps: the pairs.
        beta: KL coefficient, > 0.
        label_smoothing: probability in [0, 0.5) that the label is wrong (conservative DPO, Mitchell 2023).

    Returns:
        [B] losses >= 0.
    """
    z = beta * (logps.c - logps.r)
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
    nll = -logps.policy_chosen / logps.chosen_lengths.clamp(min=1)
    return dpo(logps, beta=beta) + alpha * nll


PreferenceLoss = Callable[..., Tensor]
"""(PairLogps, *, hyper-parameters) -> [B]; the hyper-parameters differ from loss to loss."""

PREFERENCE_LOSSES: dict[str, PreferenceLoss] = {
    "dpo": dpo,
    "ipo": ipo,
    "hinge": hinge,
    "dpop": dpop,
    "rpo": rpo,
}
"""The pairwise losses, by their name in a recipe (`algorithm`)."""
