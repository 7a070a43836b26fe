"""The gamma of the step that is running: on its schedule, or on its way to a target flip rate."""

from __future__ import annotations

from typing import Any

import torch
from accelerate.utils import reduce
from torch import Tensor
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from flipguard.objective.strength import dual_ascent, scheduled_gamma
from flipguard.train.constraintspec import DEFAULT_RATE, ConstraintSpec


class Strength(TrainerCallback, ExportableState):
    """Moves gamma between optimizer steps, alike on every process; a checkpoint's trainer_state.json carries it."""

    def __init__(self, spec: ConstraintSpec) -> None:
        self.spec = spec
        self.gamma = 0.0 if spec.gate == "off" else self._scheduled(0.0)
        self._flips: Tensor | None = None  # [2]: how many flipped, of how many, since the last step

    def observe(self, flipped: Tensor, *, counts: Tensor) -> None:
        """Count the flips of a micro-batch.

        Args:
            flipped: [N] 0 or 1, one per example that can flip.
            counts: [1] 0 where the batch only fills up a step.
        """
        if self.spec.target_flip_rate is not None:
            seen = torch.stack([flipped.sum().double(), counts.new_tensor(len(flipped)).double()]) * (counts > 0)
            self._flips = seen if self._flips is None else self._flips + seen

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"args": {}, "attributes": {"gamma": self.gamma}}

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002 - framework's
        """Go on with the gamma of the checkpoint that training resumes from."""
        saved = state.stateful_callbacks.get(type(self).__name__)
        if saved is not None:
            self.gamma = saved["attributes"]["gamma"]

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002 - framework's
        """Where the schedule says gamma is."""
        if self.spec.target_flip_rate is None and self.spec.gate != "off":
            self.gamma = self._scheduled(state.global_step / state.max_steps)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002 - framework's
        """One step of dual ascent on the flip rate of the whole optimizer step, over all processes."""
        if self.spec.target_flip_rate is None or self._flips is None:
            return
        flips, examples = reduce(self._flips, reduction="sum").tolist()
        self._flips = None
        if examples:
            self.gamma = dual_ascent(
                self.gamma,
                flip_rate=flips / examples,
                target=self.spec.target_flip_rate,
                rate=self.spec.adaptive_rate or DEFAULT_RATE,
            )

    def _scheduled(self, progress: float) -> float:
        spec = self.spec
        return scheduled_gamma(spec.gamma, progress=progress, schedule=spec.schedule, warmup=spec.warmup)
