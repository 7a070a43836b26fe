"""The `trainer` and `peft` sections: checked by name and type, then handed on unchanged."""

from __future__ import annotations

from typing import Any

import peft
import torch
from transformers import TrainingArguments
from trl import SFTConfig

from flipguard.errors import RecipeError
from flipguard.train.checking import check_fields
from flipguard.train.recipe import Recipe

# Ours where the frameworks' defaults surprise: they differ between TRL and transformers, and some call home.
DEFAULTS: dict[str, Any] = {
    "report_to": "none",
    "logging_steps": 1,
    "save_total_limit": 2,
}
SFT_DEFAULTS: dict[str, Any] = {"bf16": False, "gradient_checkpointing": False}  # off, as in transformers
OURS = {"disable_tqdm": True, "remove_unused_columns": False}


def training_arguments(recipe: Recipe, *, place: str) -> Any:
    """TrainingArguments (SFTConfig for sft) from the recipe's `trainer` section.

    Raises:
        RecipeError: an unknown key, a value of the wrong type, or a combination the framework refuses.
    """
    kind = SFTConfig if recipe.algorithm == "sft" else TrainingArguments
    check_fields(kind, recipe.trainer, f"{place}: trainer")
    for name in OURS.keys() & recipe.trainer.keys():
        raise RecipeError(f"{place}: trainer.{name}: is set by flipguard; remove it.")
    values = {**DEFAULTS, **_evaluation(recipe), **recipe.trainer, **OURS}
    if recipe.algorithm == "sft":
        values = {**SFT_DEFAULTS, **values, "max_length": None, "completion_only_loss": True}
    if not torch.cuda.is_available():
        values.setdefault("dataloader_pin_memory", False)
    try:
        arguments = kind(**values)
    except (ValueError, TypeError, ImportError) as error:
        raise RecipeError(f"{place}: trainer: {str(error).strip().splitlines()[0]}") from None
    if arguments.eval_strategy != "no" and recipe.data.eval is None:
        raise RecipeError(f"{place}: trainer.eval_strategy: there is nothing to evaluate on; set data.eval.")
    return arguments


def lora_config(recipe: Recipe, *, place: str) -> Any:
    """peft.LoraConfig from the recipe's `peft` section, or None where there is none.

    Raises:
        RecipeError: an unknown key or a value LoraConfig refuses.
    """
    if recipe.peft is None:
        return None
    check_fields(peft.LoraConfig, recipe.peft, f"{place}: peft")
    try:
        return peft.LoraConfig(task_type="CAUSAL_LM", **recipe.peft)
    except (ValueError, TypeError) as error:
        raise RecipeError(f"{place}: peft: {str(error).strip().splitlines()[0]}") from None


def precision_of(arguments: Any, model: Any) -> torch.dtype:
    """What the model computes in: the mixed precision of the trainer, else the dtype of its weights."""
    if arguments.bf16:
        return torch.bfloat16
    dtype: torch.dtype = torch.float16 if arguments.fp16 else model.dtype
    return dtype


def _evaluation(recipe: Recipe) -> dict[str, Any]:
    return {} if recipe.data.eval is None else {"eval_strategy": "epoch"}
