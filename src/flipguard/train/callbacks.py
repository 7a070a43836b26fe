"""What a run tells while it trains."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from transformers import TrainerCallback

from flipguard.progress import Advance, follow

SHOWN = {
    "loss": "loss {:.3f}",
    "reward": "reward {:.3f}",
    "flip/rate": "flips {:.1%}",
    "rewards/accuracies": "accuracy {:.1%}",
}


class ProgressTold(TrainerCallback):
    """Shows steps done and the few metrics worth a glance; all metrics are in trainer_state.json."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.note = ""
        self.open = ExitStack()
        self.advance: Advance | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002 - framework's
        """Open the bar where training starts or resumes."""
        bar = follow(self.title, state.max_steps, done=state.global_step, unit="step")
        self.advance = self.open.enter_context(bar)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:  # noqa: ARG002
        """Keep the numbers to show."""
        seen = ", ".join(text.format(logs[name]) for name, text in SHOWN.items() if logs and name in logs)
        self.note = seen or self.note

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002 - framework's
        """One step further."""
        if self.advance is not None:
            self.advance(1, self.note)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002 - framework's
        """Close the bar."""
        self.open.close()
