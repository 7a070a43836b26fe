"""The `trainer` and `peft` sections: checked by name and type, then handed on unchanged."""

from __future__ import annotations

import importlib.util
from dataclasses import fields
from typing import Any

import peft
import torch
from accelerate.utils import parse_flag_from_env
from transformers import TrainingArguments
from trl import RewardConfig, SFTConfig

from flipguard.errors import RecipeError
from flipguard.integrations.trl import GuardedGRPOConfig, GuardedPPOConfig, GuardedRLOOConfig
from flipguard.train.caches import cache_folder
from flipguard.train.checking import converted
from flipguard.train.models import is_adapter
from flipguard.train.onlinespec import ONLINE, PPO_ONLY
from flipguard.train.recipe import Recipe
from flipguard.train.selection import METRIC

# Ours where the frameworks' defaults surprise: they differ between TRL and transformers, and some call home.
DEFAULTS: dict[str, Any] = {
    "report_to": "none",
    "logging_steps": 1,
    "save_total_limit": 2,
    "ddp_find_unused_parameters": False,  # every weight takes part; looking for others costs time at each step
}
TRL_DEFAULTS: dict[str, Any] = {"bf16": False, "gradient_checkpointing": False}  # off, as in transformers
KINDS: dict[str, tuple[Any, dict[str, Any]]] = {  # TRL's own arguments, and what we set of them
    "sft": (SFTConfig, {"max_length": None, "completion_only_loss": True}),
    "reward": (RewardConfig, {"max_length": None}),
    "rloo": (GuardedRLOOConfig, {}),
    "grpo": (GuardedGRPOConfig, {}),
    "ppo": (GuardedPPOConfig, {}),
}
OURS = {"disable_tqdm": True, "remove_unused_columns": False}
LEAST = {
    "learning_rate": (0.0, "a number of at least 0"),
    "num_train_epochs": (1e-9, "greater than 0"),
    "per_device_train_batch_size": (1, "at least 1"),
    "per_device_eval_batch_size": (1, "at least 1"),
    "gradient_accumulation_steps": (1, "at least 1"),
    "dataloader_num_workers": (0, "at least 0"),
    "seed": (0, "at least 0"),
}
BY_SELECT = {"load_best_model_at_end": True, "metric_for_best_model": METRIC, "greater_is_better": False}
REPORTERS = {"tensorboard", "wandb", "trackio", "mlflow"}  # of report_to, those named like their package
NO_EFFECT = {
    "label_smoothing_factor",
    "restore_callback_states_from_checkpoint",
    "resume_from_checkpoint",
    "save_only_model",
}
NOT_YOURS = {*OURS, *NO_EFFECT, "max_length", "completion_only_loss"}
SAID_ELSEWHERE = {  # fields of TRL's online configs, and the section of a recipe that says them
    **dict.fromkeys(("max_completion_length", "temperature", "top_p", "top_k", "num_generations"), "rollout"),
    **dict.fromkeys(("use_vllm", "vllm_mode"), "rollout"),
    **dict.fromkeys(("gamma", "flip_margin", "gate", "divergence", "reduction"), "constraint"),
    **dict.fromkeys(("model_init_kwargs", "trust_remote_code"), "model"),
    **dict.fromkeys(("reward_weights", "sync_ref_model"), "reward"),
    "reference_cache": "speed",
    **{name: name for name in PPO_ONLY},
}


def training_arguments(recipe: Recipe, *, place: str) -> Any:
    """TrainingArguments from the recipe's `trainer` section, or TRL's own where its trainer is used (KINDS).

    Raises:
        RecipeError: an unknown key, a value of the wrong type, or a combination the framework refuses.
    """
    kind, fixed = KINDS.get(recipe.algorithm, (TrainingArguments, {}))
    given = converted(kind, recipe.trainer, f"{place}: trainer")
    if recipe.algorithm in ONLINE:
        given |= _online_loss(kind, recipe, given, place)
        fixed = _online(recipe)
    for name in sorted(NOT_YOURS & given.keys()):
        raise RecipeError(f"{place}: trainer.{name}: is set by flipguard, or has no effect here; remove it.")
    values = {**DEFAULTS, **_evaluation(recipe), **_selection(recipe, given, place), **given, **OURS}
    if fixed:
        values = {**TRL_DEFAULTS, **values, **fixed}
    if not torch.cuda.is_available():
        values.setdefault("dataloader_pin_memory", False)
    _check_ranges(given, place)
    try:
        arguments = kind(**values)
    except RecipeError as error:
        raise RecipeError(f"{place}: {str(error).removeprefix(f'{kind.__name__}: ')}") from None
    except (ValueError, TypeError, ImportError) as error:
        raise RecipeError(f"{place}: trainer: {str(error).strip().splitlines()[0]}") from None
    for name in arguments.report_to:
        if name in REPORTERS and importlib.util.find_spec(name) is None:
            raise RecipeError(f"{place}: trainer.report_to: needs the package {name!r}. Install it: pip install {name}")
    if arguments.eval_strategy != "no" and recipe.data.eval is None:
        raise RecipeError(f"{place}: trainer.eval_strategy: there is nothing to evaluate on; set data.eval.")
    return arguments


def _online_loss(kind: Any, recipe: Recipe, given: dict[str, Any], place: str) -> dict[str, Any]:
    """The recipe's `loss`: fields of TRL's config that TrainingArguments has not."""
    said = converted(kind, recipe.loss, f"{place}: loss")
    general = {item.name for item in fields(TrainingArguments)}
    if "generation_kwargs" in {**said, **given} and not recipe.rollout.temperature:
        raise RecipeError(f"{place}: trainer.generation_kwargs: cannot go with rollout.temperature 0; remove one.")
    for section, names in (("loss", said), ("trainer", given)):
        for name in SAID_ELSEWHERE.keys() & names.keys():
            other = SAID_ELSEWHERE[name]
            raise RecipeError(f"{place}: {section}.{name}: is said by the section '{other}' of a recipe; remove it.")
    for name in said:
        if name in general:
            raise RecipeError(f"{place}: loss.{name}: belongs to the section 'trainer'.")
        if name in given:
            raise RecipeError(f"{place}: loss.{name}: is said in the section 'trainer', too; remove one of them.")
    return said


def _online(recipe: Recipe) -> dict[str, Any]:
    """What `rollout`, `constraint` and `speed` mean to TRL's configs and the guard's fields in them."""
    rollout, guard = recipe.rollout, recipe.constraint
    own: dict[str, Any] = {} if rollout.samples is None else {"num_generations": rollout.samples}
    if recipe.algorithm == "ppo":
        own = {"critic": recipe.critic, "pretraining": recipe.pretraining}
    if not rollout.temperature:
        greedy = {"do_sample": False, "top_k": None}
        own["generation_kwargs"] = greedy if rollout.vllm == "off" else {"temperature": 0.0}
    return own | {
        "max_completion_length": rollout.max_new_tokens,
        "temperature": rollout.reading_temperature,
        "top_p": rollout.top_p,
        "top_k": rollout.top_k,
        "use_vllm": rollout.vllm != "off",
        "vllm_mode": "colocate" if rollout.vllm == "off" else rollout.vllm,
        "gamma": guard.gamma,
        "flip_margin": guard.epsilon,
        "gate": "flip" if guard.gate == "soft" else guard.gate,  # the guard is told of the soft gate apart
        "reduction": guard.reduction,
        "reference_cache": str(cache_folder() / "reference_rollouts")
        if recipe.speed.reference_cache == "auto"
        else None,
    }


def _check_ranges(given: dict[str, Any], place: str) -> None:
    for name, (lowest, wanted) in LEAST.items():
        if name in given and not lowest <= given[name] < float("inf"):
            raise RecipeError(f"{place}: trainer.{name}: {given[name]} is not possible: it must be {wanted}.")
    if given.get("max_steps") == 0:
        raise RecipeError(f"{place}: trainer.max_steps: 0 trains nothing: set at least 1, or -1 for whole epochs.")


def lora_config(recipe: Recipe, *, place: str) -> Any:
    """peft.LoraConfig from the recipe's `peft` section, or None where there is none.

    Raises:
        RecipeError: an unknown key or a value LoraConfig refuses.
    """
    if recipe.peft is None:
        return None
    given = converted(peft.LoraConfig, recipe.peft, f"{place}: peft")
    try:
        return peft.LoraConfig(**{"task_type": "SEQ_CLS" if recipe.algorithm == "reward" else "CAUSAL_LM", **given})
    except (ValueError, TypeError) as error:
        raise RecipeError(f"{place}: peft: {str(error).strip().splitlines()[0]}") from None


def check_launch(recipe: Recipe, arguments: Any, *, place: str) -> None:
    """Refuse what cannot be done where the launcher shares out the weights (ZeRO-3, FSDP).

    Raises:
        RecipeError: answering prompts, merging an adapter, or loading in one process alone was asked for.
    """
    fsdp = bool(arguments.fsdp) or parse_flag_from_env("ACCELERATE_USE_FSDP")
    zero3 = arguments.deepspeed_plugin is not None and arguments.deepspeed_plugin.zero_stage == 3
    if not fsdp and not zero3:
        return
    if recipe.algorithm in ONLINE:
        raise RecipeError(
            f"{place}: algorithm: {recipe.algorithm} cannot answer prompts where the weights are shared out. "
            "Use DDP or ZeRO-2."
        )
    if recipe.select is not None:
        raise RecipeError(f"{place}: select: cannot ask a model whose weights are shared out. Use DDP or ZeRO-2.")
    if recipe.peft is not None and is_adapter(recipe.model):
        raise RecipeError(
            f"{place}: model: is an adapter, which cannot be merged in shared-out weights. Merge it first."
        )
    if fsdp and parse_flag_from_env("FSDP_CPU_RAM_EFFICIENT_LOADING"):
        raise RecipeError(
            f"{place}: the launch configuration loads the model in one process alone; every process asks it what the "
            "reference says. Set fsdp_cpu_ram_efficient_loading: false."
        )


def mixed_precision(arguments: Any) -> torch.dtype | None:
    """What autocast computes in, or None where there is none and the weights' own dtype counts."""
    kinds: dict[str, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}
    return kinds.get(arguments.mixed_precision)  # also said by the launcher's configuration


def _selection(recipe: Recipe, given: dict[str, Any], place: str) -> dict[str, Any]:
    """With `select`: a checkpoint at each evaluation, and the best of them in the end."""
    if recipe.select is None:
        return {}
    if recipe.data.eval is None:
        raise RecipeError(f"{place}: select: chooses at each evaluation, so there must be one; set data.eval.")
    for name in sorted(BY_SELECT.keys() & given.keys()):
        raise RecipeError(f"{place}: trainer.{name}: is set by the section 'select'; remove one of the two.")
    strategy = given.get("eval_strategy", "epoch")
    if strategy == "no":
        raise RecipeError(
            f"{place}: trainer.eval_strategy: 'no' leaves 'select' nothing to choose at; say steps or epoch."
        )
    if given.get("save_strategy", strategy) != strategy:
        raise RecipeError(f"{place}: trainer.save_strategy: 'select' saves at each evaluation; remove the key.")
    steps = {"save_steps": given["eval_steps"]} if "eval_steps" in given else {}
    return {**BY_SELECT, "save_strategy": strategy, **steps}


def _evaluation(recipe: Recipe) -> dict[str, Any]:
    return {} if recipe.data.eval is None else {"eval_strategy": "epoch"}
