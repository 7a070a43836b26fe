"""One process at a time: a lock on what is being written. The system lets go of it even after kill -9."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from flipguard.errors import DataError


@contextmanager
def locked(out: Path, *, way_out: str) -> Iterator[None]:
    """Hold `out` for this process alone, by a file beside it; the lock goes with the process, so none is ever stale.

    Args:
        out: the file or folder that is written.
        way_out: what to do where another process holds it, one sentence.

    Raises:
        DataError: another process holds it.
        OSError: the lock file cannot be made.
    """
    path = out.with_name(out.name + ".lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    file = _take(path, out, way_out)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # while still held: whoever waits for this file notices that it is gone
        file.close()


def _take(path: Path, out: Path, way_out: str) -> IO[bytes]:
    while True:
        file = path.open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise DataError(f"{out}: another process is writing it. {way_out}") from None
        if _still_at(path, file):
            return file
        file.close()


def _still_at(path: Path, file: IO[bytes]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False
