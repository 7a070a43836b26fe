"""What a model says of given completions: log pi(y_t | x, y_<t), without building logits for the whole vocabulary."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flipguard.objective import logprobs

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Scorer:
    """How to read log-probabilities off one architecture: its trunk gives states, `head` turns states into logits.

    Where the head alone does not reproduce the model's logits (it caps or scales them elsewhere), the states are the
    logits themselves and the head is the identity: slower, and right.
    """

    head: Callable[[Tensor], Tensor]
    states_are_logits: bool

    def states(self, model: Any, batch: Batch) -> Tensor:
        """[R, T, H] what `head` reads.

        Args:
            model: the causal LM, or the wrapper around it (DDP, PEFT) whose forward pass must be used.
            batch: input_ids [R, T], attention_mask [R, T].
        """
        if self.states_are_logits:
            logits: Tensor = model(**_inputs(batch), use_cache=False).logits
            return logits
        return _trunk(model, batch)

    def token_logps(self, states: Tensor, batch: Batch) -> Tensor:
        """[S, C] in nats, column j the j-th token of a completion, then 0; differentiable in the model.

        Args:
            states: [R, T, H] from `states`.
            batch: places and targets [S, C], as in `logprobs.token_logps`.
        """
        return logprobs.token_logps(states, self.head, batch["places"], batch["targets"])


def scorer_for(model: Any) -> Scorer:
    """The Scorer of an architecture; whether its head can be used alone is tried on a few tokens of `model`."""
    whole = Scorer(torch.nn.Identity(), states_are_logits=True)
    head = model.get_output_embeddings()
    if head is None or "logits_to_keep" not in inspect.signature(_unadapted(model).forward).parameters:
        return whole
    ids = torch.arange(4, device=model.device).remainder(model.config.get_text_config().vocab_size)[None]
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with torch.no_grad():
        reproduced = torch.allclose(head(_trunk(model, batch)), whole.states(model, batch), rtol=1e-3, atol=1e-3)
    return Scorer(head, states_are_logits=False) if reproduced else whole


def _trunk(model: Any, batch: Batch) -> Tensor:
    output = model(**_inputs(batch), output_hidden_states=True, logits_to_keep=1, use_cache=False)
    states: Tensor = output.hidden_states[-1]
    return states


def _inputs(batch: Batch) -> Batch:
    return {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}


def _unadapted(model: Any) -> Any:
    from peft import PeftModel

    return model.get_base_model() if isinstance(model, PeftModel) else model
