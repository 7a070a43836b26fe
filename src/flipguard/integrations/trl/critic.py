"""PPO's critic: what the rest of an answer will earn, told before each of its tokens.

A sequence classifier with one label, read at every token instead of the last; so a reward model can be where it starts.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, TrainerCallback

from flipguard.errors import ModelError

FOLDER = "critic"  # beside the policy's weights


class Critic(torch.nn.Module):
    """The values of a sequence classifier with one label."""

    def __init__(self, classifier: Any) -> None:
        """Wrap it.

        Args:
            classifier: whose trunk gives a state for each token and whose `score` makes a number of it.

        Raises:
            ModelError: it has several labels, or no such head.
        """
        super().__init__()
        head = dict(classifier.named_children()).get("score")
        if head is None or classifier.config.num_labels != 1:
            raise ModelError(
                f"{classifier.config._name_or_path or 'critic'}: a critic is a causal language model with one score "  # noqa: SLF001
                f"at each token; {type(classifier).__name__} with {classifier.config.num_labels} labels is none."
            )
        self.classifier = classifier
        self.placed = "position_ids" in inspect.signature(classifier.base_model.forward).parameters

    def forward(self, input_ids: Tensor, attention_mask: Tensor, width: int) -> Tensor:
        """[B, width] V before each of the last `width` tokens, in reward units.

        Args:
            input_ids: [B, T] prompts, padded on the left, and answers, padded on the right.
            attention_mask: [B, T].
            width: of the answers.
        """
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "use_cache": False}
        if self.placed:
            inputs["position_ids"] = (attention_mask.cumsum(dim=1) - 1).clamp(min=0)
        states = self.classifier.base_model(**inputs).last_hidden_state[:, -width - 1 : -1]
        values: Tensor = self.classifier.score(states).squeeze(-1).float()
        return values


def with_score(language_model: Any) -> Any:
    """A sequence classifier with one label on a copy of the trunk of `language_model`; its head is new and random.

    Raises:
        ModelError: transformers has no such classifier for the architecture.
    """
    config = copy.deepcopy(language_model.config)
    config.num_labels = 1
    try:
        classifier = AutoModelForSequenceClassification.from_config(config, dtype=language_model.dtype)
    except ValueError:
        raise ModelError(f"{config.model_type}: transformers has no sequence classifier for it.") from None
    classifier.base_model.load_state_dict(language_model.base_model.state_dict())
    return classifier


def opened(named: str | None, policy: Any) -> Critic:
    """A critic to start from: the classifier in the folder `named`, or else the policy's trunk with V = 0 everywhere.

    Args:
        named: a folder or hub id, such as that of the reward model.
        policy: the model, or where it is; not yet adapted.

    Raises:
        ModelError: there is none, it is no critic, or it reads other tokens than the policy.
    """
    if isinstance(policy, str):
        policy = _loaded(AutoModelForCausalLM, policy)
    if named is None and isinstance(policy, PeftModel):
        raise ModelError(
            "model: has an adapter already, so no critic can be copied from it. Give peft_config, or critic."
        )
    if named is None:
        classifier = with_score(policy)
        torch.nn.init.zeros_(Critic(classifier).classifier.score.weight)
        return Critic(classifier)
    critic = Critic(_loaded(AutoModelForSequenceClassification, named, num_labels=1))
    rows, wanted = (model.get_input_embeddings().weight.shape[0] for model in (critic.classifier, policy))
    if rows != wanted:
        raise ModelError(f"{named}: reads {rows:,} tokens and the policy {wanted:,}; a critic must read the policy's.")
    return critic


def saved(critic: Any, folder: Path) -> None:
    """Write a critic, wrapped or not, beside the policy in `folder`."""
    _bare(critic).classifier.save_pretrained(folder / FOLDER)


def restored(critic: Any, folder: Path) -> None:
    """Give `critic` the weights that `saved` wrote.

    Raises:
        ModelError: there are none.
    """
    classifier = _loaded(AutoModelForSequenceClassification, str(folder / FOLDER))
    _bare(critic).classifier.load_state_dict(classifier.state_dict())


class CriticSteps(TrainerCallback):
    """What Trainer does for the policy around each optimizer step, for the critic."""

    def __init__(self, critic: Any) -> None:
        self.critic = critic

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002 - framework's
        """Clip its gradients, apart from the policy's."""
        if args.max_grad_norm:
            torch.nn.utils.clip_grad_norm_(self.critic.parameters(), args.max_grad_norm)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002 - framework's
        """Forget its gradients."""
        self.critic.zero_grad()


def learnable(critic: Any) -> Iterator[torch.nn.Parameter]:
    """What the optimizer moves."""
    return (weight for weight in critic.parameters() if weight.requires_grad)


def _bare(critic: Any) -> Critic:
    found: Critic = critic.module if isinstance(critic, torch.nn.parallel.DistributedDataParallel) else critic
    return found


def _loaded(kind: Any, path: str, **options: Any) -> Any:
    try:
        return kind.from_pretrained(path, dtype="float32", **options)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{path}: cannot be loaded as {kind.__name__} ({reason}).") from None
