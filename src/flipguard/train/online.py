"""Alignment by answers that are sampled and rewarded while training: TRL's online trainers, guarded."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import math
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import datasets
import orjson
import torch
from transformers import PrinterCallback, ProgressCallback, TrainerCallback

from flipguard.errors import DataError, JudgeError, ModelError, RecipeError
from flipguard.files import to_json
from flipguard.integrations.trl import GuardedGRPOTrainer, GuardedPPOTrainer, GuardedRLOOTrainer
from flipguard.processes import is_first
from flipguard.progress import follow
from flipguard.rewards.spec import RewardSpec
from flipguard.scorers import Answered, Scorer, grade
from flipguard.train import arguments as arguments_of
from flipguard.train import models
from flipguard.train.callbacks import ProgressTold
from flipguard.train.distance import distance_of
from flipguard.train.prompts import PromptData, read_prompts
from flipguard.train.recipe import Recipe
from flipguard.train.speed import check_causal
from flipguard.train.starting import check_finite, opened_reward, refused, tokenizer_and_model, train_and_eval
from flipguard.train.strength import Strength
from flipguard.train.together import agreed

TRAINERS: dict[str, Any] = {"rloo": GuardedRLOOTrainer, "grpo": GuardedGRPOTrainer, "ppo": GuardedPPOTrainer}
ROW, PART = "flip_row", "flip_part"  # columns by which a reward finds the rest of a row again

datasets.disable_progress_bars()  # our own progress says what matters
for _name in ("rloo", "grpo"):  # TRL prints the whole row of an answer that cannot be graded; here they are counted
    logging.getLogger(f"trl.trainer.{_name}_trainer").addFilter(lambda record: "returned None" not in record.msg)


def online(recipe: Recipe, arguments: Any, place: str) -> tuple[Any, PromptData]:
    """A trainer of the recipe that knows what π_0 says to each prompt, and the prompts.

    Raises:
        FlipGuardError: recipe, prompts, model or reward cannot be used.
    """
    with agreed(), refused(place):
        check_vllm(recipe, place)
        lora = arguments_of.lora_config(recipe, place=place)
        tokenizer, model = tokenizer_and_model(recipe)
        data, evaluation = _prompts(recipe, tokenizer, model)
        _check_steps(data, arguments, place)
        scorer = opened_reward(_given(recipe.reward), f"{place}: reward")
        strength = Strength(recipe.constraint)
        distance = distance_of(recipe, model, arguments.device)
        trainer = TRAINERS[recipe.algorithm](
            model=model,
            reward_funcs=reward_function(scorer, {"train": data, "eval": evaluation}),
            args=arguments,
            train_dataset=_dataset(data, "train"),
            eval_dataset=None if evaluation is None else _dataset(evaluation, "eval"),
            processing_class=tokenizer,
            peft_config=lora,
            callbacks=[ProgressTold(recipe.algorithm), strength],
        )
        check_causal(trainer.model)
        trainer.remove_callback(PrinterCallback)
        trainer.remove_callback(ProgressCallback)
        _steer(trainer, recipe, strength)
        trainer.guard.distance = distance
        trainer.add_callback(Steering(trainer.guard, strength, scorer, place))
        trainer.guard.beside = _identity(recipe, scorer, [data, evaluation])
        _make_cache(arguments)
    trainer.guard.ask_reference(trainer)
    with agreed():
        _check_reference(trainer, scorer)
    return trainer, data


def reward_function(scorer: Scorer, parts: dict[str, PromptData | None]) -> Callable[..., list[float | None]]:
    """The scorer with the signature that TRL calls, and the other keys of the rows as it wants them.

    Args:
        scorer: grades answers; what breaks its promise is one line, in all processes at once.
        parts: the prompts by the name that the column PART has.
    """
    columns = {name: part.columns() for name, part in parts.items() if part is not None}

    def reward(prompts: list[Any], completions: list[Any], **told: Any) -> list[float | None]:
        (name, *_), numbers = told[PART], told[ROW]
        data = parts[name]
        assert data is not None  # noqa: S101 - it is asked
        rows = [data.asked[number] for number in numbers]
        answers = [
            Answered(item.row.get("id", item.place), prompt, _text(answer))
            for item, prompt, answer in zip(rows, prompts, completions, strict=True)
        ]
        beside = {key: [item.row.get(key) for item in rows] for key in columns[name]}
        with agreed():
            return [one.score for one in grade(scorer, answers, beside, place=f"data.{name}")]

    return reward


def _text(answer: Any) -> str:
    """What TRL gives as a text, or as the message of an assistant."""
    return str(answer if isinstance(answer, str) else answer[0]["content"])


class Steering(TrainerCallback):
    """Gives the guard the gamma of each step, and tells at the end how the answers were graded."""

    def __init__(self, guard: Any, strength: Strength, scorer: Scorer, place: str) -> None:
        self.guard, self.strength, self.scorer, self.place = guard, strength, scorer, place

    def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:  # noqa: ARG002
        """After `strength` has moved it; a model that has diverged could not answer."""
        self.guard.gamma = self.strength.gamma
        with agreed():
            check_finite(model, self.place)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002 - framework's
        """What the reader must know of the rewards."""
        remark = self.scorer.told()
        if remark and is_first():
            sys.stderr.write(f"{self.scorer.name}: {remark}\n")


def _steer(trainer: Any, recipe: Recipe, strength: Strength) -> None:
    """Give the guard what a recipe has beyond TRL's configs: the soft gate, a gamma that follows the flips ..."""
    guard, spec = trainer.guard, recipe.constraint
    guard.gate = spec.gate
    guard.samples = recipe.rollout.reference_samples
    guard.follow = lambda total: follow("reference answers", total, unit="prompt")
    guard.soft = spec.weights or guard.soft
    guard.observe = lambda flipped: strength.observe(flipped, counts=flipped.new_ones(1))


def _prompts(recipe: Recipe, tokenizer: Any, model: Any) -> tuple[PromptData, PromptData | None]:
    length, context = recipe.rollout.max_new_tokens, models.context_length(model)
    parts = train_and_eval(
        recipe, lambda sources: read_prompts(sources, recipe.data, tokenizer, context=context, answer=length)
    )
    texts = any(isinstance(item.prompt, str) for part in parts if part is not None for item in part.asked)
    if texts and tokenizer("a")["input_ids"][-1:] == [tokenizer.eos_token_id]:
        raise ModelError(
            f"{recipe.model.path}: the tokenizer ends every text, so that no prompt is left open for an answer. "
            "Set add_eos_token to false in its configuration, or give messages instead of texts."
        )
    return parts


def _dataset(data: PromptData, part: str) -> Any:
    """What TRL reads: prompts, and where the rest of their rows is."""
    prompts = [data.asked[number].prompt for number in data.order]
    return datasets.Dataset.from_dict({"prompt": prompts, ROW: data.order, PART: [part] * len(prompts)})


def _check_steps(data: PromptData, arguments: Any, place: str) -> None:
    """There is a step's worth of prompts, and a checkpoint never stands amid steps that share answers."""
    wanted, count = arguments.generation_batch_size // arguments.num_generations, len(data.order)
    if count < wanted:
        raise RecipeError(
            f"{place}: data.train: {count:,} prompts are fewer than the {wanted:,} that are asked at once. Lower "
            "trainer.per_device_train_batch_size, or raise rollout.samples."
        )
    if count % wanted and is_first():
        sys.stderr.write(f"{count % wanted:,} prompts of each epoch, drawn anew, fill no step and are not asked\n")
    accumulated = arguments.gradient_accumulation_steps
    shared = arguments.steps_per_generation * arguments.num_iterations
    saves = arguments.save_strategy == "steps" and arguments.save_steps >= 1
    if saves and arguments.save_steps * accumulated % shared:
        raise RecipeError(
            f"{place}: trainer.save_steps: {arguments.save_steps:g} falls amid the {shared / accumulated:g} steps that "
            "learn from the same answers, so a resumed run would learn from others. Choose a multiple."
        )


def check_vllm(recipe: Recipe, place: str) -> None:
    """Refuse what this machine cannot do.

    Raises:
        RecipeError: vLLM is not installed, or has no GPU.
    """
    if recipe.rollout.vllm == "off":
        return
    if importlib.util.find_spec("vllm") is None:
        raise RecipeError(f"{place}: rollout.vllm: needs the package 'vllm', which is not installed. Say 'off'.")
    if not torch.cuda.is_available():
        raise RecipeError(f"{place}: rollout.vllm: needs a GPU, and there is none here. Say 'off'.")


def _given(reward: RewardSpec | None) -> RewardSpec:
    assert reward is not None  # noqa: S101 - the recipe was checked
    return reward


def _identity(recipe: Recipe, scorer: Scorer, parts: list[PromptData | None]) -> str:
    """SHA-256 over what decides the reward of an answer: the scorer, how it is asked, and the columns that it gets."""
    said = [asdict(_given(recipe.reward)), scorer.sha256, recipe.model.dtype]
    digest = hashlib.sha256(to_json(said, orjson.OPT_SORT_KEYS))
    for part in parts:
        for item in [] if part is None else part.asked:
            digest.update(to_json({name: repr(value) for name, value in item.row.items()}, orjson.OPT_SORT_KEYS))
    return digest.hexdigest()


def _make_cache(arguments: Any) -> None:
    folder = arguments.reference_cache
    try:
        if folder is not None:
            Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be written ({error.strerror}). Set FLIPGUARD_CACHE to a folder you may write to."
        ) from None


def _check_reference(trainer: Any, scorer: Scorer) -> None:
    """Tell how many of π_0's answers say little.

    Raises:
        JudgeError: not one of them could be graded.
    """
    answers = list(trainer.guard.rollouts.values())
    ungraded = sum(math.isnan(answer.reward) for answer in answers)
    if ungraded == len(answers):
        raise JudgeError(f"{scorer.name}: graded not one answer of the reference.")
    open_ended = sum(answer.ids[-1:] != [] and answer.ids[-1] not in trainer.eos_token_ids for answer in answers)
    if is_first():
        sys.stderr.write(
            f"reference: {len(answers):,} answers; {open_ended:,} were cut at rollout.max_new_tokens, "
            f"{ungraded:,} could not be graded\n"
        )
