"""One training stage from recipe to model folder."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
from transformers import PrinterCallback, ProgressCallback, set_seed

from flipguard.errors import ModelError
from flipguard.files import write_text
from flipguard.train import arguments as arguments_of
from flipguard.train import models
from flipguard.train.batches import PairCollator, Pairs
from flipguard.train.callbacks import ProgressTold
from flipguard.train.card import model_card
from flipguard.train.data import TokenData, load_completions, load_pairs
from flipguard.train.folder import RunFolder
from flipguard.train.guarded_loss import GuardedLoss, guarded_loss
from flipguard.train.offline import OfflineTrainer, Reference
from flipguard.train.recipe import Recipe, load_recipe
from flipguard.train.reference import with_reference
from flipguard.train.scoring import scorer_for
from flipguard.train.sft import sft_trainer


@dataclass(frozen=True)
class Trained:
    """Where the model is, what it was trained on, and the last logged metrics."""

    path: Path
    data: str
    metrics: dict[str, float]
    already_done: bool = False


def train(
    path: Path, overrides: dict[str, str] | None = None, *, resume: bool = False, overwrite: bool = False
) -> Trained:
    """Run the recipe at `path`.

    Args:
        path: the YAML file.
        overrides: dotted key to YAML value.
        resume: continue an interrupted run from its last whole checkpoint; a finished one is left as it is.
        overwrite: start anew where the output folder holds an earlier run.

    Raises:
        FlipGuardError: recipe, data or model cannot be used; nothing was trained.
    """
    recipe = load_recipe(path, overrides)
    folder = RunFolder(recipe.output_dir, recipe)
    if resume and not overwrite and folder.is_finished():
        return Trained(folder.path, "", {}, already_done=True)
    stage = _supervised if recipe.algorithm == "sft" else _preference
    trainer, data = stage(recipe, str(path))
    checkpoint = folder.open(resume=resume, overwrite=overwrite)
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    metrics = _last_metrics(trainer.state.log_history)
    folder.finish(_saver(trainer, recipe, data, metrics), {"data": data.summary(), "metrics": metrics})
    return Trained(folder.path, data.summary(), metrics)


def _supervised(recipe: Recipe, place: str) -> tuple[Any, TokenData]:
    arguments = arguments_of.training_arguments(recipe, place=place)
    lora = arguments_of.lora_config(recipe, place=place)
    tokenizer, model = _tokenizer_and_model(recipe)
    data, evaluation = _load(load_completions, recipe, tokenizer, models.context_length(model))
    set_seed(arguments.seed)
    return sft_trainer(model, arguments, tokenizer, data, evaluation, lora, callbacks=[ProgressTold("sft")]), data


def _preference(recipe: Recipe, place: str) -> tuple[Any, TokenData]:
    arguments = arguments_of.training_arguments(recipe, place=place)
    lora = arguments_of.lora_config(recipe, place=place)
    tokenizer, model = _tokenizer_and_model(recipe)
    precision = arguments_of.precision_of(arguments, model)
    objective = guarded_loss(recipe, place=place, precision=precision)
    data, evaluation = _load(load_pairs, recipe, tokenizer, models.context_length(model))
    collator = PairCollator(tokenizer.pad_token_id)
    reference = _reference_model(recipe, model, tokenizer, objective).to(arguments.device)
    seen, held_out = (
        None if part is None else Pairs(with_reference(reference, part.rows, collator, precision=precision))
        for part in (data, evaluation)
    )
    set_seed(arguments.seed)
    policy = model if lora is None else peft.get_peft_model(model, lora)
    trainer = OfflineTrainer(
        guarded_loss=objective,
        scorer=scorer_for(policy),
        reference=Reference(reference, scorer_for(reference)) if _needs_distribution(objective) else None,
        model=policy,
        args=arguments,
        train_dataset=seen,
        eval_dataset=held_out,
        data_collator=collator,
        processing_class=tokenizer,
        callbacks=[ProgressTold(recipe.algorithm)],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    return trainer, data


def _tokenizer_and_model(recipe: Recipe) -> tuple[Any, Any]:
    tokenizer, model = models.load_tokenizer(recipe.model), models.load_model(recipe.model)
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise ModelError(f"{recipe.model.path}: the tokenizer has {len(tokenizer)} tokens, the model only {rows}.")
    return tokenizer, model


def _load(
    load: Callable[..., TokenData], recipe: Recipe, tokenizer: Any, context: int | None
) -> tuple[TokenData, TokenData | None]:
    data = load(recipe.data.train, recipe.data, tokenizer, context)
    sys.stderr.write(f"{recipe.data.train}: {data.summary()}\n")
    if recipe.data.eval is None:
        return data, None
    return data, load(recipe.data.eval, recipe.data, tokenizer, context)


def _reference_model(recipe: Recipe, model: Any, tokenizer: Any, objective: GuardedLoss) -> Any:
    """π_0: the model as it is now, or another one; a second copy only where its distribution is needed later."""
    if recipe.reference is None and not _needs_distribution(objective):
        return model
    reference = models.load_model(recipe.reference or recipe.model)
    if reference.get_input_embeddings().weight.shape[0] < len(tokenizer):
        raise ModelError(f"{recipe.reference and recipe.reference.path}: the reference has a smaller vocabulary.")
    return reference.requires_grad_(requires_grad=False)


def _needs_distribution(objective: GuardedLoss) -> bool:
    return objective.guard.gate != "off" and objective.guard.divergence != "ce"


def _last_metrics(history: list[dict[str, float]]) -> dict[str, float]:
    """The last value of each metric; what Trainer tells of its own speed is left to trainer_state.json."""
    last: dict[str, float] = {}
    for entry in history:
        last |= {name: value for name, value in entry.items() if "/" in name or name in ("loss", "eval_loss", "step")}
    return last


def _saver(trainer: Any, recipe: Recipe, data: TokenData, metrics: dict[str, float]) -> Callable[[Path], None]:
    def save(folder: Path) -> None:
        trainer.save_model(str(folder))
        trainer.state.save_to_json(str(folder / "trainer_state.json"))
        write_text(folder / "README.md", model_card(recipe, data=data.summary(), metrics=metrics))

    return save
