"""What a pairwise loss sees of a batch: both models' log-probabilities of both completions."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


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

    @property
    def mean_chosen(self) -> Tensor:
        """[B] log pi(y_c | x) per token, in nats; 0 for an empty completion."""
        return self.policy_chosen / self.chosen_lengths.clamp(min=1)

    @property
    def mean_rejected(self) -> Tensor:
        """[B] log pi(y_r | x) per token, in nats; 0 for an empty completion."""
        return self.policy_rejected / self.rejected_lengths.clamp(min=1)
