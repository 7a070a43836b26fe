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
from flipguard.objective import flips, logprobs, preference
from flipguard.objective.pairs import PairLogps
from flipguard.train.checking import check_names
from flipguard.train.guard import Guard, Guarded
from flipguard.train.recipe import Recipe
from flipguard.train.strength import Strength
from flipguard.train.unpaired import UnpairedLoss

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
    """L_align + gamma · w · D (Eq. 11) of pairs, from log-probabilities that are already there."""

    align: partial[Tensor]
    beta: float
    guard: Guard
    completions = 2
    """Of each row of a batch; the guard watches the first."""

    def __call__(
        self, token_logps: Tensor, batch: dict[str, Tensor], token_divergence: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch and what to log of it.

        Args:
            token_logps: [2B, C] log pi of the j-th completion token, then 0; chosen rows first, differentiable.
            batch: lengths [2B] scored tokens of each completion, ref_logps [2B] sums under π_0, in nats; where they are
                known, ref_token_logps [B, C] of the chosen and guard_weights [B].
            token_divergence: [B, C] D per token of the chosen completions.

        Returns:
            [] mean over the batch, and metrics by name, each [B] without gradient.
        """
        policy = logprobs.sequence_logps(token_logps)
        ref, lengths = batch["ref_logps"].to(policy.dtype), batch["lengths"]
        pairs = PairLogps(*policy.chunk(2), *ref.chunk(2), *lengths.chunk(2))
        term, told = self.guard(
            Guarded(
                token_logps.chunk(2)[0],
                pairs.ref_chosen,
                pairs.chosen_lengths,
                token_divergence,
                batch.get("ref_token_logps"),
                batch.get("guard_weights"),
            )
        )
        return self.align(pairs).mean() + term, {**told, **self._metrics(pairs)}

    @torch.no_grad()
    def _metrics(self, pairs: PairLogps) -> dict[str, Tensor]:
        chosen = preference.implicit_rewards(pairs.policy_chosen, pairs.ref_chosen, beta=self.beta)
        rejected = preference.implicit_rewards(pairs.policy_rejected, pairs.ref_rejected, beta=self.beta)
        tokens = (pairs.chosen_lengths + pairs.rejected_lengths).clamp(min=1)
        return {
            "kl/ref": -(pairs.c + pairs.r) / tokens,
            "rewards/chosen": chosen,
            "rewards/rejected": rejected,
            "rewards/accuracies": (chosen > rejected).to(chosen.dtype),
            "rewards/margins": chosen - rejected,
            "logps/chosen": pairs.policy_chosen,
            "logps/rejected": pairs.policy_rejected,
        }


def guarded_loss(recipe: Recipe, *, place: str, precision: torch.dtype) -> GuardedLoss | UnpairedLoss:
    """The loss a recipe asks for.

    Args:
        recipe: `algorithm`, `loss` and `constraint` are read.
        place: the recipe's file, for errors.
        precision: what the models compute in; differences below its rounding are no flips.

    Raises:
        RecipeError: `loss` has a key the algorithm does not know, or a value out of its range.
    """
    row = preference.PREFERENCE_LOSSES[recipe.algorithm]
    options = loss_options(row.function, recipe.loss, f"{place}: loss")
    guard = Guard(recipe.constraint, flips.rounding_tolerance(precision), Strength(recipe.constraint))
    kind = UnpairedLoss if row.unpaired else GuardedLoss
    return kind(partial(row.function, **options), options["beta"], guard)


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
