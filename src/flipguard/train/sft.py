"""Supervised fine-tuning: TRL's SFTTrainer, given rows that are tokenized and checked already."""

from __future__ import annotations

from typing import Any

import datasets
from transformers import PrinterCallback, ProgressCallback
from trl import SFTTrainer

from flipguard.train.data import TokenData
from flipguard.train.sharding import in_order

datasets.disable_progress_bars()  # our own progress says what matters


class SupervisedTrainer(SFTTrainer):
    """TRL's, and several processes read the rows in the order that one does, also after a resume."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return in_order(super()._get_train_sampler(train_dataset), self)


def sft_trainer(
    model: Any,
    arguments: Any,
    tokenizer: Any,
    data: TokenData,
    evaluation: TokenData | None,
    lora: Any,
    *,
    callbacks: list[Any],
) -> Any:
    """A trainer whose loss counts completion tokens only."""
    trainer = SupervisedTrainer(
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


def _dataset(data: TokenData) -> Any:
    rows = []
    for row in data.rows:
        (completion,) = row.completions
        mask = [0] * len(row.prompt) + [1] * len(completion)
        rows.append({"input_ids": [*row.prompt, *completion], "completion_mask": mask})
    return datasets.Dataset.from_list(rows)
