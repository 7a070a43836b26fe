"""Reward modelling (Eq. 1): TRL's RewardTrainer on rows that are tokenized and checked, measured on held-out pairs."""

from __future__ import annotations

from typing import Any

import datasets
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from transformers import PrinterCallback, ProgressCallback
from trl import RewardTrainer

from flipguard.errors import ModelError
from flipguard.objective import reward
from flipguard.rewards.language_models import FORM
from flipguard.train.data import TokenData
from flipguard.train.sharding import in_order


def reward_trainer(
    model: Any,
    arguments: Any,
    tokenizer: Any,
    data: TokenData,
    evaluation: TokenData | None,
    lora: Any,
    *,
    callbacks: list[Any],
) -> Any:
    """A trainer of Eq. 1 that also says how good and how honest the rewards are.

    Args:
        model: a sequence classifier with one label.
        arguments: a RewardConfig.
        tokenizer: of the language model it was made from, from `prepare_tokenizer`.
        data: pairs, chosen before rejected.
        evaluation: held-out pairs.
        lora: a LoraConfig, or None for full fine-tuning.
        callbacks: of transformers.
    """
    trainer = MeasuredRewardTrainer(
        model=model,
        args=arguments,
        train_dataset=_dataset(data),
        eval_dataset=None if evaluation is None else _dataset(evaluation),
        processing_class=tokenizer,
        peft_config=lora,
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    return trainer


class MeasuredRewardTrainer(RewardTrainer):
    """RewardTrainer, with what `held_out_metrics` says of all held-out pairs, each weighed alike."""

    def __init__(self, **trainer: Any) -> None:
        super().__init__(**trainer)
        self._margins: list[Tensor] = []

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,  # noqa: FBT001, FBT002 - Trainer's signature
        num_items_in_batch: Any = None,
    ) -> Any:
        """TRL's loss; in evaluation the margins are kept until the next `log`."""
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)  # noqa: FBT003 - TRL's signature
        if not model.training:
            chosen, rejected = outputs.logits.detach().float().squeeze(-1).chunk(2)
            self._margins.append(self.accelerator.gather_for_metrics(chosen - rejected).cpu())
        return (loss, outputs) if return_outputs else loss

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return in_order(super()._get_train_sampler(train_dataset), self)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Put the exact numbers over all held-out pairs in the place of TRL's means of batch means."""
        held_out = {}
        if "eval_loss" in logs and self._margins:
            held_out = held_out_metrics(torch.cat(self._margins))
            self._margins = []
        logs.update(held_out)
        super().log(logs, start_time)
        self.state.log_history[-1].update(held_out)


def held_out_metrics(margins: Tensor) -> dict[str, float]:
    """What the margins r(x, y_c) - r(x, y_r), [N], of held-out pairs say of a reward model."""
    return {
        "eval_accuracy": reward.accuracy(margins).item(),
        "eval_margin": margins.mean().item(),
        "eval_nll": -logsigmoid(margins.double()).mean().item(),
        "eval_calibration_error": reward.calibration_error(margins).item(),
    }


def prepare_tokenizer(tokenizer: Any, parts: list[TokenData], *, chat: bool) -> None:
    """Give `tokenizer` a padding token that is no end token, and let it remember the form of the texts.

    Args:
        tokenizer: of the language model; what it is given is saved with the reward model.
        parts: all data that will be padded.
        chat: whether the rows are conversations rather than texts.
    """
    tokenizer.pad_token = padding_token(tokenizer, parts)
    tokenizer.init_kwargs[FORM] = "chat" if chat else "plain"


def padding_token(tokenizer: Any, parts: list[TokenData]) -> str:
    """The tokenizer's padding token, if it is no end token; else a token that no row holds, a special one first.

    A classifier on a causal model reads the last token that is no padding. Padded with the end token it would never
    see the end of an answer.
    """
    if tokenizer.pad_token_id != tokenizer.eos_token_id:
        return str(tokenizer.pad_token)
    seen = {tokenizer.eos_token_id}
    for part in parts:
        for row in part.rows:
            seen.update(row.prompt, *row.completions)
    special = [number for number in sorted(tokenizer.added_tokens_decoder) if number not in seen]
    free = special or (number for number in range(len(tokenizer)) if number not in seen)
    number = next(iter(free), None)
    if number is None:
        raise ModelError("the tokenizer has no padding token, and the data uses all of its tokens. Add a pad_token.")
    return str(tokenizer.convert_ids_to_tokens(number))


def _dataset(data: TokenData) -> Any:
    columns: dict[str, list[list[int]]] = {"chosen_ids": [], "rejected_ids": []}
    for row in data.rows:
        for ids, completion in zip(columns.values(), row.completions, strict=True):
            ids.append([*row.prompt, *completion])
    return datasets.Dataset.from_dict(columns)
