"""What the guarded online trainers and their configs have in common; each adds it to one class of TRL."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from flipguard.integrations.trl import guard, options
from flipguard.integrations.trl.online import OnlineGuard, same_start
from flipguard.integrations.trl.order import EpochOrder


@dataclass
class GuardOptions:
    """The guard's options beside those of a TRL config; its `epsilon` stays the clip range, ours is `flip_margin`."""

    gamma: float = field(default=0.01, metadata=options.told("gamma"))
    flip_margin: float = field(default=0.1, metadata=options.told("flip_margin"))
    gate: options.Gate = field(default="flip", metadata=options.told("gate"))
    divergence: str = field(default="ce", metadata=options.told("divergence"))
    reduction: options.Reduction = field(default="sum", metadata=options.told("reduction"))
    reference_cache: str | None = field(default=None, metadata=options.told("reference_cache"))

    def __post_init__(self) -> None:
        """Check the guard's options, then TRL's."""
        options.check_online(self)
        super().__post_init__()  # type: ignore[misc]  # of the TRL config that stands beside this class


class Rewarded(ABC):
    """Before a trainer of TRL: asks π_0 once, keeps what answers earn, and lets the guard flag those that flip."""

    config: type
    """The guarded config of the trainer."""

    def __init__(self, model: Any, reward_funcs: Any, args: Any = None, *rest: Any, **trainer: Any) -> None:
        """Like the trainer of TRL.

        Args:
            model: π; as it is when training starts, it is π_0.
            reward_funcs: what TRL's trainer takes; a reward of None is never a flip.
            args: a guarded config; None is one with the defaults.
            rest: what TRL's trainer takes.
            trainer: the same, by name.

        Raises:
            RecipeError: `args` is another config.
        """
        made = self.config(f"guarded-{self._name.lower()}") if args is None else args  # type: ignore[attr-defined]
        guard.checked(made, self.config, type(self))
        theirs = super().__init__
        given = inspect.signature(theirs).bind(model, reward_funcs, made, *rest, **trainer)
        theirs(*given.args, **given.kwargs)
        same_start(self)
        self.guard = OnlineGuard(made.gamma, made.flip_margin, made.gate, made.reduction)

    def train(self, *args: Any, **options: Any) -> Any:
        """Let π_0 answer every prompt, then train."""
        self.guard.ask_reference(self)
        return super().train(*args, **options)  # type: ignore[misc]

    @abstractmethod
    def sampled(self, prompts: list[Any]) -> tuple[list[list[int]], list[Any]]:
        """What the model says to `prompts` now: token ids, and texts or messages."""

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)  # type: ignore[misc]
        self.accelerator.wait_for_everyone()  # type: ignore[attr-defined]  # what makes a checkpoint whole comes after

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        return EpochOrder(super()._get_train_sampler(dataset), self)  # type: ignore[misc]

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Tensor:
        rewards: Tensor = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)  # type: ignore[misc]
        self.guard.keep_rewards(self, rewards, len(prompts))
        return rewards

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        return self.guard.flagged(self, inputs, super()._generate_and_score_completions(inputs))  # type: ignore[misc]
