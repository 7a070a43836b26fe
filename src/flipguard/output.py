"""What a command says: text for people as it comes, or one JSON value for machines with nothing around it."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any


@contextmanager
def reserved(*, wanted: bool) -> Iterator[None]:
    """Send to standard error what libraries, their threads and their processes write to standard output meanwhile."""
    if not wanted:
        yield
        return
    try:
        place = sys.stdout.fileno()
    except (OSError, ValueError):  # no file of the system's lies behind it, as where a test listens
        with redirect_stdout(sys.stderr):
            yield
        return
    sys.stdout.flush()
    kept = os.dup(place)
    try:
        os.dup2(2, place)
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, place)
        os.close(kept)


def as_json(result: Any) -> str:
    """For machines, and still readable; what a workflow's runner would obey (`##[`) is written as an escape."""
    import orjson

    from flipguard.files import to_json

    return to_json(result, orjson.OPT_INDENT_2).decode().replace("##", "#\\u0023")


def say(text: str) -> None:
    """Write a line; a terminal that cannot show a letter shows its number."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.stdout.write(f"{text}\n")
