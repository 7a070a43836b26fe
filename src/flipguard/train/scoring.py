"""What a model says of given completions: log pi(y_t | x, y_<t), without building logits for the whole vocabulary."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flipguard.objective import logprobs

Head = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Scorer:
    """Scores completion tokens of one architecture; `head` is None where it cannot be told apart from the trunk."""

    head: Head | None

    def __call__(self, model: Any, batch: dict[str, Tensor]) -> Tensor:
        """Per-token log-probabilities.

        Args:
            model: the causal LM, or the wrapper (DDP, PEFT) whose forward pass must be used.
            batch: input_ids [N, T], attention_mask [N, T], completion_mask [N, T] bool.

        Returns:
            [N, T-1] in nats, 0 outside completions, differentiable in the model.
        """
        ids, mask = batch["input_ids"], batch["completion_mask"]
        if self.head is None:
            logits = model(input_ids=ids, attention_mask=batch["attention_mask"], use_cache=False).logits
            return logprobs.token_logps_from_logits(logits, ids, mask)
        return logprobs.token_logps(self.hidden(model, batch), self.head, ids, mask)

    def hidden(self, model: Any, batch: dict[str, Tensor]) -> Tensor:
        """[N, T, H] what the head reads."""
        return _trunk(model, batch["input_ids"], batch["attention_mask"]).hidden_states[-1]


def scorer_for(model: Any) -> Scorer:
    """A Scorer that skips full logits where the head alone reproduces them, tried on a few tokens of `model`."""
    head = model.get_output_embeddings()
    base = model.get_base_model() if _is_adapted(model) else model
    if head is None or "logits_to_keep" not in inspect.signature(base.forward).parameters:
        return Scorer(None)
    device = next(model.parameters()).device
    ids = torch.arange(4, device=device).remainder(model.config.get_text_config().vocab_size)[None]
    with torch.no_grad():
        output = _trunk(model, ids, torch.ones_like(ids))
        reproduced = torch.allclose(head(output.hidden_states[-1][:, -1:]), output.logits, rtol=1e-3, atol=1e-3)
    return Scorer(head if reproduced else None)


def _trunk(model: Any, ids: Tensor, attention_mask: Tensor) -> Any:
    return model(
        input_ids=ids, attention_mask=attention_mask, output_hidden_states=True, logits_to_keep=1, use_cache=False
    )


def _is_adapted(model: Any) -> bool:
    from peft import PeftModel

    return isinstance(model, PeftModel)
