"""The guard's options as fields of TRL's configs: names, defaults and meaning of a recipe's `constraint`.

They are plain dataclass fields with a help text, so that TrlParser reads them from a command line or a YAML file.
"""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

from flipguard.errors import RecipeError, choose, shown

Gate = Literal["flip", "always", "off"]
Reduction = Literal["sum", "mean"]
FULL_DIVERGENCES = ("kl", "reverse_kl", "js", "wasserstein")


HELP = {
    "gamma": "Weight of the guard, >= 0. With 0 the loss is TRL's own, and flips are only counted.",
    "epsilon": "Nats a wanted answer may lose against the reference model before it counts as a flip, >= 0.",
    "gate": "Which wanted answers are pulled back: those that flipped, always all of them (distillation), or none.",
    "divergence": "What pulls them back: 'ce', the cross entropy of the wanted answer. `flipguard train` has others.",
    "reduction": "Over the tokens of an answer: their sum or their mean.",
    "flip_margin": "How much less than the reference's answer an answer may earn before it is a flip, in the units of "
    "the reward, >= 0.",
    "reference_cache": "Where the reference's answers and rewards are kept: a file, or a folder for one named by its "
    "content. A second run with the same model, prompts, sampling and rewards reads them instead of asking again. "
    "By default they are asked at every start.",
}
"""What a command line's --help says, by the option's name."""


def told(name: str) -> dict[str, str]:
    """The metadata of the field `name`, as transformers' argument parser reads them."""
    return {"help": HELP[name]}


def check(config: Any) -> None:
    """Make the guard's options of a config what they must be, or say what is wrong.

    Numbers may come as text and `off` as false: that is how YAML 1.1, which TRL reads, spells 1e-2 and off.

    Raises:
        RecipeError: an option that is not possible, or one of TRL's that cannot go with the guard.
    """
    config.epsilon = _weight(config.epsilon, f"{type(config).__name__}: epsilon")
    _check_shared(config)


def check_online(config: Any) -> None:
    """The same for the online trainers, whose `epsilon` is TRL's clip range and ours is `flip_margin`.

    Raises:
        RecipeError: an option that is not possible, or one of TRL's that cannot go with the guard.
    """
    config.flip_margin = _weight(config.flip_margin, f"{type(config).__name__}: flip_margin")
    _check_shared(config)


def _check_shared(config: Any) -> None:
    place = type(config).__name__
    config.gamma = _weight(config.gamma, f"{place}: gamma")
    config.gate = "off" if config.gate is False else config.gate
    _one_of(config.gate, get_args(Gate), f"{place}: gate")
    _one_of(config.reduction, get_args(Reduction), f"{place}: reduction")
    if config.divergence in FULL_DIVERGENCES:
        raise RecipeError(
            f"{place}: divergence: {shown(config.divergence)} needs whole distributions, which TRL never builds. "
            f"Choose 'ce', or `flipguard train` with a recipe."
        )
    _one_of(config.divergence, ("ce",), f"{place}: divergence")
    if config.sync_ref_model:
        raise RecipeError(
            f"{place}: sync_ref_model: True cannot go with the guard: the reference model is the one that must not be "
            f"broken, so it stands still. Leave it False."
        )


def _weight(value: Any, place: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number < math.inf:
        raise RecipeError(f"{place}: {shown(value)} is not possible: it must be a number, at least 0.")
    return number


def _one_of(value: Any, choices: tuple[str, ...], place: str) -> None:
    if value not in choices:
        raise RecipeError(f"{place}: unknown value {shown(value)}. {choose(value, choices)}")
