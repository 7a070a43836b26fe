"""What a recipe says of answers that are sampled in training, and what it cannot say of them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from flipguard.errors import RecipeError
from flipguard.train.checking import Place
from flipguard.train.dataspec import SourceSpec

ONLINE = ("ppo", "rloo", "grpo")
"""Algorithms that learn from their own answers and what these earn."""

PPO_ONLY = ("critic", "pretraining")
"""Keys of a recipe that name what only PPO has: where its critic starts, and texts that it goes on learning."""

DEFAULT_EPSILON = 0.1  # the paper's, in the units of the reward (section 5)
PAIRED = ("flips", "flip_weight")  # of `constraint`: what only given answers have


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class RolloutSpec:
    """How π answers a prompt in training, and π_0 before it: `samples` times (default: TRL's) and `reference_samples`.

    Temperature 0 is greedy: each token the likeliest.

    Of several answers of π_0 the mean reward decides what is a flip, and the best is what a flip is pulled to.
    `vllm` answers by vLLM: on the GPUs of training (`colocate`) or by a server that runs already (`server`).
    """

    max_new_tokens: int = Field(default=256, ge=1)
    temperature: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=0, ge=0)
    samples: int | None = Field(default=None, ge=2)
    reference_samples: int = Field(default=1, ge=1)
    vllm: Literal["off", "server", "colocate"] = "off"

    @property
    def reading_temperature(self) -> float:
        """At which log-probs are read: that of the draws; of greedy answers, the model's own."""
        return self.temperature or 1.0


def check_sections(algorithm: str, content: dict[str, Any], sources: dict[str, SourceSpec], place: Place) -> None:
    """Refuse what has no meaning with the algorithm, and a recipe without the reward that it needs.

    Args:
        algorithm: of the recipe.
        content: the recipe as it was written, overrides included.
        sources: of its data, by their keys.
        place: of the recipe.

    Raises:
        RecipeError: a section or key is too much or too little.
    """
    for key in PPO_ONLY if algorithm != "ppo" else ():
        if key in content:
            raise RecipeError(f"{place.of(key)}: has no meaning for '{algorithm}', only for 'ppo'; remove it.")
    if algorithm not in ONLINE:
        for section in ("reward", "rollout"):
            if section in content:
                raise RecipeError(
                    f"{place.of(section)}: has no meaning for '{algorithm}', which samples no answers; remove it."
                )
        return
    if content.get("reward") is None:
        raise RecipeError(
            f"{place.of('reward')}: missing. '{algorithm}' learns from one: a model folder or hub id, a URL, or "
            "package.module:function."
        )
    relabelled = [
        (f"{key}.relabel", "orders pairs, and online nothing but their prompts is read; remove it.")
        for key, source in sources.items()
        if source.relabel is not None
    ]
    for key, why in [*_impossible(content), *relabelled]:
        raise RecipeError(f"{place.of(key)}: {why}")


def _impossible(content: dict[str, Any]) -> list[tuple[str, str]]:
    """Keys that cannot go with an online algorithm, and why; the first is told."""
    constraint, data, speed, rollout = (content.get(name) or {} for name in ("constraint", "data", "speed", "rollout"))
    found = []
    greedy = float(rollout.get("temperature", 1)) == 0
    if content["algorithm"] == "ppo" and "samples" in rollout:
        found.append(("rollout.samples", "'ppo' learns from one answer to a prompt; remove it."))
    if content["algorithm"] != "ppo" and greedy:
        why = (
            f"with 0 all answers to a prompt are the same, and '{content['algorithm']}' learns from their differences."
        )
        found.append(("rollout.temperature", why))
    if greedy and int(rollout.get("reference_samples", 1)) > 1:
        found.append(("rollout.reference_samples", "with temperature 0 they are all the same; remove it."))
    if "reference" in content:
        found.append(("reference", "online, π_0 is the model as it is at the start; remove it."))
    if "select" in content:
        found.append(("select", "cannot go with an online algorithm; remove it."))
    if constraint.get("gate") == "token":
        why = "'token' compares a given answer; a sampled one has no π_0 to be compared with."
        found.append(("constraint.gate", f"{why} Choose one of: flip, always, off, soft."))
    found += [
        (f"constraint.{name}", "speaks of given answers, and online they are sampled; remove it.")
        for name in PAIRED
        if name in constraint
    ]
    if "max_completion_tokens" in data:
        why = "has no meaning online; rollout.max_new_tokens says how long answers may be."
        found.append(("data.max_completion_tokens", why))
    found += [
        (f"speed.{name}", "has no meaning online, where TRL reads the model; remove it.")
        for name in speed
        if name in ("prefix_sharing", "packing", "tiled_head")
    ]
    return found
