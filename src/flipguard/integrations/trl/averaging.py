"""An exponential moving average of the weights that are trained, kept beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import TrainerCallback

from flipguard.errors import ModelError

FOLDER, FILE = "ema", "ema.safetensors"  # a model folder beside a finished policy; the average in a checkpoint


class Average(TrainerCallback):
    """average ← decay · average + (1 − decay) · weights, after every optimizer step."""

    def __init__(self, model: Any, decay: float) -> None:
        self.model, self.decay = model, decay
        self.weights: dict[str, Tensor] = {name: one.detach().clone() for name, one in self._trained()}

    @torch.no_grad()
    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002 - framework's
        """Move it."""
        for name, one in self._trained():
            self.weights[name] = self.weights[name].to(one.device).lerp_(one.detach(), 1.0 - self.decay)

    def keep(self, folder: Path) -> None:
        """Write it into a checkpoint."""
        save_file({name: one.contiguous() for name, one in self.weights.items()}, folder / FILE)

    def restore(self, folder: Path) -> None:
        """Go on with the average of a checkpoint.

        Raises:
            ModelError: it has none.
        """
        try:
            self.weights = load_file(folder / FILE)
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{folder / FILE}: cannot be read ({error}); ema_decay cannot go on.") from None

    @torch.no_grad()
    def save(self, folder: Path) -> None:
        """Write the averaged policy as a model folder `ema` within `folder`."""
        now = {name: one.detach().clone() for name, one in self._trained()}
        try:
            self._put(self.weights)
            self.model.save_pretrained(folder / FOLDER)
        finally:
            self._put(now)

    def _trained(self) -> list[tuple[str, Any]]:
        return [(name, one) for name, one in self.model.named_parameters() if one.requires_grad]

    def _put(self, weights: dict[str, Tensor]) -> None:
        for name, one in self._trained():
            one.copy_(weights[name])
