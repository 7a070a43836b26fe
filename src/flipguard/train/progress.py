"""Progress of long work: a bar on a terminal, a plain line now and then elsewhere. Everything goes to stderr."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, Self

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Counts up to `total`; used as a context manager."""

    def __init__(self, title: str, total: int) -> None:
        self.title, self.total, self.done = title, total, 0
        self.started = self.told = time.monotonic()
        on_terminal = sys.stderr.isatty()
        self.bar: Any = tqdm(desc=title, total=total, leave=False, file=sys.stderr) if on_terminal else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.close()
        if kind is None:
            self._line(f"{self.done:,} in {time.monotonic() - self.started:.1f} s")

    def advance(self, steps: int, note: str = "") -> None:
        """Count `steps` more; `note` stands beside the count."""
        self.done += steps
        if self.bar is not None:
            self.bar.set_postfix_str(note, refresh=False)
            self.bar.update(steps)
        elif time.monotonic() - self.told >= SECONDS_BETWEEN_LINES:
            self.told = time.monotonic()
            self._line(f"{self.done:,} of {self.total:,}" + (f", {note}" if note else ""))

    def _line(self, text: str) -> None:
        sys.stderr.write(f"{self.title}: {text}\n")
        sys.stderr.flush()
