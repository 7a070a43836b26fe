"""What a run tells while it trains."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from flipguard.train.progress import Progress

SHOWN = {"loss": "loss {:.3f}", "flip/rate": "flips {:.1%}", "rewards/accuracies": "accuracy {:.1%}"}


class ProgressTold(TrainerCallback):
    """Shows steps done and the few metrics worth a glance; all metrics are in trainer_state.json."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.note = ""
        self.progress: Progress | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002 - framework's
        """Open the bar where training starts or resumes."""
        self.progress = Progress(self.title, state.max_steps)
        self.progress.__enter__()
        self.progress.advance(state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:  # noqa: ARG002
        """Keep the numbers to show."""
        self.note = (
            ", ".join(text.format(logs[name]) for name, text in SHOWN.items() if logs and name in logs) or self.note
        )

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002 - framework's
        """One step further."""
        if self.progress is not None:
            self.progress.advance(1, self.note)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002 - framework's
        """Close the bar."""
        if self.progress is not None:
            self.progress.__exit__(None, None, None)
