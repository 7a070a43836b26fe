"""Reading and writing the files between stages, so that nothing is lost and nothing is half there."""

from __future__ import annotations

import errno
import gzip
import io
import os
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

import orjson

from flipguard.errors import DataError, shown
from flipguard.records import Row
from flipguard.remedies import remedy

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
LONGEST_LINE = 268_435_456  # bytes; a longer line is no row but a mistake, and must not fill the memory


@contextmanager
def replacing(path: Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary file beside `path`; on success it takes the place of `path`, on failure it is removed.

    A reader, a full disk or a kill never meets a half-written file: the old one stays until the new one is whole.
    A device or a pipe (`/dev/stdout`) has no place to take and is written to directly.

    Raises:
        DataError: the place cannot be written to, or is full.
    """
    encoding = None if "b" in mode else "utf-8"
    with _writing(path):
        device = path.exists() and not path.is_file() and not path.is_dir()
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
    if device:
        with path.open(mode, encoding=encoding) as file:
            yield file
        return
    handle, temporary = temporary_beside(path)
    with settling(temporary, path), os.fdopen(handle, mode, encoding=encoding) as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def settling(temporary: Path, path: Path) -> Iterator[None]:
    """On success `temporary`, a file beside `path`, takes its place; on failure it is removed."""
    try:
        yield
        temporary.chmod(0o666 & ~_umask())
        with _writing(path):
            temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in FULL:
            raise DataError(f"{path}: cannot be written ({error.strerror}). Make room; nothing was replaced.") from None
        raise


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({error.strerror or error}). Choose a folder you may write to."
        ) from None


def temporary_beside(path: Path) -> tuple[int, Path]:
    """A new file in the folder of `path`, open and by name."""
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        return handle, Path(name)


def write_together(files: Iterable[tuple[Path, Iterable[bytes] | Path]]) -> list[Path]:
    """Write several files, all or none: they take their places one after the other once every one is whole.

    Args:
        files: each path with the pieces of its content, or with the file beside it that has the content.

    Returns:
        the paths.
    """
    paths = []
    with ExitStack() as stack:
        for path, pieces in files:
            if isinstance(pieces, Path):
                stack.enter_context(settling(pieces, path))
            else:
                file = stack.enter_context(replacing(path))
                file.writelines(pieces)
                file.flush()
            paths.append(path)
    return paths


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` whole or not at all."""
    with replacing(path) as file:
        file.write(content)


def write_text(path: Path, content: str) -> None:
    """Write `content` to `path` in UTF-8, whole or not at all; lone surrogates become U+FFFD."""
    write_bytes(path, to_utf8(content))


def to_utf8(text: str) -> bytes:
    """`text` in UTF-8; lone surrogates become U+FFFD."""
    encoded: bytes = _without_surrogates(text).encode()
    return encoded


def write_jsonl(path: Path, rows: Iterable[Row]) -> None:
    """Write one object a line to `path`, whole or not at all; lone surrogates become U+FFFD."""
    with replacing(path) as file:
        for row in rows:
            file.write(to_json(row) + b"\n")


def to_json(value: Any, option: int | None = None) -> bytes:
    """`value` as JSON in UTF-8, NaN as null; lone surrogates, which UTF-8 cannot hold, become U+FFFD.

    Raises:
        DataError: it nests deeper than can be written, though it could be read.
    """
    try:
        try:
            return orjson.dumps(value, option=option)
        except TypeError:
            return orjson.dumps(_without_surrogates(value), option=option)
    except (TypeError, RecursionError) as error:
        if "recursion" not in str(error).lower():
            raise
        raise DataError("a value nests more than 250 levels deep. Flatten it.") from None


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            pass
        else:
            return value
        return "".join("\ufffd" if "\ud800" <= character <= "\udfff" else character for character in value)
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_surrogates(item) for item in value]
    return value


def open_binary(path: Path) -> IO[bytes]:
    """Open `path` for reading, unpacking gzip; what stands in the way becomes a DataError."""
    if path.is_dir():
        raise DataError(f"{path}: is a folder, not a file. Name a file inside it.")
    try:
        if path.exists() and not path.is_file() and not path.is_fifo():  # /dev/zero has no end
            raise DataError(f"{path}: is not a regular file but a device. Save what it gives to a file first.")
        file = path.open("rb")
        if file.peek(2)[:2] != b"\x1f\x8b":
            return file
        file.close()
        return gzip.open(path, "rb")  # type: ignore[return-value]
    except FileNotFoundError:
        raise DataError(f"{path}: no such file. {_neighbours(path)}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise DataError(f"{shown(str(path))}: cannot be read ({error}).") from None


def is_plain(path: Path) -> bool:
    """Whether the bytes of `path` are its text: it is not gzipped."""
    with path.open("rb") as file:
        return file.read(2) != b"\x1f\x8b"


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what goes wrong while `path` is read, such as a damaged gzip member, into a DataError."""
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read to its end ({error}).") from None


def read_jsonl(
    path: Path,
    *,
    skip_bad: int = 0,
    on_bad: Callable[[str], None] | None = None,
    loads: Callable[[bytes], Any] = orjson.loads,
) -> Iterator[tuple[int, Row]]:
    """Yield `(line number, row)` for each object of a JSONL file; blank lines are passed over.

    Args:
        path: the file, plain or gzipped, UTF-8, a byte-order mark allowed.
        skip_bad: how many malformed lines to tolerate before giving up.
        on_bad: called with the one-line description of each malformed line that was tolerated; it may raise to stop.
        loads: parses a line; raises orjson.JSONDecodeError.

    Raises:
        DataError: the file cannot be read, or a line is not a JSON object and `skip_bad` is used up.
    """
    bad = 0
    with open_binary(path) as file:
        for number, line in _lines(path, file):
            try:
                row = parse_line(path, number, line, loads)
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
    small = isinstance(file, io.BufferedReader) and path.stat().st_size <= LONGEST_LINE
    with reading(path):
        for number, line in enumerate(file if small else iter(partial(file.readline, LONGEST_LINE + 1), b""), start=1):
            if len(line) > LONGEST_LINE:
                raise DataError(f"{path}:{number}: is longer than {LONGEST_LINE:,} bytes.")
            yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line


def parse_line(path: Path, number: int, line: bytes, loads: Callable[[bytes], Any] = orjson.loads) -> Row | None:
    """The object on line `number` of `path`; None where the line is blank.

    Raises:
        DataError: it is not a JSON object.
    """
    if not line.strip():
        return None
    try:
        row = loads(line)
    except orjson.JSONDecodeError as error:
        raise DataError(
            f"{path}:{number}: not valid JSON ({error.msg.split(':')[0]} at column {error.colno}): "
            f"{shown(line.strip())}.{remedy(line, error.msg)}"
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
