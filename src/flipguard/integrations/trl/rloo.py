"""TRL's RLOO with the guard: answers that earn less than the model before alignment earned are pulled to its answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from trl import RLOOConfig, RLOOTrainer

from flipguard.integrations.trl.rewarded import GuardOptions, Rewarded


@dataclass
class GuardedRLOOConfig(GuardOptions, RLOOConfig):
    """TRL's RLOOConfig and the guard's options; `epsilon` stays TRL's clip range, the guard's is `flip_margin`.

    Raises:
        RecipeError: an option that is not possible, or one of TRL's that cannot go with the guard.
    """


class GuardedRLOOTrainer(Rewarded, RLOOTrainer):
    """TRL's RLOOTrainer, which counts answers that earn less than π_0's and pulls them back (Eqs. 7, 10 to 12)."""

    config = GuardedRLOOConfig

    def sampled(self, prompts: list[Any]) -> tuple[list[list[int]], list[Any]]:
        """What the model says to `prompts` now: token ids, and texts or messages."""
        _, ids, completions = self._generate(prompts)
        return ids, completions

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        loss: Tensor = super()._compute_loss(model, inputs)
        return self.guard.added(self, model, inputs, loss)
