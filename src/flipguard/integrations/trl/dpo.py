"""TRL's DPO with the guard: every loss of TRL's, plus γ · w · D on chosen answers that have become less likely."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from trl import DPOConfig, DPOTrainer

from flipguard.errors import RecipeError
from flipguard.integrations.trl import guard, options


@dataclass
class GuardedDPOConfig(DPOConfig):
    """TRL's DPOConfig and the guard's options; docs/trl.md says what they mean.

    Raises:
        RecipeError: an option that is not possible, or one of TRL's that cannot go with the guard.
    """

    gamma: float = field(default=0.01, metadata=options.told("gamma"))
    epsilon: float = field(default=0.0, metadata=options.told("epsilon"))
    gate: options.Gate = field(default="flip", metadata=options.told("gate"))
    divergence: str = field(default="ce", metadata=options.told("divergence"))
    reduction: options.Reduction = field(default="sum", metadata=options.told("reduction"))

    def __post_init__(self) -> None:
        """Check the guard's options, then TRL's."""
        options.check(self)
        if self.ld_alpha is not None:
            raise RecipeError(
                f"GuardedDPOConfig: ld_alpha: {self.ld_alpha} cannot go with the guard: it changes what the likelihood "
                f"of an answer is. Leave it None."
            )
        super().__post_init__()


class GuardedDPOTrainer(DPOTrainer):
    """TRL's DPOTrainer, which counts chosen answers that flip and pulls them back (Eqs. 8 to 12)."""

    def __init__(self, model: Any, ref_model: Any = None, args: Any = None, *rest: Any, **trainer: Any) -> None:
        """Like DPOTrainer.

        Args:
            model: π.
            ref_model: π_0; None is the model as it is now, also where it was changed in memory.
            args: a GuardedDPOConfig; None is one with the defaults.
            rest: what DPOTrainer takes.
            trainer: the same, by name.

        Raises:
            RecipeError: `args` is no GuardedDPOConfig, or the data hold images.
        """
        config = GuardedDPOConfig("guarded-dpo") if args is None else args
        guard.checked(config, GuardedDPOConfig, type(self))
        given = inspect.signature(DPOTrainer).bind(model, ref_model, config, *rest, **trainer)
        given.arguments["ref_model"] = guard.reference(given.arguments)
        super().__init__(*given.args, **given.kwargs)
        self.guard = guard.guard_of(self)

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,  # noqa: FBT001, FBT002 - TRL's signature
        num_items_in_batch: Any = None,
    ) -> Any:
        """TRL's loss plus the guard's term, from the same forward."""
        if not self.precompute_ref_logps:
            ref_model = self.model if self.ref_model is None else self.ref_model
            chosen, rejected = self.compute_ref_log_probs(ref_model, inputs)
            inputs = {**inputs, "ref_chosen_logps": chosen, "ref_rejected_logps": rejected}
        policy = guard.KeptOutput(model, inputs["input_ids"])
        with guard.references_in_batch(self):
            result = super().compute_loss(policy, inputs, return_outputs, num_items_in_batch)
        chosen_logps = policy.token_logps.chunk(2)[0]
        lengths = inputs["completion_mask"][:, 1:].sum(dim=1).chunk(2)[0]
        wanted = torch.ones_like(lengths, dtype=torch.bool)
        term, metrics = self.guard(chosen_logps, lengths, inputs["ref_chosen_logps"], wanted)
        guard.log_rows(self, metrics)
        return guard.added(result, term)
