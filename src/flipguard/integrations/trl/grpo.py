"""TRL's GRPO with the guard: answers that earn less than the model before alignment earned are pulled to its answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from trl import GRPOConfig, GRPOTrainer

from flipguard.integrations.trl.rewarded import GuardOptions, Rewarded


@dataclass
class GuardedGRPOConfig(GuardOptions, GRPOConfig):
    """TRL's GRPOConfig and the guard's options; `epsilon` stays TRL's clip range, the guard's is `flip_margin`.

    Raises:
        RecipeError: an option that is not possible, or one of TRL's that cannot go with the guard.
    """


class GuardedGRPOTrainer(Rewarded, GRPOTrainer):
    """TRL's GRPOTrainer, which counts answers that earn less than π_0's and pulls them back (Eqs. 7, 10 to 12)."""

    config = GuardedGRPOConfig

    def sampled(self, prompts: list[Any]) -> tuple[list[list[int]], list[Any]]:
        """What the model says to `prompts` now: token ids, and texts or messages."""
        _, ids, _, completions, *_ = self._generate(prompts)
        return ids, completions

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        loss: Tensor = super()._compute_loss(model, inputs)
        parts = self.current_gradient_accumulation_steps if self.model.training else 1  # GRPO divides by them itself
        return self.guard.added(self, model, inputs, loss, parts=parts)
