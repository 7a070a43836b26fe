"""Reading and writing the files between stages, so that nothing is lost and nothing is half there."""

from __future__ import annotations

import gzip
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import orjson

from flipguard.errors import DataError, shown
from flipguard.records import Row


@contextmanager
def replacing(path: Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary file beside `path`; on success it takes the place of `path`, on failure it is removed.

    A reader, a full disk or a kill never meets a half-written file: the old one stays until the new one is whole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        encoding = None if "b" in mode else "utf-8"
        with os.fdopen(handle, mode, encoding=encoding) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` whole or not at all."""
    with replacing(path) as file:
        file.write(content)


def write_text(path: Path, content: str) -> None:
    """Write `content` to `path` in UTF-8, whole or not at all; lone surrogates become U+FFFD."""
    write_bytes(path, content.encode("utf-8", errors="replace"))


def write_jsonl(path: Path, rows: Iterator[Row] | list[Row]) -> None:
    """Write one object a line to `path`, whole or not at all."""
    with replacing(path) as file:
        for row in rows:
            file.write(orjson.dumps(row) + b"\n")


def open_binary(path: Path) -> IO[bytes]:
    """Open `path` for reading, unpacking `.gz`; what stands in the way becomes a DataError."""
    try:
        if path.is_dir():
            raise DataError(f"{path}: is a folder, not a file. Name a file inside it.")
        file = path.open("rb")
        if file.peek(2)[:2] == b"\x1f\x8b":
            return gzip.open(file, "rb")  # type: ignore[return-value]
        return file
    except FileNotFoundError:
        raise DataError(f"{path}: no such file. {_neighbours(path)}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from None


def read_jsonl(
    path: Path, *, skip_bad: int = 0, on_bad: Callable[[str], None] | None = None
) -> Iterator[tuple[int, Row]]:
    """Yield `(line number, row)` for each object of a JSONL file; blank lines are passed over.

    Args:
        path: the file, plain or gzipped, UTF-8, a byte-order mark allowed.
        skip_bad: how many malformed lines to tolerate before giving up.
        on_bad: called with the one-line description of each malformed line that was tolerated.

    Raises:
        DataError: the file cannot be read, or a line is not a JSON object and `skip_bad` is used up.
    """
    bad = 0
    with open_binary(path) as file:
        for number, line in _lines(path, file):
            try:
                row = _parse(path, number, line)
            except DataError as error:
                bad += 1
                if bad > skip_bad:
                    raise
                if on_bad is not None:
                    on_bad(str(error))
                continue
            if row is not None:
                yield number, row


def _lines(path: Path, file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    try:
        for number, line in enumerate(file, start=1):
            yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
    except (OSError, EOFError) as error:  # a truncated or corrupt gzip member
        raise DataError(f"{path}: cannot be read to its end ({error}).") from None


def _parse(path: Path, number: int, line: bytes) -> Row | None:
    if not line.strip():
        return None
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise DataError(
            f"{path}:{number}: not valid JSON ({error.msg} at column {error.colno}): {shown(line.strip())}."
        ) from None
    if not isinstance(row, dict):
        raise DataError(f"{path}:{number}: expected one JSON object a line, found {shown(row)}.")
    return row


def _neighbours(path: Path) -> str:
    import difflib

    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return f"The folder {path.parent} does not exist either."
    near = difflib.get_close_matches(path.name, names, n=1)
    return f"Did you mean '{path.parent / near[0]}'?" if near else "Check the path."


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
