"""Eq. 11 for pairs: an alignment loss plus the guard on the chosen completion, and the numbers worth watching."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from flipguard.errors import RecipeError
from flipguard.objective import constraint, flips, logprobs, preference
from flipguard.objective.pairs import PairLogps
from flipguard.train.checking import check_names
from flipguard.train.recipe import ConstraintSpec, Recipe

DEFAULT_BETA = 0.1
ABOVE_ZERO = sys.float_info.min
RANGES = {  # of the hyper-parameters of objective/preference.py, as their docstrings say
    "beta": (ABOVE_ZERO, sys.float_info.max),
    "label_smoothing": (0.0, math.nextafter(0.5, 0)),
    "dpop_lambda": (0.0, sys.float_info.max),
    "alpha": (0.0, sys.float_info.max),
    "target_margin": (0.0, sys.float_info.max),
    "desirable_weight": (0.0, sys.float_info.max),
    "undesirable_weight": (0.0, sys.float_info.max),
}
FLAGS = {"reference_free"}


@dataclass(frozen=True)
class GuardedLoss:
    """L_align + gamma · w · D (Eq. 11), from log-probabilities that are already there."""

    align: partial[Tensor]
    beta: float
    guard: ConstraintSpec
    tolerance: float

    def __call__(
        self, token_logps: Tensor, batch: dict[str, Tensor], token_divergence: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch and what to log of it.

        Args:
            token_logps: [2B, C] log pi of the j-th completion token, then 0; chosen rows first, differentiable.
            batch: lengths [2B] scored tokens of each completion, ref_logps [2B] sums under π_0, in nats.
            token_divergence: [B, C] D per token of the chosen completions.

        Returns:
            [] mean over the batch, and metrics by name, each [B] without gradient.
        """
        policy = logprobs.sequence_logps(token_logps)
        pairs = self._pairs(policy, batch["ref_logps"].to(policy.dtype), batch["lengths"])
        flipped = flips.likelihood_flips(
            pairs.ref_chosen, pairs.policy_chosen, epsilon=self.guard.epsilon, tolerance=self.tolerance
        )
        penalty = constraint.constraint_loss(
            token_divergence,
            pairs.chosen_lengths,
            flipped,
            gamma=self.guard.gamma,
            gate=self.guard.gate,
            reduction=self.guard.reduction,
            **({} if self.guard.weights is None else {"soft": self.guard.weights}),
        )
        loss = self.align(pairs).mean() + penalty
        return loss, self._metrics(pairs, flipped, penalty.detach())

    def _pairs(self, policy: Tensor, ref: Tensor, lengths: Tensor) -> PairLogps:
        halves = [*policy.chunk(2), *ref.chunk(2), *lengths.chunk(2)]
        return PairLogps(*halves)

    @torch.no_grad()
    def _metrics(self, pairs: PairLogps, flipped: Tensor, penalty: Tensor) -> dict[str, Tensor]:
        chosen = preference.implicit_rewards(pairs.policy_chosen, pairs.ref_chosen, beta=self.beta)
        rejected = preference.implicit_rewards(pairs.policy_rejected, pairs.ref_rejected, beta=self.beta)
        every = torch.ones_like(chosen, dtype=torch.float64)
        tokens = (pairs.chosen_lengths + pairs.rejected_lengths).clamp(min=1)
        return {
            "flip/rate": flipped.to(chosen.dtype),
            "flip/margin": flips.flip_margin(pairs.ref_chosen, pairs.policy_chosen, epsilon=self.guard.epsilon),
            "flip/constraint_loss": penalty * every,
            "flip/gamma": (0.0 if self.guard.gate == "off" else self.guard.gamma) * every,
            "kl/ref": -(pairs.c + pairs.r) / tokens,
            "rewards/chosen": chosen,
            "rewards/rejected": rejected,
            "rewards/accuracies": (chosen > rejected).to(chosen.dtype),
            "rewards/margins": chosen - rejected,
            "logps/chosen": pairs.policy_chosen,
            "logps/rejected": pairs.policy_rejected,
        }


def guarded_loss(recipe: Recipe, *, place: str, precision: torch.dtype) -> GuardedLoss:
    """The loss a recipe asks for.

    Args:
        recipe: `algorithm`, `loss` and `constraint` are read.
        place: the recipe's file, for errors.
        precision: what the models compute in; differences below its rounding are no flips.

    Raises:
        RecipeError: `loss` has a key the algorithm does not know, or a value out of its range.
    """
    function = preference.PREFERENCE_LOSSES[recipe.algorithm].function
    options = loss_options(function, recipe.loss, f"{place}: loss")
    tolerance = flips.rounding_tolerance(precision)
    return GuardedLoss(partial(function, **options), options["beta"], recipe.constraint, tolerance)


def loss_options(function: Callable[..., Tensor], given: Mapping[str, bool | float], place: str) -> dict[str, float]:
    """The hyper-parameters of a loss: what the recipe gives, checked, and a beta in any case.

    Raises:
        RecipeError: a key the loss does not know, or a value out of its range.
    """
    parameters = inspect.signature(function).parameters
    known = [name for name, item in parameters.items() if item.kind is item.KEYWORD_ONLY]
    check_names(given, known, place)
    own = parameters["beta"].default
    options = {"beta": DEFAULT_BETA if own is inspect.Parameter.empty else own, **given}
    for name, value in options.items():
        if (name in FLAGS) is not isinstance(value, bool):
            wanted = "true or false" if name in FLAGS else "a number"
            raise RecipeError(f"{place}.{name}: {str(value).lower()} is not possible: it must be {wanted}.")
        low, high = RANGES.get(name, (False, True))
        if not low <= value <= high:
            wanted = "greater than 0" if low == ABOVE_ZERO else f"at least {low:g}"
            wanted += f" and below {high:.2g}" if high < 1 else ""
            raise RecipeError(f"{place}.{name}: {value} is not possible: it must be {wanted}.")
    return options
