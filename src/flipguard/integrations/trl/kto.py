"""TRL's KTO with the guard: γ · w · D on desirable answers (label True) that have become less likely."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from trl import KTOConfig, KTOTrainer

from flipguard.errors import DataError
from flipguard.integrations.trl import guard, options

COLUMNS = {
    *("input_ids", "attention_mask", "completion_mask", "label", "ref_logps"),
    *("KL_input_ids", "KL_attention_mask", "KL_completion_mask", "ref_KL_logps"),
}


@dataclass
class GuardedKTOConfig(KTOConfig):
    """TRL's KTOConfig and the guard's options; docs/trl.md says what they mean.

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
        super().__post_init__()


class GuardedKTOTrainer(KTOTrainer):
    """TRL's KTOTrainer, which counts desirable answers that flip and pulls them back (Eqs. 8 to 12)."""

    def __init__(self, model: Any, ref_model: Any = None, args: Any = None, *rest: Any, **trainer: Any) -> None:
        """Like KTOTrainer.

        Args:
            model: π.
            ref_model: π_0; None is the model as it is now, also where it was changed in memory.
            args: a GuardedKTOConfig; None is one with the defaults.
            rest: what KTOTrainer takes.
            trainer: the same, by name.

        Raises:
            RecipeError: `args` is no GuardedKTOConfig, or the data hold images.
        """
        config = GuardedKTOConfig("guarded-kto") if args is None else args
        guard.checked(config, GuardedKTOConfig, type(self))
        given = inspect.signature(KTOTrainer).bind(model, ref_model, config, *rest, **trainer)
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
        """TRL's loss plus the guard's term, from the same forward.

        Raises:
            DataError: the batch has a column of its own, which TRL's reference would not see.
        """
        if strangers := inputs.keys() - COLUMNS:
            raise DataError(
                f"GuardedKTOTrainer: a batch has the column {min(strangers)!r}, which the reference model would "
                f"not see. Let data_collator leave it out."
            )
        if not self.precompute_ref_logps:
            ref_model = self.model if self.ref_model is None else self.ref_model
            ref_logps, ref_kl_logps = self.compute_ref_log_probs(ref_model, inputs)
            inputs = {**inputs, "ref_logps": ref_logps, "ref_KL_logps": ref_kl_logps}
        policy = guard.KeptOutput(model, inputs["input_ids"])
        with guard.references_in_batch(self):
            result = super().compute_loss(policy, inputs, return_outputs, num_items_in_batch)
        lengths = inputs["completion_mask"][:, 1:].sum(dim=1)
        term, metrics = self.guard(policy.token_logps, lengths, inputs["ref_logps"], inputs["label"].bool())
        guard.log_rows(self, metrics)
        return guard.added(result, term)
