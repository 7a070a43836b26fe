"""One training stage from recipe to model folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import peft
from transformers import PrinterCallback, ProgressCallback, set_seed

from flipguard.errors import ModelError, RecipeError
from flipguard.files import write_text
from flipguard.integrations.trl.critic import with_score
from flipguard.locks import locked
from flipguard.processes import is_first
from flipguard.rewards.spec import RewardSpec
from flipguard.train import arguments as arguments_of
from flipguard.train import models
from flipguard.train.batches import PairCollator, Pairs
from flipguard.train.callbacks import ProgressTold
from flipguard.train.card import model_card
from flipguard.train.data import TokenData, load_completions, load_pairs
from flipguard.train.flagged import guard_weights
from flipguard.train.folder import RunFolder, saving
from flipguard.train.guarded_loss import GuardedLoss, guarded_loss
from flipguard.train.intake import sha256_of
from flipguard.train.offline import OfflineTrainer, Reference
from flipguard.train.online import online
from flipguard.train.onlinespec import ONLINE
from flipguard.train.recipe import Recipe, load_recipe
from flipguard.train.reference import with_reference
from flipguard.train.reward import prepare_tokenizer, reward_trainer
from flipguard.train.selection import FlipSelection, load_prompts, why
from flipguard.train.sft import sft_trainer
from flipguard.train.speed import check_causal, readings_of, slice_tokens
from flipguard.train.starting import (
    Data,
    check_finite,
    opened_reward,
    refused,
    reward_sha256,
    tokenizer_and_model,
    train_and_eval,
)
from flipguard.train.together import agreed, from_first
from flipguard.train.unpaired import UnpairedCollator, UnpairedLoss, load_mismatched
from flipguard.weights import model_folder, weights_sha256

Stage = Callable[[Recipe, Any, str], tuple[Any, Data]]
"""From recipe, arguments and the recipe's file to a trainer that is ready, and its data."""


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
    place = str(path)
    with agreed():
        recipe = load_recipe(path, overrides)
        arguments = arguments_of.training_arguments(recipe, place=place)  # here several processes find each other
        arguments_of.check_launch(recipe, arguments, place=place)
    folder = from_first(lambda: RunFolder(recipe.output_dir, recipe, _inputs(recipe)))
    if from_first(lambda: resume and not overwrite and folder.is_finished()):
        return Trained(folder.path, "", {}, already_done=True)
    stage = STAGES.get(recipe.algorithm, _preference)
    with _alone(folder.path):
        trainer, data = stage(recipe, arguments, place)
        checkpoint = from_first(lambda: folder.open(resume=resume, overwrite=overwrite))
        with refused(place), saving(folder.path):
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        with agreed():
            _check_trained(trainer, place)
        metrics = _last_metrics(trainer.state.log_history)
        with saving(folder.path):
            folder.finish(_saver(trainer, recipe, data, metrics), {"data": data.summary(), "metrics": metrics})
    return Trained(folder.path, data.summary(), metrics)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One run at a time in a folder; of several processes of one run, the first holds it."""
    with ExitStack() as held:
        with agreed():
            if is_first():
                way_out = "Wait for that run, or name another --trainer.output_dir."
                held.enter_context(locked(folder, way_out=way_out))
        yield


def _check_trained(trainer: Any, place: str) -> None:
    """A model that took no step, or is no longer finite, is no result."""
    if trainer.state.global_step == 0:
        raise RecipeError(f"{place}: trainer: not one step was taken. Check steps, epochs and the batch size.")
    check_finite(trainer.model, place)


def _inputs(recipe: Recipe) -> dict[str, str]:
    """SHA-256 of the local files and model folders that decide the result; hub ids are told apart by their names."""
    found = {name: sha256_of(source) for name, source in recipe.data.named().items()}
    files = {"constraint.flips": recipe.constraint.flips, "pretraining": recipe.pretraining}
    if recipe.select is not None:
        files["select.prompts"] = str(recipe.select.prompts)
    for name, file in files.items():
        if file is not None and Path(file).is_file():
            found[name] = hashlib.sha256(Path(file).read_bytes()).hexdigest()
    specs = {"model": recipe.model, "reference": recipe.reference}
    paths = {name: spec.path for name, spec in specs.items() if spec is not None}
    paths |= {} if recipe.critic is None else {"critic": recipe.critic}
    folders = {name: model_folder(path) for name, path in paths.items()}
    found["reward"] = None if recipe.reward is None else reward_sha256(recipe.reward)
    known = {name: sha256 for name, sha256 in found.items() if sha256 is not None}
    return known | {name: weights_sha256(folder) for name, folder in folders.items() if folder is not None}


def _supervised(recipe: Recipe, arguments: Any, place: str) -> tuple[Any, TokenData]:
    with agreed(), refused(place):
        lora = arguments_of.lora_config(recipe, place=place)
        tokenizer, model = tokenizer_and_model(recipe)
        data, evaluation = _rows(load_completions, recipe, tokenizer, model)
        set_seed(arguments.seed)
        told = [ProgressTold("sft")]
        trainer = sft_trainer(model, arguments, tokenizer, data, evaluation, lora, callbacks=told)
        check_causal(trainer.model)
        return trainer, data


def _rewarding(recipe: Recipe, arguments: Any, place: str) -> tuple[Any, TokenData]:
    with agreed(), refused(place):
        lora = arguments_of.lora_config(recipe, place=place)
        tokenizer, model = tokenizer_and_model(recipe)
        data, evaluation = _rows(load_pairs, recipe, tokenizer, model)
        set_seed(arguments.seed)
        classifier, told = with_score(model), [ProgressTold("reward")]
        parts = [part for part in (data, evaluation) if part is not None]
        prepare_tokenizer(tokenizer, parts, chat=data.chat)
        return reward_trainer(classifier, arguments, tokenizer, data, evaluation, lora, callbacks=told), data


def _preference(recipe: Recipe, arguments: Any, place: str) -> tuple[Any, TokenData]:
    mixed = arguments_of.mixed_precision(arguments)
    with agreed(), refused(place):
        lora = arguments_of.lora_config(recipe, place=place)
        tokenizer, model = tokenizer_and_model(recipe)
        objective = guarded_loss(recipe, place=place, precision=mixed or model.dtype)
        unpaired = isinstance(objective, UnpairedLoss)
        loader = load_mismatched if unpaired else load_pairs
        data, evaluation = _rows(loader, recipe, tokenizer, model)
        weights = _guard_weights(recipe, data, tokenizer, place)
        collator = PairCollator(tokenizer.pad_token_id)
        reference = _reference_model(recipe, model, tokenizer, objective)
        if (recipe.reference or recipe.model).quantization is None:  # 4-bit weights are on the GPU already
            reference = reference.to(arguments.device)
        selection = _selection(recipe, tokenizer, arguments, place)
    if selection is not None:
        selection.ask_reference(reference)
    by_token = recipe.constraint.gate == "token"
    asked = partial(with_reference, reference, collator=collator, mixed=mixed, by_token=by_token, speed=recipe.speed)
    seen = [replace(row, guard_weight=weight) for row, weight in zip(asked(data.rows), weights, strict=True)]
    held_out = None if evaluation is None else Pairs(asked(evaluation.rows))
    set_seed(arguments.seed)
    with agreed(), refused(place):
        policy = model if lora is None else peft.get_peft_model(model, lora)
        asked_too = reference if _needs_distribution(objective) else None
        reading, beside = readings_of(policy, asked_too, recipe.speed, arguments.device)
        layout = replace(reading.layout, slice_tokens=slice_tokens(recipe.speed, arguments.device))
        collator = replace(collator, layout=layout)
        trainer = OfflineTrainer(
            guarded_loss=objective,
            scorer=reading.scorer,
            mixed=mixed,
            reference=None if beside is None else Reference(reference, beside),
            model=policy,
            args=arguments,
            train_dataset=Pairs(seen),
            eval_dataset=held_out,
            data_collator=UnpairedCollator(collator) if unpaired else collator,
            processing_class=tokenizer,
            callbacks=[ProgressTold(recipe.algorithm), objective.guard.strength],
        )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    if selection is not None:
        selection.tell(trainer.log)
        trainer.add_callback(selection)
    return trainer, data


def _selection(recipe: Recipe, tokenizer: Any, arguments: Any, place: str) -> FlipSelection | None:
    if recipe.select is None:
        return None
    prompts = load_prompts(recipe.select, tokenizer, arguments.per_device_eval_batch_size)
    scorer = opened_reward(RewardSpec(path=recipe.select.scorer), f"{place}: select.scorer")
    return FlipSelection(recipe.select, prompts, scorer, tokenizer, mixed=arguments_of.mixed_precision(arguments))


STAGES: dict[str, Stage] = {"sft": _supervised, "reward": _rewarding, **dict.fromkeys(ONLINE, online)}
"""The algorithms that are no preference losses."""


def _rows(
    load: Callable[..., TokenData], recipe: Recipe, tokenizer: Any, model: Any
) -> tuple[TokenData, TokenData | None]:
    context = models.context_length(model)
    return train_and_eval(recipe, lambda sources: load(sources, recipe.data, tokenizer, context))


def _reference_model(recipe: Recipe, model: Any, tokenizer: Any, objective: GuardedLoss | UnpairedLoss) -> Any:
    """π_0: the model as it is now, or another one; a second copy only where its distribution is needed later."""
    if recipe.reference is None and not _needs_distribution(objective):
        return model
    reference = models.load_model(recipe.reference or recipe.model)
    wanted, rows = len(tokenizer), reference.get_output_embeddings().weight.shape[0]
    same = rows == model.get_output_embeddings().weight.shape[0]
    if rows < wanted or (_needs_distribution(objective) and not same):
        raise ModelError(
            f"{(recipe.reference or recipe.model).path}: its vocabulary of {rows} is not the policy's; "
            "the reference must read the same tokens."
        )
    return reference.requires_grad_(requires_grad=False)


def _guard_weights(recipe: Recipe, data: TokenData, tokenizer: Any, place: str) -> Sequence[float | None]:
    """What multiplies gamma on each training row; None where nothing was measured."""
    source, weight = recipe.constraint.flips, recipe.constraint.flip_weight
    if source is None or weight is None:
        return [None] * len(data.rows)
    return guard_weights(data.rows, source, weight, tokenizer, place=place)


def _needs_distribution(objective: GuardedLoss | UnpairedLoss) -> bool:
    return objective.guard.spec.gate != "off" and objective.guard.spec.divergence != "ce"


def _last_metrics(history: list[dict[str, float]]) -> dict[str, float]:
    """The last value of each metric; what Trainer tells of its own speed is left to trainer_state.json."""
    last: dict[str, float] = {}
    for entry in history:
        last |= {name: value for name, value in entry.items() if "/" in name or name in ("loss", "eval_loss", "step")}
    return last


def _saver(trainer: Any, recipe: Recipe, data: Data, metrics: dict[str, float]) -> Callable[[Path], None]:
    def save(folder: Path) -> None:
        merged = recipe.peft is not None and models.is_adapter(recipe.model)
        if not merged:
            trainer.save_model(str(folder))
        if not is_first():
            return
        if merged:
            # Its base exists only in memory: an adapter merged into another model. So the whole model is saved.
            trainer.model.merge_and_unload().save_pretrained(str(folder))
            trainer.processing_class.save_pretrained(str(folder))
        trainer.state.save_to_json(str(folder / "trainer_state.json"))
        chosen = None if recipe.select is None else why(trainer.state, recipe.select.min_win_rate)
        write_text(folder / "README.md", model_card(recipe, data=data.summary(), metrics=metrics, chosen=chosen))

    return save
