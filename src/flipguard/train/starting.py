"""How every stage starts: model and tokenizer, data that are told of, rewards; and what the frameworks refuse."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import torch

from flipguard.errors import ModelError, RecipeError, shown
from flipguard.functions import find_function, importable_here
from flipguard.processes import is_first
from flipguard.rewards.opening import FUNCTION, open_reward
from flipguard.rewards.spec import RewardSpec
from flipguard.scorers import Scorer
from flipguard.train import models
from flipguard.train.dataspec import Sources
from flipguard.train.recipe import URLS, Recipe
from flipguard.weights import model_folder, weights_sha256


class Data(Protocol):
    """What a stage is trained on."""

    def summary(self) -> str:
        """One line: how many rows, and how many not and why."""


D = TypeVar("D", bound=Data)
LOWER = "Lower trainer.learning_rate, loss.beta or constraint.gamma, and --overwrite."
UNSAMPLED = "probability tensor contains either"  # what torch says where there is nothing to sample from


@contextmanager
def refused(place: str) -> Iterator[None]:
    """What only the frameworks can check, such as the modules an adapter names, is an error of the recipe."""
    try:
        yield
    except (ValueError, TypeError, ImportError, ZeroDivisionError) as error:
        reason = " ".join(str(error).split())
        raise RecipeError(
            f"{place}: trainer or peft: cannot be done ({type(error).__name__}: {shown(reason, 200)})."
        ) from error
    except RuntimeError as error:
        if UNSAMPLED not in str(error):
            raise
        raise RecipeError(f"{place}: training diverged: the model's probabilities are not finite. {LOWER}") from error


def tokenizer_and_model(recipe: Recipe) -> tuple[Any, Any]:
    """Of the policy.

    Raises:
        ModelError: they cannot be loaded, or the tokenizer has tokens that the model has not.
    """
    tokenizer, model = models.load_tokenizer(recipe.model), models.load_model(recipe.model)
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise ModelError(f"{recipe.model.path}: the tokenizer has {len(tokenizer)} tokens, the model only {rows}.")
    return tokenizer, model


def train_and_eval(recipe: Recipe, load: Callable[[Sources], D]) -> tuple[D, D | None]:
    """The data of the recipe, each part told in a line."""
    data = load(recipe.data.train)
    held_out = None if recipe.data.eval is None else load(recipe.data.eval)
    if is_first():
        for sources, part in ((recipe.data.train, data), (recipe.data.eval or (), held_out)):
            sys.stderr.write("" if part is None else f"{', '.join(map(str, sources))}: {part.summary()}\n")
    return data, held_out


def check_finite(model: Any, place: str) -> None:
    """Refuse to go on with weights that are not finite.

    Raises:
        RecipeError: training has diverged.
    """
    broken = [name for name, weight in model.named_parameters() if not torch.isfinite(weight).all()]
    if broken:
        raise RecipeError(f"{place}: training diverged: {len(broken)} weights are not finite, as {broken[0]}. {LOWER}")


def reward_sha256(spec: RewardSpec) -> str | None:
    """Of a reward's weights or the file of its function; None where it answers elsewhere or on the hub."""
    if spec.path.startswith(URLS):
        return None
    if FUNCTION.fullmatch(spec.path):
        with importable_here():
            return find_function(spec.path, "reward").sha256
    folder = model_folder(spec.path)
    return None if folder is None else weights_sha256(folder)


def opened_reward(spec: RewardSpec, place: str) -> Scorer:
    """The scorer that a recipe names; a function may stand in a file of the current folder.

    Raises:
        JudgeError: the kind is unknown, or a function cannot be had.
        ModelError: there is no such model, or it gives no rewards.
    """
    with importable_here():
        return open_reward(spec, place)
