"""The second term of Eq. 11 as a recipe asks for it, on completions that should not get worse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from flipguard.objective import constraint, flips
from flipguard.train.constraintspec import ConstraintSpec
from flipguard.train.strength import Strength


class Guarded(NamedTuple):
    """The completions that the guard watches: the chosen, or the desirable."""

    token_logps: Tensor
    """[B, C] log pi per token, then 0, in nats, differentiable."""
    ref_logps: Tensor
    """[B] sums under pi_0, in nats."""
    lengths: Tensor
    """[B] scored tokens."""
    divergence: Tensor
    """[B, C] D per token, then 0."""
    ref_token_logps: Tensor | None = None
    """[B, at most C] log pi_0 per token, then 0; only the token gate asks for it."""
    weights: Tensor | None = None
    """[B] what multiplies gamma, 1 where nothing is known of the row; None: 1 everywhere."""


@dataclass(frozen=True)
class Guard:
    """Gamma · w · D, gamma being that of the step which is running."""

    spec: ConstraintSpec
    tolerance: float
    """Nats that are only rounding."""
    strength: Strength

    def __call__(self, rows: Guarded, watched: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """The term and what to log of it.

        Args:
            rows: the batch.
            watched: [B] bool, rows that can flip; None: all. The mean is over all B in any case.

        Returns:
            [] the term, and metrics by name without gradient: of the watched rows, or of the whole batch [B].
        """
        sums = rows.token_logps.sum(dim=-1)
        ref = rows.ref_logps.to(sums.dtype)
        limits = {"epsilon": self.spec.epsilon, "tolerance": self.tolerance}
        flipped = flips.likelihood_flips(ref, sums, **limits)
        divergence = rows.divergence if rows.weights is None else rows.divergence * rows.weights.unsqueeze(-1)
        if watched is not None:
            divergence = divergence.masked_fill(~watched.unsqueeze(-1), 0.0)
        margin = flips.flip_margin(ref, sums.detach(), epsilon=self.spec.epsilon)
        gates, told = flipped, {"flip/rate": flipped.to(sums.dtype), "flip/margin": margin}
        if self.spec.gate == "token" and rows.ref_token_logps is not None:
            width = rows.token_logps.shape[-1] - rows.ref_token_logps.shape[-1]
            gates = flips.token_flips(pad(rows.ref_token_logps, (0, width)), rows.token_logps, **limits)
            told["flip/token_rate"] = gates.sum(-1).to(sums.dtype) / rows.lengths.clamp(min=1)
        term = constraint.constraint_loss(
            divergence,
            rows.lengths,
            gates,
            gamma=self.strength.gamma,
            gate=self.spec.gate,
            reduction=self.spec.reduction,
            **({} if self.spec.weights is None else {"soft": self.spec.weights}),
        )
        every = torch.ones_like(sums, dtype=torch.float64).detach()
        return term, {
            **(told if watched is None else {name: values[watched] for name, values in told.items()}),
            "flip/constraint_loss": term.detach() * every,
            "flip/gamma": self.strength.gamma * every,
        }
