"""TRL's RLOO with the guard: answers that earn less than the model before alignment earned are pulled to its answer."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from trl import RLOOConfig, RLOOTrainer

from flipguard.integrations.trl import guard, options
from flipguard.integrations.trl.online import OnlineGuard, same_start


@dataclass
class GuardedRLOOConfig(RLOOConfig):
    """TRL's RLOOConfig and the guard's options; `epsilon` stays TRL's clip range, the guard's is `flip_margin`.

    Raises:
        RecipeError: an option that is not possible, or one of TRL's that cannot go with the guard.
    """

    gamma: float = field(default=0.01, metadata=options.told("gamma"))
    flip_margin: float = field(default=0.1, metadata=options.told("flip_margin"))
    gate: options.Gate = field(default="flip", metadata=options.told("gate"))
    divergence: str = field(default="ce", metadata=options.told("divergence"))
    reduction: options.Reduction = field(default="sum", metadata=options.told("reduction"))
    reference_cache: str | None = field(default=None, metadata=options.told("reference_cache"))

    def __post_init__(self) -> None:
        """Check the guard's options, then TRL's."""
        options.check_online(self)
        super().__post_init__()


class GuardedRLOOTrainer(RLOOTrainer):
    """TRL's RLOOTrainer, which counts answers that earn less than π_0's and pulls them back (Eqs. 7, 10 to 12)."""

    def __init__(self, model: Any, reward_funcs: Any, args: Any = None, *rest: Any, **trainer: Any) -> None:
        """Like RLOOTrainer.

        Args:
            model: π; as it is when training starts, it is π_0.
            reward_funcs: what RLOOTrainer takes; a reward of None is never a flip.
            args: a GuardedRLOOConfig; None is one with the defaults.
            rest: what RLOOTrainer takes.
            trainer: the same, by name.

        Raises:
            RecipeError: `args` is no GuardedRLOOConfig.
        """
        config = GuardedRLOOConfig("guarded-rloo") if args is None else args
        guard.checked(config, GuardedRLOOConfig, type(self))
        given = inspect.signature(RLOOTrainer).bind(model, reward_funcs, config, *rest, **trainer)
        super().__init__(*given.args, **given.kwargs)
        same_start(self)
        self.guard = OnlineGuard(config.gamma, config.flip_margin, config.gate, config.reduction)

    def train(self, *args: Any, **options: Any) -> Any:
        """Let π_0 answer every prompt, then train."""
        self.guard.ask_reference(self)
        return super().train(*args, **options)

    def sampled(self, prompts: list[Any]) -> tuple[list[list[int]], list[Any]]:
        """What the model says to `prompts` now: token ids, and texts or messages."""
        _, ids, completions = self._generate(prompts)
        return ids, completions

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Tensor:
        rewards: Tensor = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        self.guard.keep_rewards(self, rewards, len(prompts))
        return rewards

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        return self.guard.flagged(self, inputs, super()._generate_and_score_completions(inputs))

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        loss: Tensor = super()._compute_loss(model, inputs)
        return self.guard.added(self, model, inputs, loss)
