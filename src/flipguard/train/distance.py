"""D of Eq. 11 over the whole vocabulary, on answers that TRL's online trainers sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flipguard.objective import logprobs
from flipguard.objective.divergences import DIVERGENCES
from flipguard.train import models
from flipguard.train.recipe import Recipe
from flipguard.train.scoring import Scorer, scorer_for


@dataclass(frozen=True)
class Distance:
    """How far π is from π_0 at each token of an answer; both at the temperature at which answers are drawn."""

    scorer: Scorer
    reference: Any
    ref_scorer: Scorer
    divergence: str
    temperature: float

    def __call__(self, model: Any, ids: Tensor, attention: Tensor, mask: Tensor) -> Tensor:
        """[R, C] nats, 0 where there is no answer, differentiable in π.

        Args:
            model: π, as wrapped for training.
            ids: [R, T] prompts, padded on the left, and their answers, padded on the right.
            attention: [R, T].
            mask: [R, C] the tokens of the answers.
        """
        rows, length = ids.shape
        width = mask.shape[1]
        before = torch.arange(length - width - 1, length - 1, device=ids.device)  # the places that say the tokens
        places = before + length * torch.arange(rows, device=ids.device).unsqueeze(1)
        batch = {"input_ids": ids, "attention_mask": attention}
        with torch.no_grad():
            ref_states = self.ref_scorer.states(self.reference, batch)
        return logprobs.token_divergences(
            self.scorer.states(model, batch),
            lambda states: self.scorer.head(states) / self.temperature,
            ref_states,
            lambda states: self.ref_scorer.head(states) / self.temperature,
            places.masked_fill(mask == 0, -1),
            DIVERGENCES[self.divergence],
        )


def distance_of(recipe: Recipe, model: Any, device: torch.device) -> Distance | None:
    """What the recipe's divergence needs: π_0, loaded once more and frozen; None for the cross entropy and no guard.

    Args:
        recipe: `model`, `constraint` and `rollout` are read.
        model: π, before a trainer of TRL changes how it is called.
        device: where π_0 shall be.
    """
    if recipe.constraint.divergence == "ce" or recipe.constraint.gate == "off":
        return None
    reference = models.load_model(recipe.model).requires_grad_(requires_grad=False)
    if recipe.model.quantization is None:  # 4-bit weights are on the GPU already
        reference = reference.to(device)
    scorer, temperature = scorer_for(model), recipe.rollout.reading_temperature
    return Distance(scorer, reference, scorer_for(reference), recipe.constraint.divergence, temperature)
