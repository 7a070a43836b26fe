"""Say how far long work has come: a bar on a terminal, a plain line every ten seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

from flipguard.processes import is_first

EVERY = 10.0


class Advance(Protocol):
    """Counts on; `note` stands beside the count."""

    def __call__(self, count: int, note: str = "") -> None:
        """Count `count` more."""


@contextmanager
def follow(
    label: str, total: int, *, done: int = 0, unit: str = "row", stream: TextIO | None = None
) -> Iterator[Advance]:
    """Show progress on `stream` (default: standard error) while the block runs; it gets a function to call.

    Work that ends within ten seconds prints nothing where there is no terminal.
    """
    stream = sys.stderr if stream is None else stream
    if not is_first():
        yield lambda count, note="": None  # noqa: ARG005 - one process speaks for all
        return
    bar = _bar if stream.isatty() else _lines
    with bar(label, total, done, unit, stream) as advance:
        yield advance


@contextmanager
def _bar(label: str, total: int, done: int, unit: str, stream: TextIO) -> Iterator[Advance]:
    try:
        from tqdm import tqdm
    except ImportError:  # it comes with the extra `train`; comparing needs none of that
        with _lines(label, total, done, unit, stream) as advance:
            yield advance
        return
    with tqdm(desc=label, total=total, initial=done, file=stream, unit=unit) as bar:

        def advance(count: int, note: str = "") -> None:
            bar.set_postfix_str(note, refresh=False)
            bar.update(count)

        yield advance


@contextmanager
def _lines(label: str, total: int, done: int, unit: str, stream: TextIO) -> Iterator[Advance]:
    started = printed = time.monotonic()
    now = done

    def advance(count: int, note: str = "") -> None:
        nonlocal now, printed
        now += count
        clock = time.monotonic()
        if clock - printed < EVERY:
            return
        printed = clock
        left = (clock - started) / (now - done) * (total - now) if now > done else 0.0
        told = f"{label}: {now:,} of {total:,} {unit}s, {duration(left)} left" + (f"; {note}" if note else "")
        print(told, file=stream, flush=True)

    yield advance


def duration(seconds: float) -> str:
    """As a person reads it.

    >>> [duration(s) for s in (0.4, 59, 61, 3700)]
    ['0 s', '59 s', '1 min 1 s', '1 h 1 min']
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
